"""The manifests that a topology names, looked up and checked before anything is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.services.catalogue import bundled_services, find_service
from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.topology.model import ServiceTable, Topology
from packetcloud.testbed.topology.router_files import SECRET_PARAMETER

_OF_A_SERVICE = (".py", ".toml")


def manifest_of(topology: Topology, table: ServiceTable) -> str:
    """Return a bundled service's name, or the path of a manifest beside the topology's file."""
    if table.manifest in {one.manifest.service.name for one in bundled_services()}:
        return table.manifest
    return str(topology.folder / table.manifest)


def fingerprint_of(topology: Topology) -> str:
    """Return a digest of the file of a topology, and of the services beside it that it names."""
    digest = hashlib.sha256(topology.text.encode())
    for table in topology.file.service:
        manifest = Path(manifest_of(topology, table))
        folder = manifest if manifest.is_dir() else manifest.parent
        if not manifest.is_absolute():
            continue  # a bundled one, which is of our commit
        for path in sorted(one for one in folder.rglob("*") if one.suffix in _OF_A_SERVICE):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
