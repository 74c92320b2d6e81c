"""The key file of secure-communication, and the keys of a service that runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.secure_communication import key_ring, keys
from packetcloud.services.secure_communication.key_ring import KeyRing
from packetcloud.services.secure_communication.keys import (
    RETIRE_AFTER_S,
    ServiceKey,
    create_key_file,
    key_in_use,
    load_key_file,
    retire_key,
    rotate_key_file,
)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    create_key_file(path)
    return path


def ring_of(path: Path, wall_s: float = 1e9) -> KeyRing[ServiceKey]:
    return KeyRing(path, lambda key: key, 0.0, wall_s)


def in_use(ring: KeyRing[ServiceKey]) -> int:
    assert ring.in_use is not None
    return ring.in_use[0]


# The file


def test_the_suites_share_no_key(key_file: Path) -> None:
    """Derived apart, so that a weakness of one says nothing about the other."""
    (key,) = load_key_file(key_file)
    assert key.derive("aes-128-cbc", 16) != key.derive("aes-256-gcm", 32)[:16]
    assert key.derive("aes-256-gcm", 32) != key.derive("xaes-256-gcm", 32) != key.master
    assert key.master.hex() not in repr(key)


def test_a_key_may_be_for_later(key_file: Path) -> None:
    """It is in the file at once, for who decrypts; who encrypts waits for its time."""
    (first,) = load_key_file(key_file)
    before_s = time.time()
    second = rotate_key_file(key_file, 60.0)
    assert load_key_file(key_file) == [first, second]
    assert second.not_before_s is not None
    assert before_s + 59 <= second.not_before_s <= time.time() + 60
    assert key_in_use([first, second], second.not_before_s - 0.1) == first
    assert key_in_use([first, second], second.not_before_s) == second
    assert key_in_use([second], second.not_before_s - 0.1) is None


def test_a_file_with_times_is_of_a_format_of_its_own(key_file: Path) -> None:
    """Who does not know times would encrypt at once with what others do not have yet."""
    assert json.loads(key_file.read_text())["format"] == "packetcloud-service-keys-1"
    rotate_key_file(key_file)
    assert json.loads(key_file.read_text())["format"] == "packetcloud-service-keys-1"
    rotate_key_file(key_file, 60.0)
    assert json.loads(key_file.read_text())["format"] == "packetcloud-service-keys-2"


def test_a_key_is_retired_when_nothing_bears_it_any_more(key_file: Path) -> None:
    """Not while it is in use or to come, nor for ten minutes after; unless somebody insists."""
    (first,) = load_key_file(key_file)
    second = rotate_key_file(key_file, 60.0)
    began_s = second.began_s
    for key, at_s in ((first, began_s - 1), (second, began_s - 1), (second, began_s + 1e6)):
        for at_once in (False, True):
            with pytest.raises(ServiceConfigError, match="is in use, or will be"):
                retire_key(key_file, key.key_id, at_s, at_once=at_once)
    with pytest.raises(ServiceConfigError, match=r"may be on their way until .*--at-once"):
        retire_key(key_file, first.key_id, began_s + RETIRE_AFTER_S - 1)
    with pytest.raises(ServiceConfigError, match=rf"no key 00000001; it has {first.key_id:08x}, "):
        retire_key(key_file, 1, began_s)
    assert load_key_file(key_file) == [first, second]
    retire_key(key_file, first.key_id, began_s + RETIRE_AFTER_S)
    assert load_key_file(key_file) == [second]
    third = rotate_key_file(key_file)
    retire_key(key_file, second.key_id, time.time() + 61, at_once=True)
    assert load_key_file(key_file) == [third]


def test_the_key_file_is_private_and_never_overwritten(key_file: Path) -> None:
    """Who loses a key loses what it encrypted."""
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ServiceConfigError, match="key rotate"):
        create_key_file(key_file)


def test_the_key_file_keeps_a_limited_number_of_keys(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the cap the oldest goes."""
    monkeypatch.setattr(keys, "MAX_KEYS_COUNT", 3)
    (first,) = load_key_file(key_file)
    for _ in range(2):
        rotate_key_file(key_file)
    assert first in load_key_file(key_file)
    rotate_key_file(key_file)
    assert len(load_key_file(key_file)) == 3
    assert first not in load_key_file(key_file)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"format": "other", "keys": []}',
        '{"format": "packetcloud-service-keys-1", "keys": []}',
        '{"format": "packetcloud-service-keys-1", "keys": [{"id": "0", "key": "00"}]}',
        '{"format": "packetcloud-service-keys-1", "keys": "xy"}',
        '{"format": "packetcloud-service-keys-2", "keys": [{"id": "0", "key": "00", '
        '"created": "", "not_before": "soon"}]}',
    ],
)
def test_a_damaged_key_file_is_refused_by_name(key_file: Path, damage: str) -> None:
    """Never a traceback, whatever the file holds."""
    key_file.write_text(damage)
    with pytest.raises(ServiceConfigError, match=r"keys\.json is not a service key file"):
        load_key_file(key_file)


def test_a_flipped_digit_of_a_key_is_noticed(key_file: Path) -> None:
    """The id is a hash of the key."""
    record = json.loads(key_file.read_text())
    text = record["keys"][0]["key"]
    record["keys"][0]["key"] = ("0" if text[0] != "0" else "1") + text[1:]
    key_file.write_text(json.dumps(record))
    with pytest.raises(ServiceConfigError, match="is damaged"):
        load_key_file(key_file)


def test_a_key_file_that_others_can_read_is_refused(key_file: Path, tmp_path: Path) -> None:
    """And a missing one says how to make it."""
    key_file.chmod(0o640)
    with pytest.raises(ServiceConfigError, match="mode 0640"):
        load_key_file(key_file)
    with pytest.raises(ServiceConfigError, match="service key create"):
        load_key_file(tmp_path / "none")
    with pytest.raises(ServiceConfigError, match="cannot write"):
        create_key_file(tmp_path / "none" / "keys.json")


# The keys of a service that runs


def test_a_running_service_notices_a_new_key(key_file: Path) -> None:
    """The file is looked at once a second at most; damaged, the old keys stay in use."""
    ring = ring_of(key_file)
    first = in_use(ring)
    ring.refresh(10.0, 1e9)
    added = rotate_key_file(key_file)
    ring.refresh(10.5, 1e9)
    assert in_use(ring) == first
    ring.refresh(11.1, 1e9)
    assert in_use(ring) == added.key_id
    assert ring.get(first, 11.1, 1e9) is not None
    assert ring.get(12345, 11.1, 1e9) is None
    key_file.write_text("{")
    ring.refresh(13.0, 1e9)
    assert in_use(ring) == added.key_id
    key_file.unlink()
    ring.refresh(15.0, 1e9)
    assert in_use(ring) == added.key_id


def test_a_key_comes_into_use_by_the_clock(key_file: Path) -> None:
    """Without any change of the file; until then it decrypts. A clock that goes back takes the
    older key again."""
    (first,) = load_key_file(key_file)
    second = rotate_key_file(key_file, 60.0)
    ring = ring_of(key_file, second.began_s - 5)
    assert in_use(ring) == first.key_id
    assert ring.get(second.key_id, 0.0, second.began_s - 5) == second
    ring.refresh(5.0, second.began_s)
    assert in_use(ring) == second.key_id
    ring.refresh(7.0, second.began_s - 3)
    assert in_use(ring) == first.key_id


def test_an_unknown_key_is_looked_for_at_once(key_file: Path) -> None:
    """Its file may have come a moment ago; and no more than 20 times a second."""
    ring = ring_of(key_file)
    ring.refresh(10.0, 1e9)
    added = rotate_key_file(key_file)
    assert ring.get(added.key_id, 10.01, 1e9) is None
    assert ring.get(added.key_id, 10.06, 1e9) == added


def test_keys_that_are_retired_decrypt_no_more(key_file: Path) -> None:
    """As soon as the file without them is there."""
    (first,) = load_key_file(key_file)
    rotate_key_file(key_file)
    ring = ring_of(key_file)
    assert ring.get(first.key_id, 0.0, 1e9) == first
    retire_key(key_file, first.key_id, time.time() + 1, at_once=True)
    ring.refresh(2.0, 1e9)
    assert ring.get(first.key_id, 2.0, 1e9) is None


def test_a_key_file_that_is_open_to_others_is_loaded_when_it_is_not(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Copied with mode 0644, then `chmod 600`: its content and time are those that were refused.
    The refusal is logged once."""
    ring = ring_of(key_file)
    added = rotate_key_file(key_file)
    key_file.chmod(0o644)
    for now in (2.0, 4.0, 6.0):
        ring.refresh(now, 1e9)
    assert in_use(ring) != added.key_id
    assert caplog.text.count("open to others") == 1
    key_file.chmod(0o600)
    ring.refresh(8.0, 1e9)
    assert in_use(ring) == added.key_id


def test_a_key_file_that_could_not_be_read_is_tried_again(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it does not change any more: too many files were open when it was looked at."""
    ring = ring_of(key_file)
    added = rotate_key_file(key_file)

    def too_many(_: Path) -> list[ServiceKey]:
        raise ServiceConfigError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(key_ring, "load_key_file", too_many)
        for now in (2.0, 4.0):
            ring.refresh(now, 1e9)
    assert caplog.text.count("too many open files") == 1
    ring.refresh(6.0, 1e9)
    assert in_use(ring) == added.key_id
