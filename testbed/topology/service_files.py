"""The manifests that a topology names, looked up and checked before anything is made."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.services.catalogue import bundled_services, find_service
from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.topology.model import ServiceTable, Topology
from packetcloud.testbed.topology.router_files import SECRET_PARAMETER


def manifest_of(topology: Topology, table: ServiceTable) -> str:
    """Return a bundled service's name, or the path of a manifest beside the topology's file."""
    if table.manifest in {one.manifest.service.name for one in bundled_services()}:
        return table.manifest
    return str(topology.folder / table.manifest)


def check_services(topology: Topology) -> None:
    """See that every service of a topology can be started with what the file says.

    Raises:
        TopologyError: no such manifest, or a parameter that it does not have.
    """
    for table in topology.file.service:
        where = f"{topology.name}: [[service]] {table.name}"
        settings = {key: str(value) for key, value in table.settings.items()}
        if table.secret is not None:
            settings[SECRET_PARAMETER] = "made-when-it-starts"
        try:
            find_service(manifest_of(topology, table)).manifest.resolve(settings)
        except PacketCloudError as error:
            raise TopologyError(f"{where}: {error}") from None
