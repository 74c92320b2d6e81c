"""Usage, ledger and bills: exact whatever the order, and every change is found and named."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.domain_controller.core import usage
from packetcloud.domain_controller.core.bills import Bill, make_bill, verify
from packetcloud.domain_controller.core.ledger import (
    RECEIPTS,
    REVENUE,
    ROUNDING,
    SLACK_MS,
    Item,
    NotBilled,
    Posting,
    Tally,
    balances,
    items_of,
    post_usage,
    tenant_account,
    why_not_billed,
)
from packetcloud.domain_controller.core.money import MAX_MICROS, to_minor
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.slots import HOUR_MS, Slot
from packetcloud.domain_controller.core.usage import (
    FIRST_PREVIOUS,
    MAX_QUANTITY,
    MAX_RECORD_MS,
    MeterChain,
    Taken,
    UsageRecord,
    check_chain,
)
from packetcloud.domain_controller.errors import InvalidValueError, UsageError
from tests.unit.domain_controller.core.usage_records import EUR, PRICES, chain, changed, terms

RECORD = UsageRecord("c1", "m1", 1, FIRST_PREVIOUS, "r1", 1, Meter.CHUNKS, 0, 1000, 5)
TERMS = {("r1", 1): terms()}


@pytest.mark.parametrize(
    "field", ["number", "terms", "begin_ms", "end_ms", "quantity"], ids=lambda one: one
)
@pytest.mark.parametrize("wrong", [-1, 1 << 64, math.nan, 1.0, True, "1", None])
def test_a_record_has_integers_within_bounds(field: str, wrong: object) -> None:
    """Which field is wrong is said."""
    with pytest.raises(InvalidValueError, match=field):
        replace(RECORD, **{field: wrong})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"quantity": MAX_QUANTITY + 1}, "quantity"),
        ({"end_ms": MAX_RECORD_MS + 1}, "end_ms"),
        ({"end_ms": 0}, "end_ms"),
        ({"kind": "chunks"}, "vi-time, chunks, bytes"),
        ({"kind": Meter.VI_TIME, "quantity": 1001}, "times the milliseconds"),
        ({"kind": Meter.VI_TIME, "quantity": 100_001 * 1000}, "times the milliseconds"),
        ({"previous": b""}, "previous"),
        ({"previous": None}, "previous"),
        ({"meter": "M"}, "record.meter"),
        ({"cloudlet": "a\nb"}, "record.cloudlet"),
        ({"reservation": None}, "record.reservation"),
    ],
)
def test_a_record_that_cannot_be_is_named(changes: dict[str, object], text: str) -> None:
    """Caps, kinds, names."""
    with pytest.raises(InvalidValueError, match=text):
        replace(RECORD, **changes)  # type: ignore[arg-type]


def test_the_largest_record_is_taken() -> None:
    """At each cap."""
    replace(RECORD, quantity=MAX_QUANTITY, end_ms=MAX_RECORD_MS)
    replace(RECORD, kind=Meter.VI_TIME, quantity=100_000 * 1000)


@given(st.randoms(use_true_random=False))
def test_the_canonical_form_is_read_back(chance: random.Random) -> None:
    """A record and its bytes are the same thing, and the digest is of the bytes."""
    for record in chain(chance, 3):
        again = UsageRecord.from_bytes(record.to_bytes())
        assert again == record and again.digest == record.digest


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_one_error(data: bytes) -> None:
    """Nothing else comes out of reading."""
    with contextlib.suppress(UsageError):
        assert UsageRecord.from_bytes(data).to_bytes() == data


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_makes_another_record_or_none(place: int, value: int) -> None:
    """There is one form only: no blank, sign or leading zero is read over."""
    data = bytearray(RECORD.to_bytes())
    data[place % len(data)] = value
    try:
        record = UsageRecord.from_bytes(bytes(data))
    except UsageError:
        return
    assert record.to_bytes() == bytes(data)


def test_a_chain_names_the_first_record_that_does_not_follow() -> None:
    """Changed, dropped, moved, added, foreign."""
    records = chain(random.Random(1), 10)
    assert check_chain(records) is None
    assert check_chain(records[4:], records[3].digest, 5) is None
    cases = {
        6: [*records[:4], changed(records[4]), *records[5:]],
        5: [*records[:4], *records[5:]],
        3: [*records[:2], records[3], records[2], *records[4:]],
        4: [*records[:3], records[2], *records[3:]],
        1: records[1:],
        10: [*records[:9], replace(records[9], meter="m2")],
    }
    for number, wrong in cases.items():
        found = check_chain(wrong)
        assert found is not None and found.number == number, found
    cut = check_chain([*records[:5], replace(records[5], previous=FIRST_PREVIOUS)])
    assert cut is not None and cut.number == 6 and "changed" in cut.text


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(0, 11))
def test_gaps_duplicates_and_evidence_are_told_in_any_order(
    order: list[int], missing: set[int], doubled: int
) -> None:
    """Each record counts once; a different one with its number never does."""
    records = chain(random.Random(2), 12)
    known = MeterChain()
    came = [records[index] for index in order if index not in missing]
    for record in came:
        assert known.take(record.number, record.digest) is Taken.NEW
    if came:
        again = came[doubled % len(came)]
        assert known.take(again.number, bytes(again.digest[:16] + again.digest[16:])) is Taken.AGAIN
        assert known.take(again.number, changed(again).digest) is Taken.DIFFERENT
    numbers = {record.number for record in came}
    expected = [n for n in range(1, 13) if n not in numbers]
    assert [n for a, b in known.gaps(12) for n in range(a, b + 1)] == expected
    assert known.last_number == max(numbers, default=0)
    assert [n for a, b in known.gaps() for n in range(a, b + 1)] == [
        n for n in expected if n < known.last_number
    ]


def test_gaps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap all are told, with one more the first ones."""
    monkeypatch.setattr(usage, "MAX_GAPS_COUNT", 3)
    for gaps in (3, 4):
        known = MeterChain({2 * n: b"" for n in range(1, gaps + 1)})
        assert len(known.gaps()) == 3


def _oracle(records: list[UsageRecord]) -> int:
    """Sum what each item costs, by exact fractions of whole quantities."""
    whole: dict[Item, int] = {}
    prices: dict[Item, Fraction] = {}
    for record in records:
        for item, quantity, price in items_of(
            record, TERMS.get((record.reservation, record.terms))
        ):
            whole[item] = whole.get(item, 0) + quantity
            prices[item] = Fraction(price.micros, price.units)
    return sum(round(quantity * prices[item]) for item, quantity in whole.items())


@given(st.integers(0, 10**9), st.integers(0, 40))
@settings(max_examples=50)
def test_the_sum_is_exact_in_any_order_and_accounts_are_zero(seed: int, count: int) -> None:
    """Shuffled and doubled records post what whole quantities cost, once."""
    chance = random.Random(seed)
    records = chain(chance, count)
    sent = records + chance.choices(records, k=count // 5) if records else []
    chance.shuffle(sent)
    known, tally = MeterChain(), Tally()
    postings = []
    for record in sent:
        if known.take(record.number, record.digest) is Taken.NEW:
            posting = post_usage(record, TERMS[("r1", 1)], "ann", tally)
            postings += [posting] if posting is not None else []
    assert sum(posting.micros for posting in postings) == tally.total_micros == _oracle(records)
    result = balances(postings)
    assert sum(result.values()) == 0
    assert result.get(tenant_account("ann"), 0) == -result.get(REVENUE, 0) == tally.total_micros


@given(st.integers(1, 10**12), st.integers(1, 50))
def test_how_often_a_meter_is_read_does_not_change_what_it_costs(quantity: int, reads: int) -> None:
    """One record of a million chunks costs what a million records of one would."""
    whole, split = Tally(), Tally()
    item = ("r1", "c1", 1, "chunks", 0)
    whole.add(item, quantity, PRICES.chunk_price)
    part, rest = divmod(quantity, reads)
    for number in range(reads):
        split.add(item, part + (number < rest), PRICES.chunk_price)
    assert split.total_micros == whole.total_micros


def test_twenty_thousand_records_out_of_order_with_duplicates_are_exact() -> None:
    """Ten meters of two thousand records, a tenth of them twice."""
    chance = random.Random(5)
    records = [one for n in range(10) for one in chain(chance, 2000, f"m{n}")]
    sent = records + chance.sample(records, len(records) // 10)
    chance.shuffle(sent)
    chains: dict[str, MeterChain] = {}
    tally, taken = Tally(), 0
    for record in sent:
        known = chains.setdefault(record.meter, MeterChain())
        if known.take(record.number, record.digest) is Taken.NEW:
            taken += 1
            post_usage(record, TERMS[("r1", 1)], "ann", tally)
    assert taken == len(records)
    assert tally.total_micros == _oracle(records)
    assert all(not known.gaps() for known in chains.values())


@pytest.mark.parametrize(
    ("record", "why", "billed"),
    [
        (RECORD, None, 5),
        (replace(RECORD, terms=2), NotBilled.NO_TERMS, 0),
        (replace(RECORD, reservation="r2"), NotBilled.NO_TERMS, 0),
        (replace(RECORD, cloudlet="c2"), NotBilled.NO_TERMS, 0),
        (replace(RECORD, kind=Meter.VI_TIME, quantity=3000), None, 3000),
        (replace(RECORD, kind=Meter.VI_TIME, quantity=4000), NotBilled.TOO_MANY, 3000),
    ],
)
def test_what_is_not_billed_has_a_reason(
    record: UsageRecord, why: NotBilled | None, billed: int
) -> None:
    """Always in the tenant's favour; more VIs than reserved cost what is reserved."""
    agreed = TERMS.get((record.reservation, record.terms))
    assert why_not_billed(record, agreed) is why
    assert sum(quantity for _, quantity, _ in items_of(record, agreed)) == billed


@pytest.mark.parametrize(("over", "is_billed"), [(SLACK_MS, True), (SLACK_MS + 1, False)])
def test_what_reaches_out_of_the_slot_is_not_billed(over: int, is_billed: bool) -> None:
    """Clocks differ by a little; more is evidence."""
    agreed = terms(slot=Slot(HOUR_MS, 2 * HOUR_MS))
    for begin, end in (
        (HOUR_MS - over, HOUR_MS + 1),
        (2 * HOUR_MS - 1, 2 * HOUR_MS + over),
    ):
        record = replace(RECORD, begin_ms=begin, end_ms=end)
        assert bool(items_of(record, agreed)) is is_billed
        assert why_not_billed(record, agreed) is (None if is_billed else NotBilled.OUTSIDE)


def test_a_posting_is_between_two_accounts() -> None:
    """From an account to itself, or more than money, is none."""
    Posting("tenant/ann", RECEIPTS, MAX_MICROS, "x")
    with pytest.raises(InvalidValueError, match="another account"):
        Posting("tenant/ann", "tenant/ann", 1, "x")
    with pytest.raises(InvalidValueError, match="micros"):
        Posting("tenant/ann", RECEIPTS, MAX_MICROS + 1, "x")


def _bills(records: list[UsageRecord], cuts: list[int]) -> list[tuple[Bill, list[UsageRecord]]]:
    """Return bills of successive parts of the records."""
    result: list[tuple[Bill, list[UsageRecord]]] = []
    before: dict[Item, int] = {}
    last = None
    edges = [0, *sorted(cuts), len(records)]
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        part = records[first:end]
        period = (number * HOUR_MS, (number + 1) * HOUR_MS)
        bill = make_bill("ann", period, EUR, part, TERMS, last, before)
        assert verify(bill, part, TERMS, last, before) == []
        for line in bill.lines:
            before[line.item] = line.before + line.quantity
        result.append((bill, part))
        last = bill
    return result


@given(st.integers(0, 10**6), st.lists(st.integers(0, 30), max_size=4))
@settings(max_examples=40)
def test_all_bills_together_charge_what_all_usage_costs(seed: int, cuts: list[int]) -> None:
    """However the records are spread over bills; rounding is a posting of its own."""
    chance = random.Random(seed)
    records = chain(chance, 30)
    chance.shuffle(records)
    bills = [bill for bill, _ in _bills(records, cuts)]
    assert sum(bill.exact_micros for bill in bills) == _oracle(records)
    tally = Tally()
    found = [post_usage(record, TERMS[("r1", 1)], "ann", tally) for record in records]
    postings = [one for one in found if one is not None]
    postings += [one for bill in bills if (one := bill.rounding) is not None]
    result = balances(postings)
    assert sum(result.values()) == 0
    assert result.get("tenant/ann", 0) == sum(bill.total_micros for bill in bills)
    assert -result.get(ROUNDING, 0) == sum(b.total_micros - b.exact_micros for b in bills)
    assert all(bill.total_micros == to_minor(bill.exact_micros, EUR) for bill in bills)


def test_a_bill_that_was_changed_anywhere_does_not_verify() -> None:
    """The finding says what differs."""
    records = chain(random.Random(3), 40)
    (first, _), (bill, part) = _bills(records, [20])
    before = {line.item: line.quantity for line in first.lines}
    line = next(one for one in bill.lines if one.quantity and one.before)
    others = tuple(one for one in bill.lines if one is not line)
    name, version, digest = bill.price_lists[0]
    wrong = {
        "quantity: the bill says": replace(bill, lines=(*others, replace(line, quantity=1))),
        "micros: the bill says": replace(bill, lines=(*others, replace(line, micros=1))),
        "before: the bill says": replace(bill, lines=(*others, replace(line, before=0))),
        "is missing on the bill": replace(bill, lines=others),
        "two lines": replace(bill, lines=(*bill.lines, line)),
        "follows from no record": replace(
            bill, lines=(*bill.lines, replace(line, item=("r9", "c1", 1, "chunks", 0)))
        ),
        "total: the bill says": replace(bill, total_micros=bill.total_micros + 10_000),
        "sum of the lines": replace(bill, exact_micros=bill.exact_micros + 1),
        "does not follow": replace(bill, previous=FIRST_PREVIOUS),
        "other price lists": replace(bill, price_lists=((name, version + 1, digest),)),
        "other records": replace(bill, records=(replace(bill.records[0], digest=FIRST_PREVIOUS),)),
    }
    for text, forged in wrong.items():
        findings = verify(forged, part, TERMS, first, before)
        assert any(text in finding for finding in findings), (text, findings)
        assert forged.digest != bill.digest
    findings = verify(bill, part[1:], TERMS, first, before)
    assert any("the bill has 20 records, there are 19" in finding for finding in findings)
    agreed = {("r1", 1): terms(count=4)}
    assert verify(bill, part, agreed, first, before) == []
    assert verify(bill, part, {}, first, before)


@pytest.mark.parametrize(("second_ms", "is_twice"), [(0, True), (999, True), (1000, False)])
def test_time_that_two_meters_count_does_not_verify(second_ms: int, is_twice: bool) -> None:
    """Each record alone keeps to the terms; together they have more VIs than were agreed on."""
    (one,) = chain(random.Random(0), 1)
    first = replace(one, kind=Meter.VI_TIME, begin_ms=0, end_ms=1000, quantity=2000)
    again = replace(first, meter="m2", begin_ms=second_ms, end_ms=second_ms + 1000)
    records = [again, first]
    bill = make_bill("ann", (0, HOUR_MS), EUR, records, TERMS)
    findings = verify(bill, records, TERMS)
    assert bool(findings) is is_twice
    if is_twice:
        assert f"at {second_ms} 4 VIs on c1 are counted, and 3 were agreed on" in findings[0]


@pytest.mark.parametrize("field", ["number", "begin_ms", "exact_micros", "total_micros"])
def test_a_bill_has_integers(field: str) -> None:
    """Floats and bools are refused."""
    bill = make_bill("ann", (0, 1), EUR, [], TERMS)
    for wrong in (1.0, True, math.nan, 1 << 70):
        with pytest.raises(InvalidValueError, match=field):
            replace(bill, **{field: wrong})
    with pytest.raises(InvalidValueError, match="end_ms"):
        replace(bill, end_ms=0)
