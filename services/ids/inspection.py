"""Core: what becomes of one chunk by all rules, its flow and what was counted. `now` comes in.

Rules are asked in their order. A pass ends it; a drop, a reject or a rate that is used up refuses
the chunk, and the other rules are asked all the same, so that their alerts are told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.chunk.header import ChunkHeader
from packetcloud.services.ids.borders import MAX_PLACES_COUNT, Place, places_of
from packetcloud.services.ids.errors import OverBudgetError
from packetcloud.services.ids.flows import Flow, FlowTable, Passage
from packetcloud.services.ids.matching import Budget, Searched
from packetcloud.services.ids.rates import Effect, Rates
from packetcloud.services.ids.rule import Action, Rule, Side
from packetcloud.services.ids.ruleset import RuleSet

CHUNK_BUDGET_BYTES = 32 << 20
"""What confirming candidates of one chunk may cost, in bytes searched: a tenth of a second."""
MAX_ALERTS_COUNT = 16
"""Of one chunk; more are counted."""
BORDER_FORGOTTEN = "border_forgotten"
_REFUSING = (Action.DROP, Action.REJECT)


@dataclass(frozen=True, slots=True)
class Alert:
    """A match that people are told."""

    rule: Rule
    is_blocked: bool
    is_over_border: bool
    """Found only together with a neighbouring chunk."""


class Doubt(StrEnum):
    """Why a chunk is not wholly inspected."""

    OVER_BUDGET = "over_budget"
    OTHER_CONTENT = "other_content"
    """Other bytes were seen where these lie: what was found with the one need not hold for both."""
    WRONG_DIGEST = "wrong_digest"
    """Hosts refuse it; services do not ask for it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a chunk."""

    refused_by: Rule | None
    alerts: tuple[Alert, ...]
    side: Side
    doubt: Doubt | None = None
    """None: all rules were asked about all of it."""
    forgets: bool = False
    """For it ends of others of its flow were forgotten, for the first time."""

    @property
    def anomalies(self) -> tuple[str, ...]:
        """Return what people are told of it besides the alerts."""
        found = () if self.doubt is None else (self.doubt.value,)
        return (*found, BORDER_FORGOTTEN) if self.forgets else found


class Inspection:
    """Rules and what they have seen.

    Args:
        ruleset: in force now; `switch` puts another in its place.
        budget_bytes: what confirming candidates of one chunk may cost.
        drops_doubtful: what is not wholly inspected does not go on, so it is not remembered.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        flows: FlowTable,
        rates: Rates,
        budget_bytes: int = CHUNK_BUDGET_BYTES,
        *,
        drops_doubtful: bool = False,
    ) -> None:
        self.flows = flows
        self.rates = rates
        self.counts: Counter[str] = Counter()
        """Its keys are those of `COUNTED`."""
        self._ruleset = ruleset
        self._budget_bytes = budget_bytes
        self._drops_doubtful = drops_doubtful

    @property
    def ruleset(self) -> RuleSet:
        return self._ruleset

    def switch(self, ruleset: RuleSet) -> None:
        """Put other rules in force. Flows, marks and what was counted stay."""
        self._ruleset = ruleset

    def inspect(self, header: ChunkHeader, payload: memoryview, now: float) -> Decision:
        """Decide about a chunk, and remember what later ones need to know of it."""
        source, destination = header.source.value, header.destination.value
        flow, side = self.flows.heard(source, destination)
        passage = self.flows.passage(flow, side)
        places = places_of(header, payload)
        self.counts["chunks"] += 1
        self.counts["bytes"] += len(payload)
        asking = _Asking(self, header, payload, flow, side, now)
        targets = self._targets(passage, places[:MAX_PLACES_COUNT], payload)
        doubt: Doubt | None = None
        try:
            asking.ask_all(targets)
            if len(places) > MAX_PLACES_COUNT and not asking.has_passed:
                raise OverBudgetError
        except OverBudgetError:
            doubt = Doubt.OVER_BUDGET
        is_damaged = header.digest is not None and not header.digest.matches(payload)
        if doubt is None and not asking.has_passed:
            if is_damaged:
                doubt = Doubt.WRONG_DIGEST
            elif passage.is_contradicted:
                doubt = Doubt.OTHER_CONTENT
        if doubt is not None:
            self.counts[doubt] += 1
        is_refused = asking.refused_by is not None or bool(doubt and self._drops_doubtful)
        # What hosts refuse for its digest takes no place: the real one may still come.
        is_kept = not is_refused and not is_damaged
        if is_kept:
            self.flows.remember(flow, side, passage)
        self.counts["alerts_of_one_chunk_dropped"] += asking.untold_count
        forgets = is_kept and passage.forgotten_count > 0 and not flow.has_forgotten
        flow.has_forgotten |= forgets
        return Decision(asking.refused_by, tuple(asking.alerts), side, doubt, forgets)

    def _targets(
        self, passage: Passage, places: list[Place], payload: memoryview
    ) -> dict[int, list[Searched]]:
        """Return for each rule that may match where: the payload, or around its borders."""
        ruleset = self._ruleset
        whole = Searched(payload)
        targets = {number: [whole] for number in ruleset.unseen}
        for number in ruleset.candidates(payload):
            targets[number] = [whole]
        for stretch in (one for place in places for one in passage.meet(place)):
            around = None
            for number in ruleset.candidates(stretch.content):
                entry = ruleset.entries[number]
                if entry.is_placed or entry.rule.is_of_one_chunk:
                    continue
                around = around or Searched(memoryview(stretch.content), stretch.borders)
                targets.setdefault(number, []).append(around)
        self.counts["candidates"] += len(targets)
        return targets


COUNTED = (
    "alerts_of_one_chunk_dropped",
    "bytes",
    "candidates",
    "chunks",
    "matches",
    "other_content",
    "over_budget",
    "wrong_digest",
)


class _Asking:
    """All rules about one chunk."""

    def __init__(
        self,
        inspection: Inspection,
        header: ChunkHeader,
        payload: memoryview,
        flow: Flow,
        side: Side,
        now: float,
    ) -> None:
        self.refused_by: Rule | None = None
        self.alerts: list[Alert] = []
        self.untold_count = 0
        self.has_passed = False
        """A rule says that it passes, whatever others say."""
        self._inspection = inspection
        self._source = header.source.value
        self._destination = header.destination.value
        self._size = len(payload)
        self._flow = flow
        self._side = side
        self._now = now
        self._budget = Budget(inspection._budget_bytes)

    def ask_all(self, targets: dict[int, list[Searched]]) -> None:
        """Ask the rules in their order. Raises: OverBudgetError."""
        ruleset = self._inspection.ruleset
        for number in sorted(targets):
            entry = ruleset.entries[number]
            rule = entry.rule
            if not rule.is_about(self._source, self._destination):
                continue
            if rule.size is not None and self._size not in rule.size:
                continue
            if not self._flow.allows(rule, self._side):
                continue
            for searched in targets[number]:
                if ruleset.matches(entry, searched, self._budget):
                    self.has_passed = self._is_passed_by(rule, bool(searched.borders))
                    if self.has_passed:
                        return
                    break

    def _is_passed_by(self, rule: Rule, is_over_border: bool) -> bool:
        """Do what a rule that matched says; tell whether it ends the asking."""
        inspection = self._inspection
        inspection.counts["matches"] += 1
        inspection.flows.mark(self._flow, rule.changes)
        rates = inspection.rates
        effect = rates.count(rule, self._source, self._destination, self._now)
        if effect is Effect.NONE:
            return False
        if rule.action is Action.PASS:
            return True
        if rule.rate is not None:
            ends = self._source, self._destination
            if rates.take(rule, rule.rate, *ends, self._size, self._now):
                return False
        is_blocked = rule.action in _REFUSING or rule.rate is not None
        if is_blocked and self.refused_by is None:
            self.refused_by = rule
        if effect is Effect.FULL and not rule.is_silent:
            if len(self.alerts) < MAX_ALERTS_COUNT:
                self.alerts.append(Alert(rule, is_blocked, is_over_border))
            else:
                self.untold_count += 1
        return False
