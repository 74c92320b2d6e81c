"""Reasons: numbers that never change their meaning, and a word for each."""

from __future__ import annotations

from packetcloud.chunk.reasons import Reason, reason_word

NUMBERS = {
    1: "unknown_sid",
    2: "unresolvable_guid",
    3: "hop_limit",
    4: "service_failed",
    5: "deadline_passed",
    6: "payload_too_large",
    7: "dropped_by_service",
    8: "malformed",
    9: "unsupported",
    10: "not_authorised",
    11: "store_full",
    12: "neighbour_lost",
    13: "shutting_down",
    14: "digest_mismatch",
    15: "cancelled",
    16: "receiver_refused",
}


def test_numbers_are_never_re_used() -> None:
    """Peers of other versions rely on the numbers: new ones may join, none may move."""
    known = {int(reason): reason.word for reason in Reason}
    assert {number: known[number] for number in NUMBERS} == NUMBERS
    assert all(1 <= number <= 255 for number in known), "0 means no reason; the field has one byte"


def test_a_word_for_every_number() -> None:
    """A reason that a newer peer knows and we do not still reads well and never raises."""
    assert reason_word(3) == "hop_limit"
    assert reason_word(0) == "reason_0"
    assert reason_word(255) == "reason_255"
