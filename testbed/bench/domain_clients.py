"""Tenants that reserve places over signed HTTP, and what each of them wrote down.

A client asks one thing after the other, each under an idempotency key, and again under the same
key where it got no answer: at the next controller. What it was told stands in its journal, by which
everything is judged afterwards. HTTP and signatures are written here by hand, since clients share
the machine with what they measure.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api.signatures import ALGORITHM, TAG, VALIDITY_S
from packetcloud.testbed.errors import ChildError

Address = tuple[str, int]
PATH = "/v1/reservations"
TRY_WITHIN_S = 15.0
"""So long a client waits for one answer before it asks elsewhere."""
GIVE_UP_AFTER_S = 60.0
AGAIN_AFTER_S = 0.05
ACCEPTED_STATUS = 202
_AWAY = (OSError, EOFError, TimeoutError)
"""How a controller that was killed or stopped looks to a client."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told about one reservation that it asked for."""

    client: int
    key: str
    begin_ms: int
    """Of the slot."""
    status: int
    body: str
    began_s: float
    ended_s: float
    tries_count: int

    @property
    def reservation(self) -> str | None:
        """The reservation that was made; None: it was refused."""
        if self.status != ACCEPTED_STATUS:
            return None
        operation = json.loads(self.body)
        return str(operation["subject"]) if operation["state"] != "failed" else None

    @property
    def took_s(self) -> float:
        """From the first try to the answer."""
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Trouble:
    """An answer that was none: the controller, or its database, could not."""

    status: int
    body: str
    retry_after: str | None

    @property
    def kind(self) -> str:
        """The last word of the problem's type."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


@dataclass(slots=True)
class Client:
    """One client with its journal. Used on one loop."""

    number: int
    identity: Identity
    controllers: Sequence[Address]
    """Changed by whoever starts another one in the place of one that was killed."""
    journal: list[Told] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    _at: int = 0
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def reserve(self, key: str, begin_ms: int, end_ms: int, cloudlet: str) -> Told:
        """Ask for one place until there is an answer; write it down.

        Raises:
            ChildError: no controller answered for a long time.
        """
        wish = _wish(begin_ms, end_ms, cloudlet)
        began_s, tries_count = time.monotonic(), 0
        while True:
            tries_count += 1
            try:
                async with asyncio.timeout(TRY_WITHIN_S):
                    status, body, retry_after = await self._ask(key, wish)
                if status < 500:
                    break
                self.troubles.append(Trouble(status, body, retry_after))
            except _AWAY:
                self.hang_up()
                self._at += 1
            if time.monotonic() > began_s + GIVE_UP_AFTER_S:
                raise ChildError(f"client {self.number}: no answer in {GIVE_UP_AFTER_S:g} s")
            await asyncio.sleep(AGAIN_AFTER_S)
        ended_s = time.monotonic()
        told = Told(self.number, key, begin_ms, status, body, began_s, ended_s, tries_count)
        self.journal.append(told)
        return told

    async def try_once(self, key: str, begin_ms: int, end_ms: int, cloudlet: str) -> None:
        """Ask once, whatever becomes of it; write nothing down."""
        try:
            async with asyncio.timeout(TRY_WITHIN_S):
                await self._ask(key, _wish(begin_ms, end_ms, cloudlet))
        except _AWAY:
            self.hang_up()
            self._at += 1
            await asyncio.sleep(AGAIN_AFTER_S)

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, key: str, wish: dict[str, Any]) -> tuple[int, str, str | None]:
        address = self.controllers[(self.number + self._at) % len(self.controllers)]
        request = signed(self.identity, address, key, wish)
        if self._streams is None:
            self._streams = await asyncio.open_connection(*address)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.hang_up()
        return int(lines[0].split()[1]), body.decode(), fields.get("retry-after")


def _wish(begin_ms: int, end_ms: int, cloudlet: str) -> dict[str, Any]:
    return {
        "vi_type": "small",
        "count": 1,
        "slot": {"begin_ms": begin_ms, "end_ms": end_ms},
        "constraints": {"cloudlet": cloudlet},
    }


def signed(identity: Identity, address: Address, key: str, wish: dict[str, Any]) -> bytes:
    """Return a request as our own client signs it (RFC 9421), for a fifth of what that costs."""
    authority = f"{address[0]}:{address[1]}"
    body = json.dumps(wish).encode()
    now_s = int(time.time())
    covered = {
        "@method": "POST",
        "@authority": authority,
        "@path": PATH,
        "@query": "?",
        "content-digest": f"sha-256=:{_base64(hashlib.sha256(body).digest())}:",
        "content-type": "application/json",
        "idempotency-key": key,
    }
    parameters = (
        f"({' '.join(map(_quoted, covered))});created={now_s};expires={now_s + VALIDITY_S}"
        f';keyid="{identity.guid.hex}";alg="{ALGORITHM}";nonce="{secrets.token_urlsafe(18)}"'
        f';tag="{TAG}"'
    )
    lines = [f"{_quoted(name)}: {value}" for name, value in covered.items()]
    base = "\n".join([*lines, f'"@signature-params": {parameters}'])
    signature = _private_key(identity.seed).sign(base.encode())
    fields = {name: value for name, value in covered.items() if not name.startswith("@")}
    fields |= {
        "host": authority,
        "content-length": f"{len(body)}",
        "signature-input": f"bench={parameters}",
        "signature": f"bench=:{_base64(signature)}:",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


@cache
def _private_key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _quoted(name: str) -> str:
    return f'"{name}"'
