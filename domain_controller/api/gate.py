"""What every request passes before the app: signature, role, body, nonce. Default deny.

A stranger's body is not read: the head is checked first, with the digest of the body in it, then
the role, then the body as far as the endpoint takes one.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass
from typing import Protocol

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.domain_controller.api.access import ACCESS, OPEN, Access
from packetcloud.domain_controller.api.nonces import RecentNonces
from packetcloud.domain_controller.api.problems import ProblemError, answer, busy
from packetcloud.domain_controller.api.signatures import (
    CheckedHead,
    HeaderLines,
    Proof,
    Refusal,
    RequestHead,
    SignatureRefusedError,
    check_body,
    check_head,
)
from packetcloud.domain_controller.channel.frames import CHANNEL_PATH
from packetcloud.domain_controller.core.principals import Principal, Role
from packetcloud.domain_controller.state.errors import ReplayedError, StateError

BODY_WITHIN_S = 30.0
"""So long a client may take for its body: a mebibyte at 35 kB/s."""
CALLER_KEY = "packetcloud.caller"
"""Where the caller stands in a request's scope."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key it is."""

    principal: Principal
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with the proof of it."""

    principal: Principal
    proof: Proof
    request_digest: bytes
    """SHA-256 of method, path, query and body: what an idempotency key belongs to."""

    @property
    def name(self) -> str:
        return self.principal.name

    @property
    def owner(self) -> str | None:
        """Whose rows this caller may see; None: everybody's."""
        return None if self.principal.role in (Role.ISP, Role.AUDITOR) else self.principal.name


class Signers(Protocol):
    """Who knows the keys."""

    def signer(self, key_id: str, now_ms: int) -> Signer | None:
        """Return whose key it is; None: nobody's, or it does not count now.

        Called in a worker thread.
        """

    def known_signer(self, key_id: str, now_ms: int) -> Signer | None:
        """Return the same without waiting for anything; None: ask `signer`."""


class _NotKnownError(PacketCloudError):
    """Whose key it is has to be asked in a worker thread."""


OpenChannel = Callable[[Scope, Receive, Send, Signer, Proof], Awaitable[None]]


class Gate:
    """The app behind the checks.

    Args:
        authorities: see `check_head`.
        clock_ms: milliseconds since 1970.
        most: requests at the same time, those that wait and stream included.
        channel: serves a channel that a cloudlet opened; may raise a `ProblemError` or a
            `StateError` before it has sent anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most: int,
        signers: Signers,
        authorities: Container[str],
        clock_ms: Callable[[], int],
        channel: OpenChannel | None = None,
    ) -> None:
        self.refused: Counter[str] = Counter()
        """Requests that did not get in, by reason."""
        self.nonces = RecentNonces()
        self.most = most
        self.open_count = 0
        self._app = app
        self._signers = signers
        self._authorities = authorities
        self._clock_ms = clock_ms
        self._channel = channel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._open_channel(scope, receive, send)
            return
        if (scope["method"], scope["path"]) in OPEN:
            await self._app(scope, receive, send)
            return
        if self.open_count >= self.most:
            self.refused["busy"] += 1
            problem = busy(f"{self.most} requests are being answered, as many as may")
            await answer(problem)(scope, receive, send)
            return
        self.open_count += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self.open_count -= 1

    async def _open_channel(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a cloudlet open its channel. How many may is for the channel to say."""
        await receive()  # that somebody connects
        try:
            if self._channel is None or scope["path"] != CHANNEL_PATH:
                self.refused["endpoint"] += 1
                raise ProblemError(404, "not-found", "there is no such channel")
            checked, signer = await self._checked(_head_of(scope, "GET"))
            if signer.principal.role is not Role.CLOUDLET:
                self.refused["role"] += 1
                role = signer.principal.role.value
                raise ProblemError(403, "forbidden", f"a channel is not for the role {role}")
            proof = check_body(checked, b"")
            await self._channel(scope, receive, send, signer, proof)
        except ProblemError as problem:
            await _deny(scope, send, problem)
        except SignatureRefusedError as error:
            await _deny(scope, send, self._unsigned(error))
        except ReplayedError as error:
            refused = SignatureRefusedError(Refusal.REPLAYED, str(error))
            await _deny(scope, send, self._unsigned(refused))
        except StateError as error:
            await _deny(scope, send, busy(str(error)))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller, body = await self._let_in(scope, receive)
        except ProblemError as problem:
            await answer(problem)(scope, receive, send)
            return
        scope.setdefault("state", {})[CALLER_KEY] = caller
        await self._app(scope, _replayed(body, receive), send)

    async def _let_in(self, scope: Scope, receive: Receive) -> tuple[Caller, bytes]:
        head = _head_of(scope)
        checked, signer = await self._checked(head)
        access = self._access(scope)
        role = signer.principal.role
        if role not in access.roles:
            self.refused["role"] += 1
            allowed = ", ".join(sorted(one.value for one in access.roles))
            owner = f"{signer.principal.name!r}, role {role.value}"
            raise ProblemError(
                403, "forbidden", f"this is not for the key of {owner}; allowed roles: {allowed}"
            )
        if access.is_new and not signer.principal.is_open:
            self.refused["suspended"] += 1
            raise ProblemError(
                403, "suspended", "you may ask for nothing new; talk to the operator of the domain"
            )
        body = await _read_body(scope, receive, access.max_body_bytes)
        try:
            proof = check_body(checked, body)
        except SignatureRefusedError as error:
            raise self._unsigned(error) from None
        if not access.changes:
            self._take_nonce(proof, signer.principal.name)
        what = f"{head.method} {scope['path']}?".encode() + scope["query_string"] + b"\n"
        digest = hashlib.sha256(what + body).digest()
        return Caller(signer.principal, proof, digest), body

    async def _checked(self, head: RequestHead) -> tuple[CheckedHead, Signer]:
        now_ms = self._clock_ms()
        found: list[Signer] = []

        def known_key_of(key_id: str) -> bytes:
            signer = self._signers.known_signer(key_id, now_ms)
            if signer is None:
                raise _NotKnownError
            found.append(signer)
            return signer.public_key

        def key_of(key_id: str) -> bytes | None:
            signer = self._signers.signer(key_id, now_ms)
            if signer is None:
                return None
            found.append(signer)
            return signer.public_key

        now_s = now_ms / 1000
        try:
            try:
                # Where nothing is to be waited for, a thread would cost more than the check.
                checked = check_head(head, known_key_of, self._authorities, now_s)
            except _NotKnownError:
                checked = await asyncio.to_thread(
                    check_head, head, key_of, self._authorities, now_s
                )
        except SignatureRefusedError as error:
            raise self._unsigned(error) from None
        except StateError as error:
            raise busy(str(error)) from None
        return checked, found[0]

    def _access(self, scope: Scope) -> Access:
        """Raises: ProblemError: there is no such endpoint, or not by this method."""
        methods: set[str] = set()
        for pattern, by_method in _ENDPOINTS:
            if pattern.fullmatch(scope["path"]):
                access = by_method.get(scope["method"])
                if access is not None:
                    return access
                methods |= by_method.keys()
        methods |= {method for method, path in OPEN if path == scope["path"]}
        self.refused["endpoint"] += 1
        if methods:
            allowed = ", ".join(sorted(methods))
            raise ProblemError(
                405,
                "method-not-allowed",
                f"{scope['method']} is not possible here; allowed: {allowed}",
                headers={"Allow": allowed},
            )
        raise ProblemError(404, "not-found", "there is no such endpoint; see the API's description")

    def _take_nonce(self, proof: Proof, caller: str) -> None:
        if not self.nonces.has_room(self._clock_ms(), caller):
            self.refused["nonces"] += 1
            raise busy("too many requests within their validity; ask again later")
        if not self.nonces.take(proof.key_id, proof.nonce, proof.expires_ms, caller):
            raise self._unsigned(
                SignatureRefusedError(
                    Refusal.REPLAYED, "this request was here before; sign it anew to ask again"
                )
            )

    def _unsigned(self, error: SignatureRefusedError) -> ProblemError:
        self.refused[error.refusal.value] += 1
        return unsigned(error)


def unsigned(error: SignatureRefusedError) -> ProblemError:
    """Return the problem of a request that is not signed as it must be."""
    kind = f"signature-{error.refusal.value}"
    return ProblemError(401, kind, str(error), headers={"WWW-Authenticate": "Signature"})


def caller_of(scope: Scope) -> Caller:
    """Return who asks, in a request that the gate let in."""
    caller = scope["state"][CALLER_KEY]
    assert isinstance(caller, Caller), "the gate put it there"
    return caller


def _endpoints() -> Iterator[tuple[re.Pattern[str], dict[str, Access]]]:
    paths: dict[str, dict[str, Access]] = {}
    for (method, path), access in ACCESS.items():
        paths.setdefault(path, {})[method] = access
    for path, by_method in paths.items():
        yield compile_path(path)[0], by_method


_ENDPOINTS = tuple(_endpoints())
"""What a path is, before the app is asked."""
_HTTP = {"ws": "http", "wss": "https"}
"""A WebSocket is opened by a request of HTTP, and signed as one."""


async def _deny(scope: Scope, send: Send, problem: ProblemError) -> None:
    """Refuse a WebSocket with a problem, as any request."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:100]})
        return
    response = answer(problem)
    headers = response.raw_headers
    start = {"type": "websocket.http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": response.body})


def _head_of(scope: Scope, method: str | None = None) -> RequestHead:
    lines = tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )
    headers = HeaderLines(lines)
    hosts = headers.all("host")
    if len(hosts) != 1:
        raise ProblemError(400, "invalid", "the request needs one Host header")
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    target = path + (b"?" + query if query else b"")
    scheme = _HTTP.get(scope["scheme"], scope["scheme"])
    url = f"{scheme}://{hosts[0]}{target.decode('latin-1')}"
    return RequestHead(method or scope["method"], url, headers)


async def _read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(400, "invalid", "the request ended within its body")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise ProblemError(
                        413,
                        "too-large",
                        f"the body is larger than {most} bytes, which is all that may come here",
                        headers={"Connection": "close"},
                    )
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ProblemError(
            408,
            "too-slow",
            f"the body did not come within {BODY_WITHIN_S:g} s",
            headers={"Connection": "close"},
        ) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, then what comes after it."""
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return rest.pop() if rest else await receive()

    return replay
