"""Our daemons as an experiment runs them: the real commands, with config files made for the moment.

Used by the benchmarks (inside namespaces) and by the demonstration (on loopback).
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until

START_TIMEOUT_S = 30.0
_HTTP_TIMEOUT_S = 5.0

Address = tuple[str, int]
Command = Callable[..., list[str]]


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service that a router admits."""

    sid: str
    name: str
    fail_policy: str = "closed"
    settings: Mapping[str, int | float] = field(default_factory=dict)
    """More keys of its [[service]] table."""


@dataclass(frozen=True, slots=True)
class RulesEntry:
    """The rules of a router."""

    folder: Path
    isp_key: str
    """Public key of who signs the ISP's own, hexadecimal."""


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """What goes into a router's config file. Port 0: the system chooses one."""

    listen: Address
    control: Address
    services: Sequence[ServiceEntry] = ()
    settings: Mapping[str, int | float] = field(default_factory=dict)
    """More keys of its [router] table."""
    private_links: Sequence[str] = ("127.0.0.0/8",)
    """Where its services are; a service says the same, a host does not."""
    rules: RulesEntry | None = None
    table: Path | None = None
    """Folder for what a cloudlet's controller lists; None: no controller may."""
    processors: Sequence[int] = ()
    """What it is bound to; none: whatever there is."""


@dataclass(frozen=True, slots=True)
class Router:
    """A running router."""

    child: Child
    place: Namespace | None
    guid: str
    address: Address
    """Where it listens for neighbours."""
    control: Address
    """Where its management API is."""

    def get_json(self, path: str) -> Any:
        """Fetch a document of the management API.

        Raises:
            ChildError: it does not answer, or not with 200.
        """
        return json.loads(self.get(path))

    def get(self, path: str) -> bytes:
        """Fetch a page of the management API, from inside the router's namespace.

        Raises:
            ChildError: it does not answer, or not with 200.
        """
        try:
            if self.place is None:
                status, body = http_get(self.control, path)
            else:
                status, body = self.place.run(http_get, self.control, path)
        except OSError as error:
            raise ChildError(f"{self.child.name}: no answer on {path}: {error}") from error
        if status != 200:
            raise ChildError(f"{self.child.name}: {status} on {path}: {body[:200]!r}")
        return body


def own_processor() -> Sequence[int]:
    """Return the first processor, for a router alone; none where there is only one."""
    own = sorted(os.sched_getaffinity(0))
    return own[:1] if len(own) > 1 else ()


def start_router(
    children: Children,
    plan: RouterPlan,
    place: Namespace | None = None,
    command: Command = packetcloud_command,
    name: str = "router",
) -> Router:
    """Start `packetcloud router run`; return once it listens.

    Raises:
        ChildError: it ended, or did not start in time.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=children.directory))
    key_file = folder / "router.key"
    create_identity_file(key_file)
    config = folder / "router.toml"
    config.write_text(router_config(plan, name, key_file))
    child = children.start(name, command("router", "run", config, "--format", "json"), place)
    if plan.processors:
        os.sched_setaffinity(child.pid, plan.processors)
    facts = child.wait_document(START_TIMEOUT_S)
    control = urlsplit(facts["control"])
    assert control.hostname is not None and control.port is not None
    host, _, port = facts["listen"].rpartition(":")
    return Router(child, place, facts["guid"], (host, int(port)), (control.hostname, control.port))


def router_config(plan: RouterPlan, name: str, key_file: Path) -> str:
    """Return the text of the config file."""
    lines = [
        "[router]",
        f'name = "{name}"',
        f'key_file = "{key_file}"',
        "na = 1",
        f'listen = "{plan.listen[0]}:{plan.listen[1]}"',
        f'control_listen = "{plan.control[0]}:{plan.control[1]}"',
        f"private_links = {json.dumps(list(plan.private_links))}",
        *(f"{key} = {value}" for key, value in plan.settings.items()),
    ]
    for entry in plan.services:
        lines += ["", "[[service]]", f'sid = "{entry.sid}"', f'name = "{entry.name}"']
        lines += [f'fail_policy = "{entry.fail_policy}"']
        lines += [f"{key} = {value}" for key, value in entry.settings.items()]
    if plan.table is not None:
        lines += ["", "[cloudlet]", f'path = "{plan.table}"']
    if plan.rules is not None:
        lines += ["", "[rules]", f'path = "{plan.rules.folder}"']
        lines += [f'isp_keys = ["{plan.rules.isp_key}"]']
    return "\n".join(lines) + "\n"


def start_service(
    children: Children,
    name: str,
    manifest: str,
    router: Address,
    key_file: Path,
    settings: Mapping[str, object],
    place: Namespace | None = None,
    private_links: Sequence[str] = (),
    replicas: int = 1,
) -> Child:
    """Start `packetcloud service run MANIFEST`; it attaches to the router by itself."""
    options: list[object] = ["--router", f"{router[0]}:{router[1]}", "--key", key_file]
    options += ["--replicas", replicas]
    options += ["--state-dir", children.directory / "state"]
    for key, value in settings.items():
        options += ["--set", f"{key}={value}"]
    for network in private_links:
        options += ["--private-link", network]
    command = packetcloud_command("service", "run", manifest, *options)
    return children.start(name, command, place)


def wait_attached(router: Router, service: Child, sid: str, count: int = 1) -> None:
    """Wait until so many VIs of the service are attached to the router.

    Raises:
        ChildError: the service ended, or did not attach in time.
    """

    def is_there(found: Any) -> bool:
        return bool(found["sid"] == sid and len(found["vis"]) >= count)

    _wait_listed(router, service, "/services", is_there)


def wait_host(router: Router, child: Child, guid: str) -> None:
    """Wait until the host with this GUID is attached to the router.

    Raises:
        ChildError: its process ended, or did not attach in time.
    """
    _wait_listed(
        router, child, "/neighbours", lambda found: found["guid"] == guid and found["is_up"]
    )


def http_get(address: Address, path: str) -> tuple[int, bytes]:
    """One GET; status and body."""
    connection = http.client.HTTPConnection(*address, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _wait_listed(router: Router, child: Child, path: str, is_it: Callable[[Any], object]) -> None:
    def is_attached() -> bool:
        if not child.is_running:
            raise ChildError(f"{child.name} ended: {child.last_words()}")
        return any(map(is_it, router.get_json(path)))

    wait_until(is_attached, START_TIMEOUT_S, f"{child.name} attaches to the router")
