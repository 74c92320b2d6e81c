"""Keys that are known by heart: for how long, how many, and what makes them forgotten."""

from __future__ import annotations

from packetcloud.domain_controller.api import known_keys
from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.known_keys import MAX_KNOWN_COUNT, KnownKeys
from packetcloud.domain_controller.core.principals import Principal, Role

NOW_MS = 1_800_000_000_000
FAR_MS = NOW_MS + 10**9
SIGNER = Signer(Principal("acme", Role.TENANT), bytes(32))


def known(known_ms: int = 1000, ends_ms: int = FAR_MS) -> KnownKeys:
    """Know one key."""
    keys = KnownKeys(known_ms)
    keys.put("a", SIGNER, NOW_MS, ends_ms, keys.turn)
    return keys


def test_a_key_is_known_for_a_while() -> None:
    """From when the database was asked on, not longer; and not when the clock was set back."""
    keys = known()
    assert keys.get("a", NOW_MS) == keys.get("a", NOW_MS + 999) == SIGNER
    assert keys.get("a", NOW_MS + 1000) is keys.get("a", NOW_MS - 1) is None
    assert keys.get("b", NOW_MS) is None


def test_a_key_is_not_known_beyond_its_end() -> None:
    """A key that ends within the while is asked for again from its end on."""
    keys = known(ends_ms=NOW_MS + 300)
    assert keys.get("a", NOW_MS + 299) == SIGNER
    assert keys.get("a", NOW_MS + 300) is None


def test_what_was_read_before_a_change_is_not_known_after_it() -> None:
    """A thread asked the database, then the key was revoked, then the thread says what it read."""
    keys = known()
    turn = keys.turn
    keys.forget()
    assert keys.get("a", NOW_MS) is None
    keys.put("a", SIGNER, NOW_MS, FAR_MS, turn)
    assert keys.get("a", NOW_MS) is None
    keys.put("a", SIGNER, NOW_MS, FAR_MS, keys.turn)
    assert keys.get("a", NOW_MS) == SIGNER


def test_there_are_only_so_many() -> None:
    """At the cap all are known; one more, and it is the only one."""
    keys = KnownKeys(known_keys.KNOWN_MS)
    for number in range(MAX_KNOWN_COUNT):
        keys.put(f"{number}", SIGNER, NOW_MS, FAR_MS, keys.turn)
    keys.put("0", SIGNER, NOW_MS, FAR_MS, keys.turn)
    assert len(keys) == MAX_KNOWN_COUNT
    keys.put("more", SIGNER, NOW_MS, FAR_MS, keys.turn)
    assert len(keys) == 1 and keys.get("more", NOW_MS) == SIGNER
