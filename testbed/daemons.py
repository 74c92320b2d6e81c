"""Our daemons as an experiment runs them: the real commands, with config files made for the moment.

Used by the benchmarks (inside namespaces) and by the demonstration (on loopback).
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """What goes into a router's config file."""

    listen: Address
    control: Address
    services: Sequence[ServiceEntry] = ()
    settings: Mapping[str, int | float] = field(default_factory=dict)
    """More keys of its [router] table."""


@dataclass(frozen=True, slots=True)
class Router:
    """A running router."""

    child: Child
    place: Namespace | None
    guid: str
    plan: RouterPlan

    @property
    def address(self) -> Address:
        return self.plan.listen

    def get_json(self, path: str) -> Any:
        """Fetch a document of the management API."""
        return json.loads(self.get(path))

    def get(self, path: str) -> bytes:
        """Fetch a page of the management API, from inside the router's namespace.

        Raises:
            ChildError: it does not answer, or not with 200.
        """
        function = http_get if self.place is None else self._get_inside
        try:
            status, body = function(self.plan.control, path)
        except OSError as error:
            raise ChildError(f"router: no answer on {path}: {error}") from error
        if status != 200:
            raise ChildError(f"router: {status} on {path}: {body[:200]!r}")
        return body

    def _get_inside(self, address: Address, path: str) -> tuple[int, bytes]:
        assert self.place is not None
        return self.place.run(http_get, address, path)


def start_router(
    children: Children,
    plan: RouterPlan,
    place: Namespace | None = None,
    command: Command = packetcloud_command,
    name: str = "router",
) -> Router:
    """Start `packetcloud router run`; return once it answers on its management API.

    Raises:
        ChildError: it ended, or did not answer in time.
    """
    folder = children.directory / f"{name}-{plan.listen[1]}"
    folder.mkdir()
    key_file = folder / "router.key"
    guid = create_identity_file(key_file).guid.hex
    config = folder / "router.toml"
    config.write_text(router_config(plan, name, key_file))
    child = children.start(name, command("router", "run", config), place)
    router = Router(child, place, guid, plan)
    _wait_answer(router)
    return router


def router_config(plan: RouterPlan, name: str, key_file: Path) -> str:
    """Return the text of the config file."""
    lines = [
        "[router]",
        f'name = "{name}"',
        f'key_file = "{key_file}"',
        "na = 1",
        f'listen = "{plan.listen[0]}:{plan.listen[1]}"',
        f'control_listen = "{plan.control[0]}:{plan.control[1]}"',
        *(f"{key} = {value}" for key, value in plan.settings.items()),
    ]
    for entry in plan.services:
        lines += ["", "[[service]]", f'sid = "{entry.sid}"', f'name = "{entry.name}"']
        lines += [f'fail_policy = "{entry.fail_policy}"']
    return "\n".join(lines) + "\n"


def start_service(
    children: Children,
    name: str,
    manifest: str,
    router: Address,
    key_file: Path,
    settings: Mapping[str, object],
    place: Namespace | None = None,
) -> Child:
    """Start `packetcloud service run MANIFEST`; it attaches to the router by itself."""
    options: list[object] = ["--router", f"{router[0]}:{router[1]}", "--key", key_file]
    options += ["--state-dir", children.directory / "state"]
    for key, value in settings.items():
        options += ["--set", f"{key}={value}"]
    command = packetcloud_command("service", "run", manifest, *options)
    return children.start(name, command, place)


def wait_attached(router: Router, service: Child, sid: str) -> None:
    """Wait until a VI of the service is attached to the router.

    Raises:
        ChildError: the service ended, or did not attach in time.
    """

    def is_attached() -> bool:
        if not service.is_running:
            raise ChildError(f"{service.name} ended: {service.last_words()}")
        services = router.get_json("/services")
        return any(found["vis"] for found in services if found["sid"] == sid)

    wait_until(is_attached, START_TIMEOUT_S, f"{service.name} attaches to the router")


def http_get(address: Address, path: str) -> tuple[int, bytes]:
    """One GET; status and body."""
    connection = http.client.HTTPConnection(*address, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _wait_answer(router: Router) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if not router.child.is_running:
            router.child.wait_event("ready", 1.0)  # raises with its last words
        try:
            router.get("/healthz")
            return
        except ChildError:
            if time.monotonic() > deadline:
                words = router.child.last_words()
                raise ChildError(f"router: no answer on its API: {words}") from None
        time.sleep(0.05)
