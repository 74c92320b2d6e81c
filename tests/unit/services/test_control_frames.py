"""Frames of the control link, and the state that travels in them."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.errors import ProtocolError
from packetcloud.services.control_frames import (
    MAX_JSON_BYTES,
    MAX_STATE_BYTES,
    PIECE_BYTES,
    FrameReader,
    encode_json,
    encode_state,
)
from packetcloud.services.state_transfer import StateIntake, announcement

MESSAGE = {"event": "status", "status": {"taken": 7}}


def test_frames_come_out_as_they_went_in_whatever_pieces_they_come_in() -> None:
    """Byte by byte or all at once, with what follows behind."""
    state = bytes(range(256)) * 1100
    wire = encode_json(MESSAGE) + b"".join(encode_state(state)) + encode_json({})
    expected = FrameReader().feed(wire)
    reader = FrameReader()
    one_by_one = [frame for i in range(len(wire)) for frame in reader.feed(wire[i : i + 1])]
    assert one_by_one == expected
    assert expected[0] == MESSAGE and expected[-1] == {}
    assert b"".join(frame for frame in expected if isinstance(frame, bytes)) == state


@given(st.binary(max_size=64))
def test_any_bytes_give_frames_or_exactly_one_error(data: bytes) -> None:
    """Nothing that a VI or a stranger sends raises anything else."""
    with contextlib.suppress(ProtocolError):
        FrameReader().feed(data)


def test_a_message_at_the_limit_passes_and_one_byte_more_is_refused() -> None:
    """Refused by its length, before any of it is kept."""
    padding = MAX_JSON_BYTES - len(encode_json({"a": ""})) + 5
    assert FrameReader().feed(encode_json({"a": "x" * padding})) == [{"a": "x" * padding}]
    too_long = encode_json({"a": "x" * (padding + 1)})
    with pytest.raises(ProtocolError, match="allowed: 1 to"):
        FrameReader().feed(too_long[:5])


def test_a_piece_at_the_limit_passes_and_one_byte_more_is_refused() -> None:
    """The same for pieces of a state."""
    (frame,) = encode_state(bytes(PIECE_BYTES))
    assert FrameReader().feed(frame) == [bytes(PIECE_BYTES)]
    longer = (PIECE_BYTES + 2).to_bytes(4, "big") + b"\x02"
    with pytest.raises(ProtocolError, match="allowed: 1 to"):
        FrameReader().feed(longer)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b"\x00\x00\x00\x02\x03x", "kind of frame 3"),
        (b"\x00\x00\x00\x00\x01", "a frame of 0 bytes"),
        (b"\x00\x00\x00\x03\x01[]", "a JSON object"),
        (b"\x00\x00\x00\x03\x01{x", "not JSON"),
    ],
)
def test_what_is_not_of_the_protocol_is_named(wire: bytes, words: str) -> None:
    """The text says what was wrong."""
    with pytest.raises(ProtocolError, match=words):
        FrameReader().feed(wire)


@pytest.mark.parametrize("count", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_state_arrives_whole(count: int) -> None:
    """Empty, and with one piece and two."""
    state = bytes(i % 251 for i in range(count))
    intake = StateIntake(announcement(state))
    for frame in encode_state(state):
        (piece,) = FrameReader().feed(frame)
        assert isinstance(piece, bytes)
        intake.add(piece)
    assert intake.is_complete and intake.state() == state


def test_a_state_that_is_not_the_announced_one_is_refused() -> None:
    """Altered, too short, too long."""
    announced = announcement(b"right")
    altered = StateIntake(announced)
    altered.add(b"wrong")
    with pytest.raises(ProtocolError, match="not the one"):
        altered.state()
    with pytest.raises(ProtocolError, match="not the one"):
        StateIntake(announced).state()
    with pytest.raises(ProtocolError, match="more than the 5 bytes"):
        StateIntake(announced).add(b"longer")


@pytest.mark.parametrize(
    "announced",
    [
        {},
        {"bytes": MAX_STATE_BYTES + 1, "sha256": "0" * 64},
        {"bytes": -1, "sha256": "0" * 64},
        {"bytes": True, "sha256": "0" * 64},
        {"bytes": 0, "sha256": "0"},
    ],
)
def test_what_announces_no_state_or_too_much_is_refused(announced: dict[str, object]) -> None:
    """Before a byte of it is kept."""
    with pytest.raises(ProtocolError):
        StateIntake(announced)


def test_the_largest_state_may_be_announced() -> None:
    """The limit itself is allowed."""
    digest = hashlib.sha256().hexdigest()
    assert not StateIntake({"bytes": MAX_STATE_BYTES, "sha256": digest}).is_complete
