"""The flows that are known: who began them, their marks, the ends of their chunks.

A flow is what two GUIDs send each other. Flows, and bytes that are kept of their chunks, have a
limit; beyond it what was heard of least lately is forgotten.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from packetcloud.services.ids.borders import DEFAULT_MAX_RUNS_COUNT, Borders, Place, Stretch
from packetcloud.services.ids.rule import BitOperation, FlowBits, Rule, Side

DEFAULT_MAX_FLOWS_COUNT = 16_384
DEFAULT_MAX_BYTES = 32 << 20
MAX_MARKS_COUNT = 32
"""Of one flow."""
FLOW_SHARE = 8
"""One direction of a flow has this part of the bytes of all: it forgets its own before others'."""
YOUNG_S = 120.0
"""A run that grew so lately may go on: twice what hosts give their chunks to live."""
TELL_AGAIN_S = 60.0
"""A flow that forgets on and on is told so often."""

FlowKey = tuple[bytes, bytes]
"""Two GUIDs, in ascending order."""


@dataclass(slots=True)
class Flow:
    """What is known of one flow."""

    client: bytes
    """Who sent the first chunk that was seen."""
    is_answered: bool = False
    """The other side has sent, too."""
    marks: set[str] = field(default_factory=set)
    to_server: Borders = field(default_factory=Borders)
    to_client: Borders = field(default_factory=Borders)
    has_lost: bool = False
    """Ends of its chunks were forgotten for those of others since it was heard."""
    told_at: float = -TELL_AGAIN_S
    """When it was told last that ends of its chunks were forgotten."""

    @property
    def kept_bytes(self) -> int:
        return self.to_server.kept_bytes + self.to_client.kept_bytes

    def borders(self, side: Side) -> Borders:
        return self.to_server if side is Side.TO_SERVER else self.to_client

    def put_borders(self, side: Side, borders: Borders) -> None:
        if side is Side.TO_SERVER:
            self.to_server = borders
        else:
            self.to_client = borders

    def tells_forgotten(self, now: float) -> bool:
        """Tell whether it is time to tell that ends of its chunks were forgotten."""
        if now < self.told_at + TELL_AGAIN_S:
            return False
        self.told_at = now
        return True

    def allows(self, rule: Rule, side: Side) -> bool:
        """Tell whether a rule is about chunks of this direction, in what the flow is in."""
        if rule.side is not None and rule.side is not side:
            return False
        if rule.is_established is not None and rule.is_established != self.is_answered:
            return False
        return all(self._answer(question) for question in rule.questions)

    def _answer(self, question: FlowBits) -> bool:
        is_set = not self.marks.isdisjoint(question.names)
        return is_set == (question.operation is BitOperation.IS_SET)


class Passage:
    """One chunk going past the ends of others, part by part: each part meets those before it, too.

    What then lies there is kept only if the chunk goes on.
    """

    def __init__(
        self, borders: Borders, edge_bytes: int, max_runs: int, max_bytes: int, now: float
    ) -> None:
        self.borders = borders.copy()
        self.forgotten_count = 0
        self.forgotten_young_count = 0
        """Of these, runs that may still go on."""
        self.is_contradicted = False
        """Another content is known to lie where a part does."""
        self._edge_bytes = edge_bytes
        self._max_runs = max_runs
        self._max_bytes = max_bytes
        self._now = now

    def meet(self, place: Place) -> list[Stretch]:
        """Return what is to be searched around the borders of a part, and lay it down there."""
        self.is_contradicted |= self.borders.contradicts(place, self._edge_bytes)
        stretches: list[Stretch] = []
        for part in self.borders.uncovered(place):
            stretches += self.borders.stretches(part, self._edge_bytes)
            self.borders.add(part, self._edge_bytes, self._now)
            for run in self.borders.forget(self._max_runs, self._max_bytes):
                self.forgotten_count += 1
                self.forgotten_young_count += self._now < run.grown_at + YOUNG_S
        return stretches


class FlowTable:
    """All flows.

    Args:
        max_flows: kept at once.
        max_bytes: of chunks, of all of them together.
        edge_bytes: kept of each end of a run of chunks; 0: borders are not searched.
        max_runs: kept of one direction of a flow.
    """

    def __init__(
        self,
        max_flows: int,
        max_bytes: int,
        edge_bytes: int,
        max_runs: int = DEFAULT_MAX_RUNS_COUNT,
    ) -> None:
        self._max_flows = max_flows
        self._max_bytes = max_bytes
        self._edge_bytes = edge_bytes
        self.max_runs = max_runs
        self._flows: OrderedDict[FlowKey, Flow] = OrderedDict()
        self.kept_bytes = 0
        self.forgotten_flows_count = 0
        self.forgotten_borders_count = 0
        self.unmarked_count = 0
        """Marks that a flow had no room for."""

    def __len__(self) -> int:
        return len(self._flows)

    def items(self) -> list[tuple[FlowKey, Flow]]:
        """Return all flows, the one that was heard of least lately first."""
        return list(self._flows.items())

    def put(self, key: FlowKey, flow: Flow) -> None:
        """Take over a flow that another instance of the service knew."""
        if len(self._flows) >= self._max_flows:
            return
        self._flows[key] = flow
        self.kept_bytes += flow.kept_bytes
        self._make_room(flow)

    def heard(self, source: bytes, destination: bytes) -> tuple[Flow, Side]:
        """Return the flow of a chunk, and the chunk's direction in it."""
        key = key_of(source, destination)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= self._max_flows:
                _, oldest = self._flows.popitem(last=False)
                self.kept_bytes -= oldest.kept_bytes
                self.forgotten_flows_count += 1
            flow = self._flows[key] = Flow(source)
        else:
            self._flows.move_to_end(key)
        if flow.client == source:
            return flow, Side.TO_SERVER
        flow.is_answered = True
        return flow, Side.TO_CLIENT

    def passage(self, flow: Flow, side: Side, now: float) -> Passage:
        """Return what a chunk of this direction goes past."""
        max_bytes = self._max_bytes // FLOW_SHARE
        return Passage(flow.borders(side), self._edge_bytes, self.max_runs, max_bytes, now)

    def remember(self, flow: Flow, side: Side, passage: Passage) -> None:
        """Keep the ends of a chunk that goes on."""
        self.kept_bytes += passage.borders.kept_bytes - flow.borders(side).kept_bytes
        self.forgotten_borders_count += passage.forgotten_count
        flow.put_borders(side, passage.borders)
        self._make_room(flow)

    def mark(self, flow: Flow, changes: tuple[FlowBits, ...]) -> None:
        """Do with a flow's marks what a rule that matched says."""
        for change in changes:
            name = change.names[0]
            is_on = name in flow.marks
            sets = change.operation is BitOperation.SET
            if sets or (change.operation is BitOperation.TOGGLE and not is_on):
                if not is_on and len(flow.marks) >= MAX_MARKS_COUNT:
                    self.unmarked_count += 1
                else:
                    flow.marks.add(name)
            else:
                flow.marks.discard(name)

    def _make_room(self, heard: Flow) -> None:
        """Forget the chunks of flows, an eighth more than is needed; those of `heard` last."""
        if self.kept_bytes <= self._max_bytes:
            return
        for flow in self._flows.values():
            if self.kept_bytes <= self._max_bytes * 7 // 8:
                return
            if flow is not heard and flow.kept_bytes:
                self._forget(flow)
        if self.kept_bytes > self._max_bytes:
            self._forget(heard)

    def _forget(self, flow: Flow) -> None:
        self.kept_bytes -= flow.kept_bytes
        self.forgotten_borders_count += len(flow.to_server) + len(flow.to_client)
        flow.has_lost = True
        flow.to_server, flow.to_client = Borders(), Borders()


def key_of(source: bytes, destination: bytes) -> FlowKey:
    """Return what names a flow, the same in both directions."""
    return (source, destination) if source <= destination else (destination, source)


def flow_id(key: FlowKey) -> int:
    """Return a number of 53 bits (JSON's) for a flow, the same in every instance."""
    digest = hashlib.blake2b(b"".join(key), digest_size=8, person=b"ids flow").digest()
    return int.from_bytes(digest, "big") >> 11
