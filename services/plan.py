"""From a manifest and an operator's wishes to what is launched: checked once, before any process.

`service run` and, later, the cloudlet controller plan a launch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import DEFAULT_MAX_PAYLOAD_BYTES
from packetcloud.chunk.hop.lane_place import lane_folder
from packetcloud.chunk.hop.suites import parse_networks
from packetcloud.chunk.identity import load_identity_file
from packetcloud.chunk.names import GUID, SID
from packetcloud.services.addresses import parse_address
from packetcloud.services.catalogue import FoundService
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.launch import LOOPBACK, ExecutionMode, LaunchSpec
from packetcloud.services.supervisor import RestartPolicy


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What `service run` runs."""

    spec: LaunchSpec
    policy: RestartPolicy
    sid: SID
    manifest_path: Path

    def facts(self) -> dict[str, Any]:
        """Return what a status file says about the service and never changes."""
        return {
            "service": self.spec.name,
            "version": self.spec.version,
            "sid": self.sid.hex,
            "router": f"{self.spec.router_host}:{self.spec.router_port}",
            "manifest": str(self.manifest_path),
            "parameters": dict(self.spec.parameters),
        }


def plan_launch(
    found: FoundService,
    settings: Mapping[str, str],
    *,
    router: str,
    key_file: Path,
    router_guid: str | None = None,
    state_file: Path | None = None,
    execution: str | None = None,
    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES,
    private_links: tuple[str, ...] = (),
    log_level: str = "INFO",
) -> LaunchPlan:
    """Check everything that can be checked without running the service.

    Raises:
        ServiceConfigError: router address, parameters, or a SID that the key does not own.
        IdentityError: the key file cannot be used.
    """
    manifest = found.manifest
    host, port = parse_address(router, "router")
    sid = load_identity_file(key_file).sid
    wanted = manifest.demultiplexing.sid
    if wanted is not None and wanted != sid.hex:
        raise ServiceConfigError(
            f"{found.path}: [demultiplexing] sid is {wanted}, but {key_file} owns {sid.hex}"
        )
    if state_file is not None and manifest.behaviour.state != "export":
        raise ServiceConfigError(
            f"--state: service {manifest.service.name} keeps no state; its manifest would say "
            '[behaviour] state = "export"'
        )
    behaviour = manifest.behaviour
    lanes = lane_folder() if _is_here(host) else None
    spec = LaunchSpec(
        name=manifest.service.name,
        version=manifest.service.version,
        entry_point=manifest.service.entry_point,
        key_file=str(key_file.absolute()),
        router_host=host,
        router_port=port,
        router_guid=None if router_guid is None else _checked_guid(router_guid),
        search_path=found.search_path,
        parameters=dict(manifest.resolve(settings)),
        limits=manifest.resources.limits(),
        deadline_ms=behaviour.deadline_ms,
        max_payload_bytes=max_payload_bytes,
        max_expansion_ratio=behaviour.max_expansion_ratio,
        execution=ExecutionMode(execution) if execution else behaviour.execution,
        concurrency=behaviour.concurrency,
        private_links=(*LOOPBACK, *_checked_networks(private_links)),
        lanes=None if lanes is None else str(lanes),
        state_file=None if state_file is None else str(state_file.absolute()),
        log_level=log_level,
    )
    policy = RestartPolicy(**manifest.supervision.model_dump(), deadline_ms=behaviour.deadline_ms)
    return LaunchPlan(spec, policy, sid, found.path)


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine, by its own address or name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_networks(texts)
    except ValueError as error:
        raise ServiceConfigError(
            f"--private-link: {error}; expected a network, for example 192.0.2.0/24"
        ) from error
    return texts


def _checked_guid(text: str) -> str:
    try:
        return GUID.from_hex(text).hex
    except ProtocolError as error:
        raise ServiceConfigError(f"--router-guid {text}: {error}") from error
