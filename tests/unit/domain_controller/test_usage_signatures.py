"""Signatures of usage records: each way in which one is wrong is told by the record's name."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.core.usage import RECORD_SIGNING, RecordSignature
from packetcloud.domain_controller.usage_signatures import MAX_NAMED_COUNT, wrong_signatures
from tests.unit.domain_controller.core.usage_records import chain, changed

CLOUDLET = Identity(bytes(32))
OTHER = Identity(b"\1" * 32)
KEYS = {"c1": {CLOUDLET.public_key}}
RECORDS = chain(random.Random(1), 3)


def _signed(identity: Identity = CLOUDLET) -> dict[bytes, RecordSignature]:
    return {
        one.digest: RecordSignature(
            identity.public_key, identity.sign(RECORD_SIGNING, one.to_bytes())
        )
        for one in RECORDS
    }


def test_what_the_cloudlet_signed_is_right() -> None:
    assert wrong_signatures(RECORDS, _signed(), KEYS) == []


def test_a_record_that_was_changed_is_told() -> None:
    """Also when its signature is put beside it again."""
    second = changed(RECORDS[1])
    records = [RECORDS[0], second, RECORDS[2]]
    (text,) = wrong_signatures(records, _signed(), KEYS)
    assert text == "record c1/m1/2: it is not signed"
    moved = _signed() | {second.digest: _signed()[RECORDS[1].digest]}
    (text,) = wrong_signatures(records, moved, KEYS)
    assert text.startswith("record c1/m1/2: its signature is of something else")


@pytest.mark.parametrize("bit", [0, 255, 511])
def test_a_signature_that_was_changed_is_told(bit: int) -> None:
    signatures = _signed()
    right = signatures[RECORDS[2].digest]
    wrong = bytearray(right.signature)
    wrong[bit // 8] ^= 1 << bit % 8
    signatures[RECORDS[2].digest] = replace(right, signature=bytes(wrong))
    (text,) = wrong_signatures(RECORDS, signatures, KEYS)
    assert text.startswith("record c1/m1/3: its signature is of something else")


def test_another_key_is_told() -> None:
    """Whoever makes up records can sign them, but not as the cloudlet; nobody's key is trusted."""
    found = wrong_signatures(RECORDS, _signed(OTHER), KEYS)
    assert len(found) == 3 and all("no key of this cloudlet" in text for text in found)
    assert len(wrong_signatures(RECORDS, _signed(), {})) == 3


def test_many_that_are_wrong_are_counted() -> None:
    records = chain(random.Random(2), MAX_NAMED_COUNT + 5)
    found = wrong_signatures(records, {}, KEYS)
    assert len(found) == MAX_NAMED_COUNT + 1
    assert found[-1] == "5 more records of c1 are not proven to be its own"
