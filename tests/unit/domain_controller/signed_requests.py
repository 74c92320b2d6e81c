"""Signed requests to try the checks on: one that is right, and ways to spoil it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import httpx

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api.signatures import (
    HeaderLines,
    Proof,
    RequestHead,
    check_body,
    check_head,
    sign_request,
)

NOW_S = 1_800_000_000.0
AUTHORITY = "127.0.0.1:4800"
URL = f"http://{AUTHORITY}/v1/reservations?limit=3"
BODY = b'{"count": 1}'
NONCE = "0123456789abcdefghij"
OURS = Identity(bytes(range(32)))
THEIRS = Identity(bytes(range(1, 33)))


@dataclasses.dataclass(frozen=True)
class Sent:
    """A request as it arrives."""

    head: RequestHead
    body: bytes

    def with_headers(self, changed: Mapping[str, str | None]) -> Sent:
        """Return it with other headers; None: without."""
        kept = [(name, value) for name, value in self.head.headers.lines if name not in changed]
        added = [(name, value) for name, value in changed.items() if value is not None]
        headers = HeaderLines((*kept, *added))
        return Sent(dataclasses.replace(self.head, headers=headers), self.body)

    def header(self, name: str) -> str:
        """Return the value of its only line."""
        (value,) = self.head.headers.all(name)
        return value

    def check(self, now_s: float = NOW_S, keys: tuple[Identity, ...] = (OURS,)) -> Proof:
        """Check head and body as a controller does that knows these keys."""
        known = {key.guid.hex: key.public_key for key in keys}
        return check_body(check_head(self.head, known.get, {AUTHORITY}, now_s), self.body)


def sent(
    method: str = "POST",
    url: str = URL,
    body: bytes = BODY,
    headers: Mapping[str, str] = {"Idempotency-Key": "key-of-a-test"},
    *,
    key: Identity = OURS,
    now_s: float = NOW_S,
    nonce: str = NONCE,
) -> Sent:
    """Return a request that is signed as it must be."""
    if body:
        headers = {"Content-Type": "application/json", **headers}
    request = httpx.Request(method, url, content=body, headers=headers)
    sign_request(request, body, key, nonce, now_s)
    return arrived(request)


def arrived(request: httpx.Request) -> Sent:
    """Return a request of httpx as it arrives."""
    lines = tuple((name.lower(), value) for name, value in request.headers.multi_items())
    return Sent(RequestHead(request.method, str(request.url), HeaderLines(lines)), request.content)
