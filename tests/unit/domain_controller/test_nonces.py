"""Nonces of requests that changed nothing: each once, until it is too old anyway; bounded."""

from __future__ import annotations

from packetcloud.domain_controller.api.nonces import RecentNonces


def test_a_nonce_is_taken_once() -> None:
    """By each key for itself, and again only when its request is too old."""
    nonces = RecentNonces()
    assert nonces.take("key-1", "nonce", 100)
    assert not nonces.take("key-1", "nonce", 100)
    assert nonces.take("key-2", "nonce", 100)
    assert nonces.has_room(99)
    assert not nonces.take("key-1", "nonce", 100)
    assert nonces.has_room(100)
    assert len(nonces) == 0


def test_nonces_have_a_cap() -> None:
    """At the cap there is no room for one more until the oldest are over."""
    nonces = RecentNonces(3)
    for number in range(3):
        assert nonces.has_room(0)
        assert nonces.take("key", f"nonce-{number}", 100 + number)
    assert not nonces.has_room(99)
    assert nonces.has_room(100)
    assert nonces.take("key", "nonce-3", 200)
    assert not nonces.has_room(100)


def test_one_caller_keeps_out_itself_alone() -> None:
    """At its own cap there is no room for it, by whichever key; there is for others."""
    nonces = RecentNonces(5, 2)
    for number in range(2):
        assert nonces.has_room(0, "acme")
        assert nonces.take(f"key-{number}", "nonce", 100, "acme")
    assert not nonces.has_room(99, "acme") and nonces.has_room(99, "bolt")
    assert nonces.has_room(100, "acme")


def test_one_that_ends_late_keeps_only_those_after_it() -> None:
    """They are forgotten together with it."""
    nonces = RecentNonces(3)
    nonces.take("key", "late", 300)
    nonces.take("key", "early", 100)
    assert nonces.has_room(100)
    assert len(nonces) == 2
    assert nonces.has_room(300)
    assert len(nonces) == 0
