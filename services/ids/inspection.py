"""Core: what becomes of one chunk by all rules, its flow and what was counted. `now` comes in.

Rules are asked in their order. A pass ends it; a drop, a reject or a rate that is used up refuses
the chunk, and the other rules are asked all the same, so that their alerts are told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from packetcloud.chunk.header import WRAPPED_TYPES, ChunkHeader
from packetcloud.services.ids.borders import Place, places_of
from packetcloud.services.ids.errors import OverBudgetError
from packetcloud.services.ids.flows import Flow, FlowTable, Passage
from packetcloud.services.ids.matching import Budget, Searched
from packetcloud.services.ids.rates import Effect, Rates
from packetcloud.services.ids.rule import Action, Rule, Side
from packetcloud.services.ids.ruleset import RuleSet

CHUNK_BUDGET_BYTES = 32 << 20
"""What confirming candidates of one chunk may cost, in bytes searched: a tenth of a second."""
BORDERS_SHARE = 2
"""What looking over its borders may cost, in budgets: the 8192 frames that a message of streams may
have, each between two others, take two thirds of it."""
PART_COST_BYTES = 1024
"""What laying down one part and searching around it costs, in bytes searched in the same time."""
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
    NO_ROOM = "no_room"
    """For its ends those of others of its flow would be forgotten, which may go on."""
    SEALED = "sealed"
    """It was encrypted before it came here, or compressed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a chunk."""

    refused_by: Rule | None
    alerts: tuple[Alert, ...]
    side: Side
    doubt: Doubt | None = None
    """None: all rules were asked about all of it."""
    is_doubt_refused: bool = False
    """It does not go on for that."""
    is_doubt_told: bool = True
    forgets: bool = False
    """Ends of others of its flow were forgotten, and that was not told lately."""

    @property
    def anomalies(self) -> tuple[str, ...]:
        """Return what people are told of it besides the alerts."""
        found = (self.doubt.value,) if self.doubt is not None and self.is_doubt_told else ()
        return (*found, BORDER_FORGOTTEN) if self.forgets else found


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of chunks that are not wholly inspected."""

    drops_doubtful: bool = False
    drops_without_room: bool = False
    """A chunk for whose ends others that may go on would be forgotten; else they are."""
    drops_sealed: bool = False
    tells_sealed: bool = False

    def refuses(self, doubt: Doubt | None) -> bool:
        """Tell whether a chunk does not go on for a doubt."""
        match doubt:
            case None:
                return False
            case Doubt.NO_ROOM:
                return self.drops_without_room
            case Doubt.SEALED:
                return self.drops_sealed
            case _:
                return self.drops_doubtful

    def tells(self, doubt: Doubt | None) -> bool:
        """Tell whether people hear of a doubt."""
        return doubt is not Doubt.SEALED or self.drops_sealed or self.tells_sealed


class Inspection:
    """Rules and what they have seen.

    Args:
        ruleset: in force now; `switch` puts another in its place.
        budget_bytes: what confirming candidates of one chunk may cost.
        policy: what becomes of a chunk that is not wholly inspected; what does not go on is not
            remembered.
    """

    def __init__(
        self,
        ruleset: RuleSet,
        flows: FlowTable,
        rates: Rates,
        budget_bytes: int = CHUNK_BUDGET_BYTES,
        policy: Policy | None = None,
    ) -> None:
        self.flows = flows
        self.rates = rates
        self.counts: Counter[str] = Counter()
        """Its keys are those of `COUNTED`."""
        self._ruleset = ruleset
        self._budget_bytes = budget_bytes
        self._policy = policy or Policy()

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
        passage = self.flows.passage(flow, side, now)
        places = places_of(header, payload)
        self.counts["chunks"] += 1
        self.counts["bytes"] += len(payload)
        is_damaged = header.digest is not None and not header.digest.matches(payload)
        asking = _Asking(self, header, payload, flow, side, now, is_damaged=is_damaged)
        is_over_budget = False
        targets = self._targets_within(payload)
        try:
            self._add_targets_over_borders(targets, passage, places)
        except OverBudgetError:
            is_over_budget = True
        self.counts["candidates"] += len(targets)
        try:
            asking.ask_all(targets)
        except OverBudgetError:
            is_over_budget = True
        doubt: Doubt | None = None
        if not asking.has_passed:
            doubt = self._doubt(header, passage, is_over_budget, is_damaged)
        if doubt is not None:
            self.counts[doubt] += 1
        is_doubt_refused = self._policy.refuses(doubt)
        is_refused = asking.refused_by is not None or is_doubt_refused
        # What hosts refuse for its digest takes no place: the real one may still come.
        is_kept = not is_refused and not is_damaged
        if is_kept:
            self.flows.remember(flow, side, passage)
        self.counts["alerts_of_one_chunk_dropped"] += asking.untold_count
        has_forgotten = flow.has_lost or (is_kept and passage.forgotten_count > 0)
        flow.has_lost = False
        return Decision(
            asking.refused_by,
            tuple(asking.alerts),
            side,
            doubt,
            is_doubt_refused,
            self._policy.tells(doubt),
            has_forgotten and flow.tells_forgotten(now),
        )

    def _doubt(
        self, header: ChunkHeader, passage: Passage, is_over_budget: bool, is_damaged: bool
    ) -> Doubt | None:
        """Return why a chunk that no rule passes is not wholly inspected: the first that holds."""
        if is_over_budget:
            return Doubt.OVER_BUDGET
        if is_damaged:
            return Doubt.WRONG_DIGEST
        if passage.is_contradicted:
            return Doubt.OTHER_CONTENT
        if passage.forgotten_young_count and self._policy.drops_without_room:
            return Doubt.NO_ROOM
        if header.payload_type in WRAPPED_TYPES:
            return Doubt.SEALED
        return None

    def _targets_within(self, payload: memoryview) -> dict[int, list[Searched]]:
        """Return the payload for each rule that may match there."""
        whole = Searched(payload)
        targets = {number: [whole] for number in self._ruleset.unseen}
        for number in self._ruleset.candidates(payload):
            targets[number] = [whole]
        return targets

    def _add_targets_over_borders(
        self, targets: dict[int, list[Searched]], passage: Passage, places: list[Place]
    ) -> None:
        """Add for each rule where around the borders of a payload it may match.

        Raises:
            OverBudgetError: that was not done for all parts.
        """
        ruleset = self._ruleset
        budget = Budget(BORDERS_SHARE * self._budget_bytes)
        for place in places:
            budget.spend(PART_COST_BYTES)
            for stretch in passage.meet(place):
                budget.spend(len(stretch.content))
                around = None
                for number in ruleset.candidates(stretch.content):
                    entry = ruleset.entries[number]
                    if entry.is_placed or entry.rule.is_of_one_chunk:
                        continue
                    around = around or Searched(memoryview(stretch.content), stretch.borders)
                    targets.setdefault(number, []).append(around)


COUNTED = (
    "alerts_of_one_chunk_dropped",
    "bytes",
    "candidates",
    "chunks",
    "matches",
    "no_room",
    "other_content",
    "over_budget",
    "sealed",
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
        *,
        is_damaged: bool,
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
        self._is_damaged = is_damaged
        """No host takes it: it says nothing about what its flow is in."""
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
        if not self._is_damaged:
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
