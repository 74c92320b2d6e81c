"""The manifests that a topology names, looked up and checked before anything is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.cloudlet.vi_types import load_catalogue
from packetcloud.services.catalogue import bundled_services, find_service
from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.router_files import SECRET_PARAMETER
from packetcloud.testbed.topology.tables import ServiceTable

_OF_A_SERVICE = (".py", ".toml", ".txt")


def manifest_of(topology: Topology, table: ServiceTable) -> str:
    """Return a bundled service's name, or the path of a manifest beside the topology's file."""
    own = own_manifest(topology, table)
    return table.manifest if own is None else str(own)


def own_manifest(topology: Topology, table: ServiceTable) -> Path | None:
    """Return the path of an author's own manifest; None: the service is a bundled one."""
    if table.manifest in {one.manifest.service.name for one in bundled_services()}:
        return None
    return topology.folder / table.manifest


def files_of(topology: Topology, table: ServiceTable) -> dict[str, Path]:
    """Return the files that go along to a service, by parameter."""
    return {name: topology.folder / path for name, path in table.files.items()}


def fingerprint_of(topology: Topology) -> str:
    """Return a digest of the file of a topology, and of the services and files that it names."""
    digest = hashlib.sha256(topology.text.encode())
    for table in topology.file.service:
        for path in files_of(topology, table).values():
            digest.update(path.read_bytes())
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
        TopologyError: no such manifest, file or VI type, or a parameter that it does not have.
    """
    types = load_catalogue().types
    for table in topology.file.service:
        where = f"{topology.name}: [[service]] {table.name}"
        if table.vi_type not in types:
            raise TopologyError(
                f"{where}: vi_type = {table.vi_type!r}; allowed: {', '.join(types)}"
            )
        settings = {key: str(value) for key, value in table.settings.items()}
        for name, path in files_of(topology, table).items():
            if name in settings:
                raise TopologyError(f"{where}: {name} stands in files and in settings")
            if not path.is_file():
                raise TopologyError(f"{where}: files: {name}: no file {path}")
            settings[name] = str(path)
        if table.secret is not None:
            if SECRET_PARAMETER in settings:
                raise TopologyError(
                    f"{where}: secret: {SECRET_PARAMETER} is set already; allowed: one of both"
                )
            settings[SECRET_PARAMETER] = "made-when-it-starts"
        try:
            manifest = find_service(manifest_of(topology, table)).manifest
            manifest.resolve(settings)
        except PacketCloudError as error:
            raise TopologyError(f"{where}: {error}") from None
        for name in table.files:
            if manifest.parameters[name].type != "path":
                raise TopologyError(f"{where}: files: {name} is no parameter of type path")
