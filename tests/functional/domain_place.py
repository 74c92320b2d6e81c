"""A domain controller's API in one process: callers of every role, over httpx, no socket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api.app import DomainApp, make_app
from packetcloud.domain_controller.api.signatures import sign_request
from packetcloud.domain_controller.core.principals import Role
from tests.functional.domain_memory import MemoryState

AUTHORITY = "127.0.0.1:4800"
DOMAIN = "example"
START_MS = 1_800_000_000_000
CALLERS = {
    "noc": Role.ISP,
    "acme": Role.TENANT,
    "bolt": Role.TENANT,
    "auditors": Role.AUDITOR,
    "edge-1": Role.CLOUDLET,
}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


class Place:
    """One domain with a caller of each role, and two tenants."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.state = MemoryState(self.clock)
        self.keys = {name: Identity(bytes([number]) * 32) for number, name in enumerate(CALLERS, 1)}
        for name, role in CALLERS.items():
            self.state.enroll(name, role, self.keys[name])
        self.made: DomainApp = make_app(
            self.state,
            domain=DOMAIN,
            version="0",
            authorities={AUTHORITY},
            clock_ms=self.clock,
            max_requests=64,
            max_streams=4,
        )
        self._nonces = itertools.count()
        self._transport = httpx.ASGITransport(self.made.gate, raise_app_exceptions=False)

    def nonce(self) -> str:
        return f"nonce-of-a-test-{next(self._nonces):08}"

    def request(
        self,
        who: str | None,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        """Return a request of somebody's, signed; None: of nobody."""
        content = {} if body is None else {"json": body}
        request = httpx.Request(method, f"http://{AUTHORITY}{path}", headers=headers, **content)
        if who is not None:
            now_s = self.clock.now_ms / 1000
            sign_request(request, request.read(), self.keys[who], self.nonce(), now_s)
        return request

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Give a request to the API."""
        async with httpx.AsyncClient(transport=self._transport) as client:
            return await client.send(request)

    async def ask(
        self,
        who: str | None,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Ask something."""
        headers = None if key is None else {"Idempotency-Key": key}
        return await self.send(self.request(who, method, path, body, headers))


WISH = {
    "vi_type": "small",
    "count": 2,
    "slot": {"begin_ms": START_MS + 3_600_000, "end_ms": START_MS + 7_200_000},
}


def places() -> Iterator[Place]:
    """For a fixture."""
    yield Place()
