"""A service of the cloudlet's config file: what is read for it, and what is wished of it.

Source: docs/reference/cloudlet-config.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from packetcloud.chunk.errors import PacketCloudError, ProtocolError
from packetcloud.chunk.identity import Identity, load_identity_file
from packetcloud.chunk.names import GUID
from packetcloud.cloudlet.config_tables import CloudletFile, ServiceTable
from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.core.values import (
    ConductPolicy,
    RestartPolicy,
    ScalingPolicy,
    ServiceWish,
)
from packetcloud.cloudlet.egress import EgressPolicy
from packetcloud.cloudlet.egress_config import declared_policy, own_networks
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.filters import NetworkPlan
from packetcloud.cloudlet.images.store import DEFAULT_FOLDER
from packetcloud.services.catalogue import find_service
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.launch_files import MAX_FILES_BYTES
from packetcloud.services.manifest import Manifest
from packetcloud.services.plan import plan_launch


@dataclass(frozen=True, slots=True)
class DeclaredService:
    """A service of the file with everything that was read for it."""

    table: ServiceTable
    manifest: Manifest
    identity: Identity
    spec: LaunchSpec
    manifest_path: Path
    egress: EgressPolicy
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What is in the files that go along with a launch, by parameter."""

    @property
    def name(self) -> str:
        """The name that it has in this cloudlet."""
        return self.table.name or self.manifest.service.name

    @property
    def is_bundled(self) -> bool:
        """Tell whether its code is ours."""
        return self.spec.search_path is None

    def no_image(self, store: Path) -> str:
        """Return what to say when `store` has no image for it: which, and how to build it."""
        command = "packetcloud image build"
        if not self.is_bundled:
            command += f" --service {shlex.quote(str(self.manifest_path))}"
        if store != DEFAULT_FOLDER:
            command += f" --store {shlex.quote(str(store))}"
        which = (
            "image of the bundled services"
            if self.is_bundled
            else f"image that was built of {self.manifest_path.parent} as it is now"
        )
        return f"service {self.name}: no {which} in {store}; build one: {command}"

    @property
    def deadline_ms(self) -> int:
        return self.manifest.behaviour.deadline_ms


def declare(
    folder: Path, file: CloudletFile, table: ServiceTable, network: NetworkPlan
) -> DeclaredService:
    """Read what a service of the file needs for a launch: manifest, key, settings, files.

    Args:
        folder: that of the config file; relative paths begin there.

    Raises:
        CloudletConfigError: names the service, what is wrong, and what is allowed.
    """
    router_host = "127.0.0.1" if file.has_processes else network.data.peer_ipv4
    name = table.manifest
    if (folder / name).exists():
        name = str(folder / name)
    try:
        found = find_service(name)
        key = folder / table.key
        identity = load_identity_file(key)
        contents = _contents(folder, table, found.manifest)
        egress = declared_policy(
            table,
            table.name or found.manifest.service.name,
            own_networks(file),
            is_process=file.has_processes,
        )
        paths = {parameter: str(folder / path) for parameter, path in table.files.items()}
        plan = plan_launch(
            found,
            {key: _text(value) for key, value in table.settings.items()} | paths,
            router=f"{router_host}:{file.router.port}",
            key_file=key,
            router_guid=file.router.guid,
            private_links=(str(network.data.subnet.ipv4), str(network.data.subnet.ipv6)),
        )
    except PacketCloudError as error:
        raise CloudletConfigError(f"[[service]] {table.manifest}: {error}") from None
    except OSError as error:
        raise CloudletConfigError(
            f"[[service]] {table.manifest}: {error.filename}: {error.strerror}"
        ) from None
    try:
        for one in table.allowed_destinations or ():
            if isinstance(one, str):
                GUID.from_hex(one)
    except ProtocolError as error:
        raise CloudletConfigError(
            f"[[service]] {table.manifest}: allowed_destinations: {error}; allowed: GUIDs of 40 "
            "hexadecimal digits, and NAs as numbers"
        ) from None
    return DeclaredService(table, found.manifest, identity, plan.spec, found.path, egress, contents)


def wish_of(
    one: DeclaredService, image: ImageFiles | None, egress_nodes: frozenset[str] | None = None
) -> ServiceWish:
    """Return what the controller shall see to.

    Args:
        image: None where nothing is built yet.
        egress_nodes: those from which VIs reach the IP network; None: all.
    """
    table, manifest = one.table, one.manifest
    behaviour, supervision = manifest.behaviour, manifest.supervision
    entry: dict[str, object] = {
        "name": one.name,
        "priority": table.priority,
        "fail_policy": behaviour.fail_policy,
        "deadline_ms": behaviour.deadline_ms,
        "grace_s": table.grace_s,
        "rules_from": table.rules_from,
    }
    # A router of before these keys refuses an item that has them: said only where they say more.
    if table.max_attempts != ServiceTable.model_fields["max_attempts"].default:
        entry["max_attempts"] = table.max_attempts
    if behaviour.keeps_flows:
        entry["keeps_flows"] = True
    if table.max_output_ratio is not None:
        entry["max_output_ratio"] = table.max_output_ratio
    if table.allowed_destinations is not None:
        entry["allowed_destinations"] = table.allowed_destinations
    if table.output_bytes_ratio is not None:
        entry["output_bytes_ratio"] = table.output_bytes_ratio
    if table.output_chunks_ratio is not None:
        entry["output_chunks_ratio"] = table.output_chunks_ratio
    if (verdicts := table.verdicts or behaviour.verdicts) is not None:
        entry["verdicts"] = list(verdicts)
    if table.inspect is not None:
        entry["inspection"] = table.inspect.model_dump()
    return ServiceWish(
        name=one.name,
        sid=one.identity.sid.hex,
        vi_type=table.vi_type,
        replicas_min=table.replicas_min,
        replicas_max=table.replicas_max,
        standbys=table.standbys,
        image=image.fingerprint if image is not None else "",
        owner=table.owner,
        has_state=behaviour.state == "export",
        router_entry=MappingProxyType(entry),
        restart=RestartPolicy(**supervision.model_dump()),
        scaling=ScalingPolicy(**table.scaling.model_dump()),
        conduct=ConductPolicy(**table.conduct.model_dump()),
        hang_s=max(10.0, 2 * behaviour.deadline_ms / 1000),
        nodes=egress_nodes if one.egress.is_granted else None,
        denied_per_violation=one.egress.denied_per_violation if one.egress.is_granted else 0,
    )


def _contents(folder: Path, table: ServiceTable, manifest: Manifest) -> dict[str, bytes]:
    """Return what is in the files of a service, by parameter."""
    contents: dict[str, bytes] = {}
    for name, path in table.files.items():
        declared = manifest.parameters.get(name)
        if declared is None or declared.type != "path":
            known = [one for one, each in manifest.parameters.items() if each.type == "path"]
            raise CloudletConfigError(
                f"files: {name}: no parameter of type path; such parameters: "
                f"{', '.join(known) or 'none'}"
            )
        if name in table.settings:
            raise CloudletConfigError(
                f"files: {name}: stands in settings too; allowed: one of both"
            )
        left = MAX_FILES_BYTES - sum(map(len, contents.values()))
        contents[name] = content_of(f"files: {name} = '{folder / path}'", folder / path, left)
    return contents


def content_of(what: str, path: Path, left: int) -> bytes:
    """Return what is in a file that goes along with a launch.

    Raises:
        CloudletConfigError: no file, not readable, or over the bytes that are left.
    """
    allowed = f"allowed: a file; all of one service together {MAX_FILES_BYTES} bytes"
    try:
        if not path.is_file():  # a pipe would wait for somebody who writes
            path.stat()
            raise CloudletConfigError(f"{what}: not a file; {allowed}")
        with path.open("rb") as stream:
            content = stream.read(left + 1)
    except OSError as error:
        raise CloudletConfigError(f"{what}: {error.strerror}; {allowed}") from None
    if len(content) > left:
        raise CloudletConfigError(f"{what}: over the {left} bytes that are left; {allowed}")
    return content


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
