"""The door: whether a chunk may come in, asked for each that comes and by `explain` for one asked.

A chunk is refused here wherever that can be known before taking it: the neighbour still has it
then, and no report is needed. Nothing but the counts here and the neighbour's flow cache changes.
Source: design, section 6, steps 1 to 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from packetcloud.chunk.header import (
    CHUNK_VERSION,
    FIXED_BYTES,
    HOP_LIMIT_OFFSET,
    MAX_HEADER_BYTES,
)
from packetcloud.chunk.hop.api import FoundT, Refusal, Role
from packetcloud.chunk.reasons import Reason
from packetcloud.router import planner
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.errors import ChunkRefusedError
from packetcloud.router.flow import Flow
from packetcloud.router.settings import FailPolicy, RouterSettings
from packetcloud.router.waiting import WaitingRoom

_HEAD_BYTES = 256
"""Copied from every chunk; the rare longer header is copied once more, whole."""
_REFUSALS = {reason: Refusal(int(reason)) for reason in Reason}


class Ingress(planner.Ingress, Protocol):
    """The neighbour that a chunk came from, and the flows that are known of it."""

    flow_misses: int

    @property
    def flows(self) -> Mapping[bytes, Flow]: ...

    def remember(self, key: bytes, flow: Flow) -> None: ...


class ComingBody(Protocol):
    """As much of `hop.api.Body` as is read before a chunk is taken."""

    def __len__(self) -> int: ...

    def head(self, count: int) -> bytes: ...

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT: ...


class Door:
    """The door of one router.

    Args:
        refused_by_disk: counts chunks that the disk of a durable router had no room for.
    """

    def __init__(
        self,
        settings: RouterSettings,
        flow_planner: planner.FlowPlanner,
        book: CustodyBook,
        waiting: WaitingRoom,
        refused_by_disk: Counter[str],
    ) -> None:
        self.refusals: Counter[Reason] = Counter()
        """Chunks that were not taken, by reason: outside the conservation sum."""
        self.flow_misses_count = 0
        self.is_closed = False
        """The router takes no more chunks."""
        self._settings = settings
        self._planner = flow_planner
        self._book = book
        self._waiting = waiting
        self._refused_by_disk = refused_by_disk

    def configure(self, settings: RouterSettings) -> None:
        """Take new settings; flows made before are the caller's to forget."""
        self._settings = settings

    def for_questions(self) -> Door:
        """Return one that answers as this one does now, and leaves no trace in the router."""
        twin = Door(
            self._settings, self._planner.for_questions(), self._book, self._waiting, Counter()
        )
        twin.is_closed = self.is_closed
        return twin

    def refuse(self, reason: Reason) -> Refusal:
        """Count a refusal, and return it as the hop has it."""
        self.refusals[reason] += 1
        return _REFUSALS[reason]

    def enter(
        self, ingress: Ingress, body: ComingBody, now: float
    ) -> tuple[Flow, bytes, int, float]:
        """Return the flow of a chunk, its beginning, its size, and when its time here is over.

        Raises:
            ChunkRefusedError: it may not come in.
        """
        if self.is_closed:
            raise ChunkRefusedError(Reason.SHUTTING_DOWN, "this router takes no more chunks")
        head = body.head(_HEAD_BYTES)
        if head[2:3] > b"\x00":
            head = body.head(MAX_HEADER_BYTES)
        key = head[2:8] + head[20:FIXED_BYTES]
        flow = ingress.flows.get(key)
        hop = flow.next_hop if flow is not None else None
        if (
            flow is None
            or flow.rules_epoch != self._planner.rules_epoch
            or now >= flow.until_s
            or not flow.layout.matches(head)
            or (hop is not None and hop.attachment is None)
        ):
            flow = self._decide(ingress, key, head, now)
            hop = flow.next_hop
        layout = flow.layout
        size_bytes = len(body)
        payload_bytes = int.from_bytes(head[16:20], "big")
        if layout.header_bytes + payload_bytes != size_bytes:
            text = f"{size_bytes} bytes, and {layout.header_bytes + payload_bytes} by its header"
            raise ChunkRefusedError(Reason.MALFORMED, text)
        if head[0] != CHUNK_VERSION:
            raise ChunkRefusedError(Reason.UNSUPPORTED, f"chunk version {head[0]}")
        settings = self._settings
        if payload_bytes > settings.max_payload_bytes and ingress.role is Role.HOST:
            text = f"{payload_bytes} bytes; max_payload_bytes = {settings.max_payload_bytes}"
            raise ChunkRefusedError(Reason.PAYLOAD_TOO_LARGE, text)
        expires_at = now + settings.hold_limit_s
        offset = layout.lifetime_offset
        if offset:
            left_ms = int.from_bytes(head[offset : offset + 4], "big")
            if not left_ms:
                raise ChunkRefusedError(Reason.DEADLINE_PASSED, "its lifetime is over")
            expires_at = min(expires_at, now + left_ms / 1000)
        if hop is not None and hop.is_router and not head[HOP_LIMIT_OFFSET]:
            raise ChunkRefusedError(Reason.HOP_LIMIT, f"and router {hop.name} is one more hop")
        book = self._book
        if book.is_full(size_bytes):
            raise ChunkRefusedError(Reason.STORE_FULL, "all that is in custody, or its number")
        if flow.late is not None:
            look = partial(_look_in, body, layout.header_bytes)
            flow = self._planner.settle(flow, head, payload_bytes, look, now)
            hop = flow.next_hop
        if flow.steps:
            first = flow.steps[0].service
            if not first.may_serve(now) and first.settings.fail_policy is FailPolicy.CLOSED:
                text = f"service {first.name} has no VI and is fail-closed"
                raise ChunkRefusedError(Reason.SERVICE_FAILED, text)
        elif (
            hop is not None
            and hop.attachment is None
            and self._waiting.is_full(hop, flow.label, size_bytes)
        ):
            text = f"{hop.name} is away, and as much waits for it as may"
            raise ChunkRefusedError(Reason.STORE_FULL, text)
        if book.spool.is_durable:
            why = book.spool.reason_to_refuse(flow.label, size_bytes)
            if why:
                self._refused_by_disk[why] += 1
                text = f"custody is durable, and the disk: {why}"
                raise ChunkRefusedError(Reason.STORE_FULL, text)
        return flow, head, size_bytes, expires_at

    def _decide(self, ingress: Ingress, key: bytes, head: bytes, now: float) -> Flow:
        """Decide for a header and all that look like it."""
        ingress.flow_misses += 1
        self.flow_misses_count += 1
        flow = self._planner.decide(ingress, head, now)
        ingress.remember(key, flow)
        return flow


def _look_in(body: ComingBody, start: int, at: Callable[[memoryview], FoundT]) -> FoundT:
    return body.look(lambda whole: at(whole[start:]))
