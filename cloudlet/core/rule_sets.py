"""Sets of rules that the domain controller wants at the router, and what became of them.

A document is written down, then given to the router until the router has it; the router alone
judges it, by its signatures. What the router has is looked at again and again, so rules that it
lost come back, and rules that somebody else brought show.
Source: docs/protocol/channel.md, "Rules".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from packetcloud.cloudlet.core.commands import Command, InstallRules, Note, SayRules
from packetcloud.cloudlet.core.events import (
    DomainUp,
    Metered,
    RulesAnswered,
    RulesSaid,
    RulesSeen,
    RulesUnanswered,
    SetAtRouter,
)
from packetcloud.cloudlet.core.saved import RuleSet, Saved
from packetcloud.domain_controller.core.installations import (
    MAX_REFUSALS_COUNT,
    MAX_SETS_AT_CLOUDLET_COUNT,
    RulesState,
    SetState,
)

MAX_DOCUMENTS_BYTES = 64 << 20
"""Of all documents together: they lie in memory and in the database."""
SAY_ALL_EVERY_MS = 60_000
"""So often the domain controller is told of all sets: what was lost on the way is noticed."""
TRY_AGAIN_MS = 300_000
"""A document that the router refused as a whole is brought again: its config may be another."""
KEPT_MS = 3_600_000
"""Sets whose rules are all over are kept for so long, as the router keeps such rules."""
MAX_SHOWN_CHARS = 200
_FOREIGN = "the document is not of the set that it is for"
_LOST = "what the router refused is in its log: its answer did not come in time"


class RuleSets:
    """The rules of one cloudlet's router, as far as they come from the domain."""

    def __init__(self, saved: Saved) -> None:
        self.dropped: Counter[str] = Counter()
        """What the domain controller said and was not taken, by reason."""
        self._saved = saved
        self._is_up = False
        self._at_ms = 0
        self._said_ms = 0
        self._sequence = 0
        self._installing = ""
        """The set whose document is on its way to the router: one at a time."""
        self.answers_count = 0
        """A look that began before the last of them shows what is no longer so."""
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._held: set[str] = set()
        """Sets that are not brought again before the router was looked at."""

    @property
    def is_unsettled(self) -> bool:
        """Whether the router has to be looked at closely: something is not there yet."""
        return any(one.state is RulesState.WAITING for one in self._saved.rule_sets.values())

    def up(self, event: DomainUp, *, is_in_charge: bool) -> list[Command]:
        """A domain controller has the channel; one that is not in charge is told nothing."""
        self._at_ms = event.at_ms
        self._is_up = is_in_charge
        return self._say_all()

    def down(self) -> None:
        """Nobody has the channel."""
        self._is_up = False

    def tick(self, event: Metered) -> list[Command]:
        """Do what is due: about once a second."""
        self._at_ms = event.at_ms
        sets = self._saved.rule_sets
        if not sets or 0 <= self._at_ms - self._said_ms < SAY_ALL_EVERY_MS:
            return []  # that there is none was said when the channel was opened
        for name, one in list(sets.items()):
            if one.until_ms is not None and one.until_ms + KEPT_MS < self._at_ms:
                del sets[name]
                self._turns.pop(name, None)
                self._held.discard(name)
        return self._say_all()

    def said(self, event: RulesSaid) -> list[Command]:
        """Take a document, or say again what became of it."""
        if not self._is_up or event.epoch != self._saved.domain_epoch:
            self.dropped["epoch"] += 1
            return []
        sets = self._saved.rule_sets
        known = sets.get(event.rule_set)
        if known is None or known.serial < event.serial:
            why_not = self._why_not(event)
            if why_not:
                refused = SetState(event.rule_set, event.serial, RulesState.REFUSED, text=why_not)
                return [self._say([refused])]
            known = sets[event.rule_set] = RuleSet(
                event.rule_set,
                event.signer,
                event.set_name,
                event.serial,
                event.until_ms,
                event.document,
            )
        return [self._say([_state_of(known)]), *self._install()]

    def answered(self, event: RulesAnswered) -> list[Command]:
        """The router took a document, as a whole or in part, or refused it."""
        one = self._of_answer(event.rule_set, event.serial)
        if one is None:
            return self._install()
        if event.is_replayed:
            # It has this document already, or a newer one: which, the next look shows.
            one.text = _line(event.text)
            self._held.add(one.name)
            return self._install()
        is_theirs = event.named in (None, (one.signer, one.set_name, one.serial))
        one.accepted_count, one.refused_count = event.accepted_count, event.refused_count
        one.refusals = event.refusals[:MAX_REFUSALS_COUNT]
        one.revoked_count = 0
        one.text = _line(event.text)
        if not is_theirs:
            one.state, one.text = (
                RulesState.REFUSED,
                _FOREIGN,
            )
        elif event.named is None:
            one.state = RulesState.REFUSED
        else:
            one.state = RulesState.PARTLY if one.refused_count else RulesState.INSTALLED
        one.retry_ms = self._at_ms + TRY_AGAIN_MS
        is_bad = one.state is not RulesState.INSTALLED
        note = Note(f"rules of set {one.set_name}, serial {one.serial}: {_words(one)}", is_bad)
        return [note, *self._tell(one), *self._install()]

    def unanswered(self, event: RulesUnanswered) -> list[Command]:
        """The router does not answer, or keeps no rules."""
        one = self._of_answer(event.rule_set, event.serial)
        if one is None:
            return self._install()
        self._held.add(one.name)
        text = _line(event.text)
        if one.text == text:
            return []
        one.text = text
        return self._tell(one)

    def seen(self, event: RulesSeen) -> list[Command]:
        """Compare what the router has with what it should have."""
        if event.answers_count != self.answers_count:
            return []
        self._held.clear()
        commands: list[Command] = []
        for one in self._saved.rule_sets.values():
            if one.name == self._installing or self._is_over(one):
                continue
            before = _state_of(one)
            self._compare(one, event.sets.get((one.signer, one.set_name)))
            if _state_of(one) != before:
                if one.state is RulesState.WAITING:
                    text = f"rules of set {one.set_name}, serial {one.serial}: brought again"
                    commands.append(Note(text, True))
                commands += self._tell(one)
        return commands + self._install()

    def _compare(self, one: RuleSet, there: SetAtRouter | None) -> None:
        if there is None or there.serial < one.serial:
            if one.state not in (RulesState.WAITING, RulesState.REFUSED):
                one.state, one.text = RulesState.WAITING, ""
        elif there.serial > one.serial:
            one.state = RulesState.DIFFERENT
            one.text = f"the router has serial {there.serial}, which did not come from the domain"
        else:
            one.revoked_count = there.revoked_count
            if one.state in (RulesState.WAITING, RulesState.REFUSED):
                # It took the document, and its answer was lost with an earlier run.
                lacking = max(0, one.document.count("\n") - 2 - there.rules_count)
                one.accepted_count, one.refused_count = there.rules_count, lacking
                one.refusals = ()
                one.state = RulesState.PARTLY if lacking else RulesState.INSTALLED
                one.text = _LOST if lacking else ""

    def _install(self) -> list[Command]:
        """Bring the next document that the router lacks; the one longest not tried comes first."""
        due = [one for one in self._saved.rule_sets.values() if self._is_due(one)]
        if self._installing or not due:
            return []
        one = min(due, key=lambda one: self._turns.get(one.name, 0))
        self._turns[one.name] = self._turn = self._turn + 1
        self._installing = one.name
        return [InstallRules(one.name, one.serial, one.document)]

    def _is_due(self, one: RuleSet) -> bool:
        if one.name in self._held or self._is_over(one):
            return False
        is_again = one.state is RulesState.REFUSED and self._at_ms >= one.retry_ms
        return one.state is RulesState.WAITING or is_again

    def _of_answer(self, name: str, serial: int) -> RuleSet | None:
        """Return the set that an answer is about; None: another document took its place."""
        self.answers_count += 1
        if self._installing == name:
            self._installing = ""
        one = self._saved.rule_sets.get(name)
        return one if one is not None and one.serial == serial else None

    def _why_not(self, event: RulesSaid) -> str:
        others = [one for one in self._saved.rule_sets.values() if one.name != event.rule_set]
        if event.until_ms is not None and event.until_ms + KEPT_MS < self._at_ms:
            return "its rules are over"
        if len(others) >= MAX_SETS_AT_CLOUDLET_COUNT:
            return f"{MAX_SETS_AT_CLOUDLET_COUNT} sets of rules are kept here, as many as may be"
        if sum(len(one.document) for one in others) + len(event.document) > MAX_DOCUMENTS_BYTES:
            return f"over {MAX_DOCUMENTS_BYTES} bytes of documents would be kept here"
        return ""

    def _is_over(self, one: RuleSet) -> bool:
        return one.until_ms is not None and one.until_ms <= self._at_ms

    def _tell(self, one: RuleSet) -> list[Command]:
        return [self._say([_state_of(one)])] if self._is_up else []

    def _say_all(self) -> list[Command]:
        if not self._is_up:
            return []
        self._said_ms = self._at_ms
        states = [_state_of(one, is_short=True) for one in self._saved.rule_sets.values()]
        return [self._say(states, is_whole=True)]

    def _say(self, states: Iterable[SetState], *, is_whole: bool = False) -> SayRules:
        self._sequence += 1
        return SayRules(self._saved.domain_epoch, self._sequence, tuple(states), is_whole)


def _state_of(one: RuleSet, *, is_short: bool = False) -> SetState:
    return SetState(
        one.name,
        one.serial,
        one.state,
        one.accepted_count,
        one.refused_count,
        one.revoked_count,
        one.text,
        () if is_short else one.refusals,
    )


def _words(one: RuleSet) -> str:
    if one.text:
        return f"{one.state.value}: {one.text}"
    return f"{one.accepted_count} accepted, {one.refused_count} refused by the router"


def _line(text: str) -> str:
    """Return a text as one line of so many characters, of one byte each."""
    return " ".join(text.split()).encode("ascii", "replace").decode()[:MAX_SHOWN_CHARS]
