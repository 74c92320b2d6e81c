"""The messages of a file transfer, and the names under which files are stored."""

from __future__ import annotations

import random

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.host.file_format import (
    Answer,
    AnswerState,
    Data,
    Finish,
    Message,
    Offer,
    data_header,
    decode_message,
)
from packetcloud.host.file_names import MAX_STORED_BYTES, other_names, stored_name
from tests.unit.host.file_ids import ID, KEY

# messages

MESSAGES: list[Message] = [
    Offer(ID, 1, KEY, 0, "name"),
    Offer(ID, 7, KEY, (1 << 40) + 5, "übel \udcff.bin", resume=True),
    Finish(ID, 3, 77, b"d" * 32),
    Answer(ID, 3, AnswerState.WANTED, 5, missing=((0, 5), (7, 1 << 41))),
    Answer(ID, 3, AnswerState.COMPLETE, 5, b"d" * 32, "name-1"),
    Answer(ID, 0, AnswerState.FAILED, text="disk_full: none"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive_encoding(message: Message) -> None:
    """What is encoded is decoded, and every truncation is a ProtocolError."""
    assert not isinstance(message, Data)
    data = message.to_bytes()
    assert decode_message(memoryview(data)) == message
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            decode_message(memoryview(data[:length]))


def test_data_message() -> None:
    """The header is laid before the bytes; an empty piece is no message."""
    payload = data_header(ID, 1 << 33) + b"abc"
    message = decode_message(memoryview(payload))
    assert isinstance(message, Data)
    assert (message.offset, bytes(message.data)) == (1 << 33, b"abc")
    with pytest.raises(ProtocolError):
        decode_message(memoryview(data_header(ID, 0)))


def test_any_bytes_give_a_message_or_one_error() -> None:
    """Random bytes and bit flips: a value or ProtocolError, nothing else; flips never crash."""
    rng = random.Random(2)
    seeds = [m.to_bytes() for m in MESSAGES if not isinstance(m, Data)]
    seeds.append(data_header(ID, 5) + b"abc")
    for round_number in range(20_000):
        data = bytearray(rng.choice(seeds))
        if round_number % 3 == 0:
            data = bytearray(rng.randbytes(rng.randrange(120)))
        else:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            message = decode_message(memoryview(data))
        except ProtocolError:
            continue
        if not isinstance(message, Data):
            assert message.to_bytes() == bytes(data)


# names


@pytest.mark.parametrize(
    ("offered", "stored"),
    [
        ("report.txt", "report.txt"),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("/", "file"),
        ("a/..", "file"),
        (".bashrc", "_bashrc"),
        (".report.txt.abc.part", "_report.txt.abc.part"),
        ("...x", "_x"),
        ("a\x00b\nc\x1b[31m", "abc[31m"),
        ("inv\u202eexe.txt", "invexe.txt"),
        ("  spaced  ", "spaced"),
        ("bad\udcffbyte", "bad_byte"),
        ("ü.txt", "ü.txt"),
        ("folder/", "folder"),
    ],
)
def test_stored_names_are_harmless(offered: str, stored: str) -> None:
    """No path, no hidden file, no control character; and a stored name stays as it is."""
    assert stored_name(offered) == stored
    assert stored_name(stored) == stored


def test_stored_names_of_anything() -> None:
    """Random text: a single, short, visible name every time, and stable."""
    rng = random.Random(3)
    alphabet = "ab./\\\x00\u202e\udcff é漢" + "\u0301"
    for _ in range(3000):
        name = stored_name("".join(rng.choice(alphabet) for _ in range(rng.randrange(300))))
        assert name
        assert "/" not in name
        assert "\x00" not in name
        assert not name.startswith(".")
        assert len(name.encode()) <= MAX_STORED_BYTES
        assert stored_name(name) == name


def test_long_names_keep_their_suffix() -> None:
    """A name too long for the disk loses its middle."""
    name = stored_name("ä" * 300 + ".tar")
    assert name.endswith(".tar")
    assert len(name.encode()) <= MAX_STORED_BYTES


def test_other_names_count_up_before_the_suffix() -> None:
    """A taken name gets a number, in front of its suffix."""
    names = other_names("a.txt")
    assert [next(names) for _ in range(3)] == ["a.txt", "a-1.txt", "a-2.txt"]
    names = other_names("Makefile")
    assert [next(names) for _ in range(2)] == ["Makefile", "Makefile-1"]
