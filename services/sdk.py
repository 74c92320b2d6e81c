"""What the author of a service uses: `NetworkService`, `ServiceChunk`, `Verdict`, the contexts.

    class Upper(NetworkService):
        def process(self, chunk, context):
            return Verdict.update(bytes(chunk.payload).upper())

A service never sees a socket, a router or a task id. It cannot name the source of a chunk that it
sends: an update carries a payload only, and the router stamps the source of what it emits.

Source: docs/how-to/write-a-service.md; design, section 7.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from packetcloud.chunk.header import ChunkHeader, PayloadType
from packetcloud.chunk.messages import MAX_DETAIL_BYTES, VerdictCode
from packetcloud.chunk.names import GUID, NA, NA_UNBOUND, SID
from packetcloud.services.buffers import BufferPool
from packetcloud.services.errors import ServiceMisuseError
from packetcloud.services.parameters import Parameters

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ServiceChunk:
    """A chunk as a service sees it.

    `payload` is read-only and lies in a buffer of the hop: it is valid until `process` returns (for
    a coroutine: until it ends), or until the verdict is settled when the verdict carries it.
    """

    header: ChunkHeader
    payload: memoryview


@dataclass(frozen=True, slots=True)
class EmittedChunk:
    """A chunk that a service sends of its own accord. Its source is the router's to stamp."""

    destination: GUID
    payload: Buffer
    destination_na: NA = NA_UNBOUND
    services: tuple[SID, ...] = ()
    """Services that the chunk is to visit on its way."""
    payload_type: int = PayloadType.DATA
    lifetime_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a chunk. Make one with the class methods."""

    code: VerdictCode
    payload: Buffer = b""
    detail: bytes = b""
    emitted: tuple[EmittedChunk, ...] = ()
    keep: bool = False
    payload_type: int | None = None
    updates: bool = False
    """EMIT: `payload` is the new one of the chunk that is kept."""
    again: bool = False
    """DROP, or EMIT instead: the source may send the chunk again."""

    @classmethod
    def forward(cls) -> Verdict:
        """Send the chunk on as it is; no payload travels back to the router."""
        return _FORWARD

    @classmethod
    def update(
        cls,
        payload: Buffer,
        payload_type: int | None = None,
        *,
        emitted: Iterable[EmittedChunk] = (),
    ) -> Self:
        """Send the chunk on with another payload and, unless None, as another payload type; send
        other chunks as well, if any are given and there is room for them.

        `payload` must not change until the verdict is settled: give `bytes`, a buffer from
        `context.output_buffer`, or a part of `chunk.payload`; never a buffer used again by hand.
        """
        chunks = tuple(emitted)
        if not chunks:
            return cls(VerdictCode.UPDATE, payload, payload_type=payload_type)
        return cls(
            VerdictCode.EMIT,
            payload,
            emitted=chunks,
            keep=True,
            payload_type=payload_type,
            updates=True,
        )

    @classmethod
    def drop(
        cls, reason: str, *, again: bool = False, emitted: Iterable[EmittedChunk] = ()
    ) -> Self:
        """Discard the chunk; nothing further runs. The source is told `reason` when it asked.

        At most 512 bytes of UTF-8 of the reason travel; the rest is cut.

        Args:
            again: the service could do nothing with this copy, and may with the next: the host
                that sent it sends it again by itself while the chunk lives (`send_again`).
            emitted: chunks to send besides, if there is room for them; only with `again`.
        """
        chunks = tuple(emitted)
        if chunks and not again:
            raise ServiceMisuseError("drop sends other chunks only with again=True; see emit")
        code = VerdictCode.EMIT if chunks else VerdictCode.DROP
        return cls(code, detail=cut_text(reason), emitted=chunks, again=again)

    @classmethod
    def redirect(cls, guid: GUID, na: NA = NA_UNBOUND) -> Self:
        """Send the chunk to another destination; unbound NA: the router resolves the GUID."""
        return cls(VerdictCode.REDIRECT, detail=guid.value + na.to_bytes())

    @classmethod
    def emit(cls, chunks: Iterable[EmittedChunk], *, keep: bool = False) -> Self:
        """Send `chunks` instead of this one or, with `keep`, as well as this one: all or none.

        Where a router has no room for them, this one goes on alone with `keep`; else its VI has
        failed, and another one is asked.
        """
        return cls(VerdictCode.EMIT, emitted=tuple(chunks), keep=keep)


_FORWARD = Verdict(VerdictCode.FORWARD)


class ServiceContext:
    """What a service may know about where it runs; given to `start`."""

    __slots__ = ("listen", "log", "parameters", "sid")

    def __init__(
        self,
        sid: SID,
        parameters: Parameters,
        log: logging.Logger,
        listen: tuple[int, ...] = (),
    ) -> None:
        self.sid = sid
        """The SID under which the service is attached."""
        self.parameters = parameters
        """The manifest's parameters with the operator's values."""
        self.log = log
        self.listen = listen
        """TCP ports at which others reach it, on any of its addresses; none: nobody does."""


class ChunkContext(ServiceContext):
    """The context of one chunk; given to `process` together with it."""

    __slots__ = ("_lent", "_pool", "_views", "chunk_parameters")

    def __init__(self, service: ServiceContext, pool: BufferPool, chunk_parameters: bytes) -> None:
        super().__init__(service.sid, service.parameters, service.log, service.listen)
        self.chunk_parameters = chunk_parameters
        """What the source wrote into this chunk for this service; empty if nothing."""
        self._pool = pool
        self._lent: list[bytearray] = []
        self._views: list[memoryview] = []

    def output_buffer(self, count: int) -> memoryview:
        """Lend a writable buffer of `count` bytes, with old content in it, for this chunk only.

        It is taken back when the verdict that carries it (or a part of it) is settled, or when
        `process` ends without it; afterwards it must not be used.

        Raises:
            ServiceMisuseError: more than one verdict can carry.
        """
        buffer = self._pool.take(count)
        view = memoryview(buffer)[:count]
        self._lent.append(buffer)
        self._views.append(view)
        return view

    def owns(self, payload: Buffer) -> bool:
        """Tell whether `payload` lies in a buffer that this context lent."""
        if not isinstance(payload, memoryview):
            return False
        return any(payload.obj is buffer for buffer in self._lent)

    def close(self) -> None:
        """Give every lent buffer back and make the views unusable; the runtime calls this."""
        for view in self._views:
            # BufferError: the service wrapped the view (numpy) and still holds it.
            with suppress(BufferError):
                view.release()
        for buffer in self._lent:
            self._pool.give_back(buffer)
        self._views.clear()
        self._lent.clear()


class NetworkService(ABC):
    """The base of every service. One object serves one chunk after the other, on one thread.

    With `async def process` several chunks may be in progress at once, on one event loop.
    """

    def start(self, context: ServiceContext) -> None:
        """Called once, before the first chunk.

        Raises:
            ServiceConfigError: the service cannot run as configured; it is not started again.
        """
        return

    @abstractmethod
    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict | Awaitable[Verdict]:
        """Decide what becomes of `chunk`.

        An exception counts as no verdict: the router gives the chunk to another VI, or follows
        the service's fail policy.
        """

    def stop(self) -> None:
        """Called once, after the last chunk, on an orderly end."""
        return

    def export_state(self) -> bytes:
        """Return what a successor needs; called between two chunks. See `import_state`."""
        return b""

    def import_state(self, state: bytes) -> None:
        """Take over what `export_state` of a predecessor returned; called after `start`."""
        return


def cut_text(text: str, limit: int = MAX_DETAIL_BYTES) -> bytes:
    """Return `text` as at most `limit` bytes of UTF-8, cut between two characters."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode()
