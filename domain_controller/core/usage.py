"""Usage records: numbered by their meter, chained by digests, the same for whoever computes them.

Source: docs/decisions/0015-domain-controller.md; docs/reference/usage-records.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from packetcloud.domain_controller.core.checks import (
    MAX_TIME_MS,
    check_digest,
    check_integer,
    check_name,
    check_time,
    check_type,
    shown,
)
from packetcloud.domain_controller.core.cloudlets import MAX_SEQUENCE, MAX_VIS_COUNT
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.slots import HOUR_MS
from packetcloud.domain_controller.errors import InvalidValueError, UsageError

FIRST_PREVIOUS = bytes(32)
"""What the first record of a meter names as the digest before it."""
MAX_QUANTITY = (1 << 53) - 1
"""Of one record: 9 PB, or 1 000 VIs for 285 years."""
MAX_RECORD_MS = HOUR_MS
"""A record covers at most so long: what an open one lost at a crash is no more than this."""
MAX_GAPS_COUNT = 4096
"""Gaps of one meter that are told; a meter with more is broken."""
RECORD_SIGNING = b"packetcloud usage record 1"
"""The domain of a record's signature, which is over its canonical form; see `chunk.identity`."""
_FORMAT = "packetcloud usage 1"


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What one meter counted for one reservation between two times."""

    cloudlet: str
    meter: str
    """Of this reservation alone; a meter that lost what it counted goes on under a new name."""
    number: int
    """1, 2, 3, ... of this meter."""
    previous: bytes
    """The digest of the record before it."""
    reservation: str
    terms: int
    """The number of the terms under which this was used."""
    kind: Meter
    begin_ms: int
    end_ms: int
    quantity: int
    """VI time: VIs times milliseconds, the same number of VIs all the time."""

    def __post_init__(self) -> None:
        # One expression for the many records that are right; which field is wrong is looked for
        # after that.
        if not (
            type(self.number) is type(self.terms) is type(self.quantity) is int
            and type(self.begin_ms) is type(self.end_ms) is int
            and type(self.previous) is bytes
            and type(self.kind) is Meter
            and 1 <= self.number <= MAX_SEQUENCE
            and 1 <= self.terms <= MAX_SEQUENCE
            and 0 <= self.quantity <= MAX_QUANTITY
            and 0 <= self.begin_ms < self.end_ms <= MAX_TIME_MS
            and self.end_ms - self.begin_ms <= MAX_RECORD_MS
            and len(self.previous) == 32
            and (self.kind is not Meter.VI_TIME or self._is_whole)
        ):
            self._explain()
        for field, name in (
            ("cloudlet", self.cloudlet),
            ("meter", self.meter),
            ("reservation", self.reservation),
        ):
            if name not in _known_names:
                check_name(f"record.{field}", name)
                if len(_known_names) >= _MAX_KNOWN_NAMES:
                    _known_names.clear()
                _known_names.add(name)

    @property
    def vis(self) -> int:
        """VI time: how many VIs there were."""
        return self.quantity // (self.end_ms - self.begin_ms)

    def to_bytes(self) -> bytes:
        """Return the canonical form, of which the digest is made and which is signed: lines."""
        return (
            f"{_FORMAT}\n{self.cloudlet}\n{self.meter}\n{self.number}\n{self.previous.hex()}\n"
            f"{self.reservation}\n{self.terms}\n{self.kind.value}\n{self.begin_ms}\n"
            f"{self.end_ms}\n{self.quantity}\n"
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> UsageRecord:
        """Read the canonical form; anything else, a digit or blank too many, is refused.

        Raises:
            UsageError: it is not the canonical form of a record.
        """
        try:
            lines = data.decode("ascii").split("\n")
            (form, cloudlet, meter, number, previous, reservation, terms, kind, begin, end,
             quantity, rest) = lines  # fmt: skip
            record = cls(
                cloudlet,
                meter,
                _integer(number),
                bytes.fromhex(previous),
                reservation,
                _integer(terms),
                Meter(kind),
                _integer(begin),
                _integer(end),
                _integer(quantity),
            )
        except (ValueError, InvalidValueError) as error:
            raise UsageError(f"not a usage record: {error}"[:300]) from None
        if form != _FORMAT or rest or record.to_bytes() != data:
            raise UsageError("not the canonical form of a usage record")
        return record

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form."""
        return sha256(self.to_bytes()).digest()

    @property
    def _is_whole(self) -> bool:
        vis, rest = divmod(self.quantity, self.end_ms - self.begin_ms)
        return not rest and vis <= MAX_VIS_COUNT

    def _explain(self) -> None:
        """Name the field that is wrong.

        Raises:
            InvalidValueError: always.
        """
        check_integer("record.number", self.number, 1, MAX_SEQUENCE)
        check_digest("record.previous", self.previous)
        check_integer("record.terms", self.terms, 1, MAX_SEQUENCE)
        check_type("record.kind", self.kind, Meter, ", ".join(meter.value for meter in Meter))
        check_time("record.begin_ms", self.begin_ms)
        check_time("record.end_ms", self.end_ms)
        most = self.begin_ms + MAX_RECORD_MS
        check_integer("record.end_ms", self.end_ms, self.begin_ms + 1, most)
        check_integer("record.quantity", self.quantity, 0, MAX_QUANTITY)
        allowed = f"VI time: a number of VIs, at most {MAX_VIS_COUNT}, times the milliseconds"
        raise InvalidValueError("record.quantity", shown(self.quantity), allowed)


@dataclass(frozen=True, slots=True)
class RecordSignature:
    """The proof that a cloudlet made a record."""

    public_key: bytes
    """Of the cloudlet, when it sent the record."""
    signature: bytes


_known_names: set[str] = set()
"""Names that were found to be names: a million records have few."""
_MAX_KNOWN_NAMES = 65_536


class Taken(StrEnum):
    """What became of a record that came in."""

    NEW = "new"
    AGAIN = "again"
    """The same one is there: nothing changes."""
    DIFFERENT = "different"
    """Another one with its number is there: evidence, kept and not billed."""
    REFUSED = "refused"
    """Its sender never had a place of the reservation, or the meter counts for another one."""


class MeterChain:
    """What came in of one meter, in any order. Digests are kept, not records."""

    def __init__(self, digests: Mapping[int, bytes] | None = None) -> None:
        self._digests = dict(digests or {})
        self._last = max(self._digests, default=0)

    def take(self, number: int, digest: bytes) -> Taken:
        """Take note of a record. Cost: O(1)."""
        known = self._digests.setdefault(number, digest)
        if known is not digest:
            return Taken.AGAIN if known == digest else Taken.DIFFERENT
        if number > self._last:
            self._last = number
        return Taken.NEW

    @property
    def last_number(self) -> int:
        """The highest number that came in; 0: none did."""
        return self._last

    def gaps(self, upto: int | None = None) -> list[tuple[int, int]]:
        """Return (first, last) of what is missing up to a number, the lowest first."""
        last = self._last if upto is None else upto
        if len(self._digests) == self._last and last <= self._last:
            return []
        found: list[tuple[int, int]] = []
        expected = 1
        for number in sorted([one for one in self._digests if one <= last] + [last + 1]):
            if number > expected:
                found.append((expected, number - 1))
                if len(found) >= MAX_GAPS_COUNT:
                    break
            expected = number + 1
        return found


@dataclass(frozen=True, slots=True)
class Break:
    """The first record of a chain that does not follow from those before it.

    `number` is that of the record; where one is missing, the number that is missing.
    """

    number: int
    text: str


def check_chain(
    records: Iterable[UsageRecord], previous: bytes = FIRST_PREVIOUS, number: int = 1
) -> Break | None:
    """Return the first break in records of one meter, in the order of their numbers; None: none.

    Args:
        records: they begin with `number`.
        previous: the digest of the record before that.
    """
    meter: tuple[str, str] | None = None
    for record in records:
        if meter is None:
            meter = (record.cloudlet, record.meter)
        if (record.cloudlet, record.meter) != meter:
            return Break(number, f"record of another meter: {record.cloudlet}/{record.meter}")
        if record.number != number:
            what = "missing" if record.number > number else "out of order, or there twice"
            return Break(number, f"record {number} is {what}; instead: {record.number}")
        if record.previous != previous:
            return Break(
                number,
                f"record {number} follows {record.previous.hex()[:16]}..., but the record before "
                f"it has {previous.hex()[:16]}...: one of the two was changed",
            )
        previous = record.digest
        number += 1
    return None


def _integer(text: str) -> int:
    if not text.isdecimal() or len(text) > 19:
        raise ValueError(f"{text[:20]!r} is not an integer")
    return int(text)
