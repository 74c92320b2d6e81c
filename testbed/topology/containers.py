"""The containers of a topology: images of their services, and an LXD server for each cloudlet.

A server of our own lives in the network namespace of its router, with mounts of its own: bridges,
filters and interfaces of its VIs go with the namespace, mounts with its processes. Its folder bears
the mark of its keeper, so that whoever sweeps what a dead one left finds it (`lxd_remains`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.cloudlet.images.store import BuiltImage
from packetcloud.cloudlet.vi_types import load_catalogue
from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.lxd_daemon import LxdDaemon, lacking_for_lxd
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.ownership import started_at
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.rootless import is_rootless_here
from packetcloud.testbed.topology.service_files import own_manifest
from packetcloud.testbed.topology.tables import ServiceTable
from packetcloud.testbed.vi_images import vi_image

LXD = "lxd"
_IMAGE_MIB = 2048
"""Of a pool, for the images, each of which lies in it once; its file takes only what is written."""

Tell = Callable[[str], None]


def lacking_for_containers(topology: Topology) -> str | None:
    """Return why the containers of a topology cannot be made here; None: they can, or it has none.

    Without being root it is told what a root would lack: nothing but root.
    """
    table = next((one for one in topology.file.service if one.isolation == LXD), None)
    if table is None:
        return None
    where = f'{topology.name}: [[service]] {table.name}: isolation = "lxd"'
    if is_rootless_here():
        return (
            f"{where}: a topology without root is in a user namespace of one user, and a container "
            "needs a range of them; run this with sudo (no --rootless), or say isolation = "
            '"controller"'
        )
    reason = lacking_for_lxd()
    return None if reason is None else f"{where}: {reason}; see: packetcloud doctor"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A running LXD server."""

    folder: Path
    """Its LXD_DIR."""
    pid: int
    started: str | None


class Containers:
    """Images and servers, made when they are asked for. All end by `close`.

    Args:
        images: folder of the store; None: where `packetcloud image build` puts images.
    """

    def __init__(self, topology: Topology, images: Path | None, tell: Tell) -> None:
        self._topology = topology
        self._images = images.absolute() if images is not None else None
        self._tell = tell
        self._built: dict[Path | None, BuiltImage] = {}
        self._servers: dict[str, LxdDaemon] = {}
        self._ends = contextlib.ExitStack()

    def build_image(self, table: ServiceTable) -> None:
        """Have an image of a service's code in the store.

        Raises:
            TopologyError: it cannot be built; one line says why.
        """
        manifest = own_manifest(self._topology, table)
        if manifest in self._built:
            return
        try:
            self._built[manifest] = vi_image(self._tell, self._images, manifest)
        except PacketCloudError as error:
            said = " | ".join(line.strip() for line in str(error).splitlines() if line.strip())
            raise TopologyError(
                f"{self._topology.name}: [[service]] {table.name}: no image of it: {said}"
            ) from None

    def image_of(self, table: ServiceTable) -> Path:
        """Return the file of the image that was built."""
        return self._built[own_manifest(self._topology, table)].path

    def start_server(self, router: str, place: Namespace) -> None:
        """Start the LXD server of a router's cloudlet, in its namespace.

        Raises:
            TestbedError: it does not start.
        """
        tables = [one for one in self._topology.file.service if one.at == router]
        server = LxdDaemon(place=place, pool_mib=_IMAGE_MIB + _disk_mib(tables))
        self._servers[router] = self._ends.enter_context(server)

    def socket_of(self, router: str) -> Path:
        """Return where the server of a router's cloudlet listens."""
        return self._servers[router].socket

    def facts(self) -> dict[str, ServerFacts]:
        """Return the servers that run, by router."""
        return {
            router: ServerFacts(one.folder, one.pid, started_at(one.pid))
            for router, one in self._servers.items()
        }

    def close(self) -> None:
        """End all servers with their containers; a second call does nothing."""
        self._servers.clear()
        self._ends.close()


def _disk_mib(tables: Iterable[ServiceTable]) -> int:
    """Return how much the roots of these services' VIs may take."""
    types = load_catalogue().types
    return sum(one.vis * types[one.vi_type].limits.disk_mib for one in tables)
