"""One version of the table of rules, as the data plane asks it: `RuleTable`.

Segments of several ages, a large one and a few small ones, less the rules withdrawn since they were
written. A question costs one search for each tuple of each segment, whatever they hold.
Source: docs/decisions/0012; `judge` says what the answer must be.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.rules.answer import Answer, Contender, Contest, Scanner
from packetcloud.router.rules.ranking import Ranking, grouped, joined, ranking
from packetcloud.router.rules.segment import Candidate, Segment
from packetcloud.router.rules.segment_hash import (
    HASH_MASK,
    MEMBER,
    NOWHERE,
    SHIFT,
    Field,
    multipliers,
)
from packetcloud.router.rules.segment_layout import MANY

MAX_RANKED_COUNT = 65_536
"""Rules whose ranking a table keeps, of long runs: 100 bytes each."""
_RARE = 1 << Field.PAYLOAD_TYPE | 1 << Field.INGRESS
_EXCHANGED = {Field.SOURCE: Field.DESTINATION, Field.DESTINATION: Field.SOURCE}

Hit = tuple[Segment, int, bool]
"""The segment, the word of the slot, and whether the ends were exchanged."""


class Table:
    """One version of the rules. What it answers never changes.

    Args:
        segments: all of one secret.
        withdrawn: numbers of rules of the segments that do not hold any more.
        scanner: knows the patterns of all segments by their ids.
    """

    def __init__(
        self,
        version: int,
        segments: Sequence[Segment],
        withdrawn: Container[int] = frozenset(),
        scanner: Scanner | None = None,
    ) -> None:
        if len({one.secret for one in segments}) > 1:
            raise LocalMisuseError("the segments of a table have one secret")
        self.version = version
        self.scanner = scanner
        self.segments = tuple(segments)
        self._withdrawn = withdrawn
        self._factors = multipliers(segments[0].secret) if segments else ()
        self._always_hits: list[Hit] = []
        self._terms: list[tuple[int, int]] = []
        """Field and factor of each product."""
        self._additions: list[tuple[int, int]] = []
        self._probes: list[tuple[int, memoryview, int, Segment, bool]] = []
        self._plan()
        self._needs_all_fields = any(
            one.members is not None or any(table.mask & _RARE for table in one.tuples)
            for one in segments
        )
        self._nothing = Answer(version)
        self._always: Ranking | None = None
        self._always_answer = self._nothing
        self._rankings: dict[Hit, Ranking] = {}
        self.ranked_count = 0
        """Rules whose ranking is kept."""
        self.forgotten_count = 0
        """Rankings that were forgotten; they are made again when asked."""

    def ask(
        self,
        source: bytes,
        destination: bytes,
        sid: bytes,
        payload_type: int,
        ingress: bytes,
        now_s: float,
    ) -> Answer:
        """Ask about a flow: see `RuleTable`. About 3 µs where one rule matches.

        The clock may be set back: an answer then holds until its `until_s` all the same.
        """
        fields: tuple[bytes, ...] = (source, destination, sid)
        if self._needs_all_fields:
            fields += (payload_type.to_bytes(2, "little"), ingress or NOWHERE)
        sums = [int.from_bytes(fields[index], "little") * factor for index, factor in self._terms]
        for one, other in self._additions:
            sums.append(sums[one] + sums[other])
        hits: list[Hit] = []
        # `TupleTable.word`, written out: a call for each would take as long as the search.
        for index, slots, homes, segment, is_answer in self._probes:
            bits = sums[index] >> SHIFT & HASH_MASK
            start = bits >> 16
            at = (start * homes >> 64) << 1
            while slots[at] < start:
                at += 2
            while slots[at] == start:
                word = slots[at + 1]
                if word >> 48 == bits & 0xFFFF:
                    hits.append((segment, word, is_answer))
                    break
                at += 2
        if len(hits) == 1 and not self._always_hits:
            answer = self._simple(*hits[0])
            if answer is not None:
                return answer
        if not hits:
            self._rank_always(now_s)
            return self._always_answer
        return self._combined(hits, fields, now_s)

    def prepare(self, now_s: float) -> Iterator[None]:
        """Make ready what takes long: runs of many rules for one key, each step a millisecond.

        A table answers without, and then takes the time when it is asked first.
        """
        for segment in self.segments:
            yield from segment.prepare()
        self._rank_always(now_s)
        yield

    def _plan(self) -> None:
        """Work out what is multiplied, added and searched for a question."""
        searches = []
        for segment in self.segments:
            for one in segment.tuples:
                named = [field for field in Field if one.mask >> field & 1]
                if not named:
                    self._always_hits += [(segment, word, False) for word in one.words(0)]
                    continue
                searches.append((tuple((field, field) for field in named), one, segment, False))
                if one.has_both:
                    ends = tuple((_EXCHANGED.get(field, field), field) for field in named)
                    searches.append((ends, one, segment, True))
        products = sorted({product for search in searches for product in search[0]})
        self._terms = [(field, self._factors[factor]) for field, factor in products]
        places: dict[tuple[tuple[Field, Field], ...], int] = {
            (product,): place for place, product in enumerate(products)
        }
        for summands, _, _, _ in searches:
            for end in range(2, len(summands) + 1):
                if summands[:end] not in places:
                    pair = places[summands[: end - 1]], places[summands[end - 1 : end]]
                    places[summands[:end]] = len(products) + len(self._additions)
                    self._additions.append(pair)
        self._probes = [
            (places[summands], one.slots, one.homes, segment, is_answer)
            for summands, one, segment, is_answer in searches
        ]

    def _simple(self, segment: Segment, word: int, is_answer: bool) -> Answer | None:
        """Return the answer of one rule without further conditions on the flow; None: look."""
        index = word >> 32 & MANY
        if index == MANY:
            return None
        effect = segment.effects.get(index) or segment.effect(index)
        number = word & 0xFFFF_FFFF
        if not effect.is_simple or number in self._withdrawn:
            return None
        if is_answer and not effect.holds_for_answers:
            return None
        contender = Contender(number, effect.action, effect.late, effect.refuses_absent)
        return Answer(self.version, (Contest(effect.service, (contender,)),))

    def _rank_always(self, now_s: float) -> None:
        """Rank the rules that name no field, unless that is done and still holds."""
        always = self._always
        if always is None or not always.since_s <= now_s < always.until_s:
            always = joined([self._ranking(hit, now_s) for hit in self._always_hits])
            self._always = always
            self._always_answer = always.answer(self.version)

    def _combined(self, hits: list[Hit], fields: Sequence[bytes], now_s: float) -> Answer:
        """Return the answer of several keys."""
        self._rank_always(now_s)
        assert self._always is not None
        rankings = [self._always] if self._always_hits else []
        for hit in hits:
            one = self._ranking(hit, now_s)
            rankings.append(one)
            if one.in_sets:
                matched = [rule for rule in one.in_sets if self._is_in_sets(hit, rule, fields)]
                rankings.append(Ranking(grouped(matched)))
        whole = rankings[0] if len(rankings) == 1 else joined(rankings)
        return whole.answer(self.version)

    def _ranking(self, hit: Hit, now_s: float) -> Ranking:
        segment, word, is_answer = hit
        if not segment.is_long(word):
            return ranking(segment.candidates(word), now_s, self._withdrawn, is_answer)
        kept = self._rankings.get(hit)
        if kept is None or not kept.since_s <= now_s < kept.until_s:
            candidates = segment.candidates(word)
            kept = ranking(candidates, now_s, self._withdrawn, is_answer)
            if hit not in self._rankings:
                self._make_room(len(candidates))
            self._rankings[hit] = kept
        return kept

    def _make_room(self, count: int) -> None:
        if self.ranked_count + count > MAX_RANKED_COUNT:
            self.forgotten_count += len(self._rankings)
            self._rankings.clear()
            self.ranked_count = 0
        self.ranked_count += count

    def _is_in_sets(self, hit: Hit, rule: Candidate, fields: Sequence[bytes]) -> bool:
        segment, _, is_answer = hit
        assert segment.members is not None
        for index, number in rule[2].sets:
            field = Field(index)
            value = fields[_EXCHANGED.get(field, field) if is_answer else field]
            total = number * self._factors[MEMBER]
            total += int.from_bytes(value, "little") * self._factors[field]
            if not segment.members.words(total >> SHIFT & HASH_MASK):
                return False
        return True
