"""Damage in the files of a spool costs what it hits: nothing altered or planted comes back."""

from __future__ import annotations

import random

import pytest

from packetcloud.router.chunk_log import KEY_NAME, REMOVED_NAME
from packetcloud.router.chunk_record import NUMBERS_COUNT, Record
from packetcloud.router.errors import DamagedRecordError
from tests.unit.router.chunk_records import chunk, opened, record
from tests.unit.router.forgetful_storage import ForgetfulStorage


def test_a_record_or_head_that_was_damaged_anywhere_costs_itself_and_nothing_else() -> None:
    """A flipped bit at every offset of three records: at most one is lost, none is altered."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number, 40)])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    good = bytes(storage.files[name])
    rng = random.Random(5)
    for offset in range(len(good)):
        flipped = bytearray(good)
        flipped[offset] ^= 1 << rng.randrange(8)
        storage.files[name] = flipped
        hurt = 0
        for number in (1, 2, 3):
            try:
                assert log.read(number) == chunk(number, 40)
            except DamagedRecordError:
                hurt += 1
        assert hurt == 1
        copy = ForgetfulStorage()
        copy.files = {key: bytearray(value) for key, value in storage.files.items()}
        again, found = opened(copy)
        assert len(found) == 2 and again.damaged_count >= 1
        assert all(again.read(number) == chunk(number, 40) for number in found)


def test_a_file_that_was_cut_anywhere_keeps_the_records_before() -> None:
    """Truncation at every offset: whole records are there, a torn one is not."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    ends = []
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number, 40)])
        ends.append(log.live_bytes)
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    good = bytes(storage.files[name])
    for size in range(len(good) + 1):
        copy = ForgetfulStorage()
        copy.files = {name: bytearray(good[:size]), KEY_NAME: storage.files[KEY_NAME]}
        _, found = opened(copy)
        assert found == [number for number, end in zip((1, 2, 3), ends, strict=True) if end <= size]


def planted(number: int) -> bytes:
    """A whole, right record of somebody who has no key but his own."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(Record(number, 1, NUMBERS_COUNT), [b"pay Mallory" * 10])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    return bytes(storage.files[name])


@pytest.mark.parametrize("hurt", ["the head", "the content", "torn"])
def test_a_record_inside_of_a_payload_never_becomes_one(hurt: str) -> None:
    """Whatever is damaged around it: a host's bytes are no record, whichever number they bear."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(1), [chunk(1)])
    evil = b"".join(map(planted, (77, NUMBERS_COUNT - 1))) * 2
    start = log.live_bytes
    log.put(record(2), [chunk(2, 40), evil, bytes(900)])
    log.put(record(3), [chunk(3)])
    [name] = [name for name in storage.files if name.startswith("chunks-")]
    if hurt == "torn":
        del storage.files[name][start + 1000 :]
    else:
        storage.files[name][start + (20 if hurt == "the head" else 70)] ^= 4
    again, found = opened(storage)
    assert found == ([1] if hurt == "torn" else [1, 3]) and again.damaged_count
    again.put(record(4), [chunk(4)])
    assert opened(storage)[1] == [*found, 4]


@pytest.mark.parametrize("loss", ["gone", "damaged", "cut"])
def test_a_folder_that_lost_its_key_is_not_taken_for_an_empty_one(loss: str) -> None:
    """Nothing is thrown away that a key from a backup would bring back."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    log.put(record(1), [chunk(1)])
    key = bytes(storage.files[KEY_NAME])
    if loss == "gone":
        del storage.files[KEY_NAME]
    else:
        storage.files[KEY_NAME] = bytearray(b"x" + key[1:] if loss == "damaged" else key[:-1])
    with pytest.raises(OSError, match="'key' is damaged or gone"):
        opened(storage)
    storage.files[KEY_NAME] = bytearray(key)
    assert opened(storage)[1] == [1]


def test_damage_in_the_list_of_the_removed_brings_back_but_alters_nothing() -> None:
    """A removal whose checksum is wrong is counted; its chunk is found again, which is allowed."""
    storage = ForgetfulStorage()
    log, _ = opened(storage)
    for number in (1, 2, 3):
        log.put(record(number), [chunk(number)])
    log.remove([1, 2])
    storage.files[REMOVED_NAME][3] ^= 1
    again, found = opened(storage)
    assert found == [1, 3] and again.damaged_count == 1
