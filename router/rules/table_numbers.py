"""Which rules of a table stand under what a chunk names: where an explanation begins.

`Table.ask` stops at what decides. This returns every rule whose names are the chunk's, whether or
not its other conditions hold. Not for the data plane: it is written for reading, not for speed.
"""

from __future__ import annotations

from collections.abc import Iterable

from packetcloud.router.rules.rule import Question
from packetcloud.router.rules.segment import Segment
from packetcloud.router.rules.segment_hash import HASH_MASK, SHIFT, Field, multipliers, name_of

_EXCHANGED = {Field.SOURCE: Field.DESTINATION, Field.DESTINATION: Field.SOURCE}


def numbers_of(segments: Iterable[Segment], question: Question) -> set[int]:
    """Return the numbers of the rules that name what the chunk has in each field that they name.

    Also of some that do not: those that list many names stand under a part of them.
    """
    fields: dict[Field, bytes | int] = {
        Field.SOURCE: question.source,
        Field.DESTINATION: question.destination,
        Field.SID: question.sid,
        Field.PAYLOAD_TYPE: question.payload_type,
        Field.INGRESS: question.ingress,
    }
    values = {field: _number(field, value) for field, value in fields.items()}
    exchanged = {field: values[_EXCHANGED.get(field, field)] for field in Field}
    numbers: set[int] = set()
    for segment in segments:
        factors = multipliers(segment.secret)
        for one in segment.tuples:
            named = [field for field in Field if one.mask >> field & 1]
            for way in (values, exchanged) if one.has_both else (values,):
                total = sum(factors[field] * way[field] for field in named)
                for word in one.words(total >> SHIFT & HASH_MASK):
                    numbers.update(found[1].number for found in segment.candidates(word))
    return numbers


def _number(field: Field, value: bytes | int) -> int:
    return int.from_bytes(name_of(field, value), "little")
