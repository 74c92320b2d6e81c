"""A chunk that arrived: its header, its payload where it lies, and the application's answer."""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.hop.api import Body

Answer = Callable[["ReceivedChunk", str | None], None]
"""Called once per chunk: None = taken, a text = refused with these words."""


class ReceivedChunk:
    """One chunk for the application.

    `payload` may be read until `release()`. The chunk counts as taken, and the source is told so,
    when the callback returns or the chunk is released, whichever comes first; `refuse(words)`
    before that says no. After `defer()` nobody is told anything until `accept()` or `refuse()`.
    Holding many chunks unreleased slows the router down: that is the back-pressure.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_header_bytes",
        "_payload",
        "header",
        "is_answered",
        "is_deferred",
        "is_held",
    )

    def __init__(self, header: ChunkHeader, header_bytes: int, body: Body, answer: Answer) -> None:
        self.header = header
        self.is_deferred = False
        self.is_held = False
        """In a stream's hands: not taken yet when the callback returns."""
        self.is_answered = False
        self._header_bytes = header_bytes
        self._body: Body | None = body
        self._payload: memoryview | None = None
        self._answer = answer

    @property
    def payload(self) -> memoryview:
        """The payload; copied together at most once, where the hop received it in pieces."""
        if self._payload is None:
            if self._body is None:
                raise LocalMisuseError("the chunk was released; read its payload before")
            self._payload = self._body.contiguous()[self._header_bytes :]
        return self._payload

    def __len__(self) -> int:
        return self.header.payload_bytes

    def defer(self) -> None:
        """Keep the answer open: `accept()` or `refuse()` comes later, from anywhere."""
        self.is_deferred = True

    def accept(self) -> None:
        """The application has it: the source may be told so."""
        self._answer_once(None)

    def refuse(self, words: str) -> None:
        """The application does not want it; the source gets `words` with `receiver_refused`."""
        self._answer_once(words)

    def release(self) -> None:
        """Give the buffer back; the payload must not be read any more. Harmless when repeated."""
        if not self.is_deferred:
            self._answer_once(None)
        self.drop()

    def drop(self) -> None:
        """Give the buffer back without any answer: a later copy of the chunk is on its own."""
        body, self._body, self._payload = self._body, None, None
        if body is not None:
            body.release()

    def _answer_once(self, words: str | None) -> None:
        if self.is_answered:
            return
        self.is_answered = True
        self._answer(self, words)
