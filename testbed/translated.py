"""A host that reaches the IP network: router, translator and proxy as child processes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.daemons import (
    Address,
    Router,
    RouterPlan,
    ServiceEntry,
    start_router,
    start_service,
    wait_attached,
)
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import free_port
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until

LOCALHOST = "127.0.0.1"
START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class TranslatedPlan:
    """Where things are. Everything in one place by default."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """Parameters of the translator."""
    router: Address = (LOCALHOST, 0)
    proxy: Address = (LOCALHOST, 0)
    router_place: Namespace | None = None
    router_seen: str = LOCALHOST
    """The router's address as the host sees it."""
    host_place: Namespace | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """The running processes."""

    children: Children
    plan: TranslatedPlan
    folder: Path
    router: Router
    sid: str
    host_guid: str
    translator: Child
    proxy: Child | None
    proxy_address: Address

    def start_translator(self, settings: Mapping[str, object]) -> Child:
        """Start another translator with the same key, and wait until it is attached."""
        child = _start_translator(self.children, self.folder, self.router, self.plan, settings)
        wait_attached(self.router, child, self.sid)
        return child

    def start_expose(self, port: int, target: Address, key: str = "host.key") -> Child:
        """Start `packetcloud host expose`."""
        command = [*self._host_words("expose", key), "--port", port, "--to", _text(target)]
        return self.children.start(
            f"expose-{port}", packetcloud_command(*command), self.plan.host_place
        )

    def start_proxy(self, listen: Address, key: str = "host.key") -> Child:
        """Start `packetcloud host proxy`."""
        command = [*self._host_words("proxy", key), "--listen", _text(listen)]
        return self.children.start("proxy", packetcloud_command(*command), self.plan.host_place)

    def _host_words(self, verb: str, key: str) -> list[object]:
        where = _text((self.plan.router_seen, self.router.address[1]))
        words: list[object] = ["host", verb, "--router", where, "--key", self.folder / key]
        return [*words, "--translator", self.sid]


def start_translated(
    children: Children, folder: Path, plan: TranslatedPlan, *, with_proxy: bool = True
) -> Translated:
    """Start a router, a translator and a proxy; return once the proxy listens.

    Raises:
        ChildError: one of them ended, or did not start in time.
    """
    sid = create_identity_file(folder / "translator.key").guid.hex
    guid = create_identity_file(folder / "host.key").guid.hex
    router_plan = RouterPlan(
        plan.router,
        (LOCALHOST, 0),
        [ServiceEntry(sid, "translator")],
    )
    router = start_router(children, router_plan, plan.router_place)
    translator = _start_translator(children, folder, router, plan, plan.settings)
    wait_attached(router, translator, sid)
    address = (plan.proxy[0], plan.proxy[1] or free_port())
    there = Translated(children, plan, folder, router, sid, guid, translator, None, address)
    if not with_proxy:
        return there
    proxy = there.start_proxy(address)
    wait_for_port(address, plan.host_place)
    return Translated(children, plan, folder, router, sid, guid, translator, proxy, address)


def wait_for_port(address: Address, place: Namespace | None = None) -> None:
    """Wait until somebody listens there."""

    def is_there() -> bool:
        return _answers(address) if place is None else place.run(_answers, address)

    wait_until(is_there, START_TIMEOUT_S, f"{_text(address)} listens")


def _answers(address: Address) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def _start_translator(
    children: Children,
    folder: Path,
    router: Router,
    plan: TranslatedPlan,
    settings: Mapping[str, object],
) -> Child:
    # In the router's own place: nobody else reads what passes between them.
    return start_service(
        children,
        "translator",
        "translator",
        (LOCALHOST, router.address[1]),
        folder / "translator.key",
        settings,
        plan.router_place,
        ("127.0.0.0/8",),
    )


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
