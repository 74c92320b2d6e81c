"""Memory is given back where the C library has a call for it, and quietly not elsewhere."""

from __future__ import annotations

import gc
import platform
import weakref

import pytest

from packetcloud.router.rules import memory
from packetcloud.router.rules.memory import give_memory_back


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_garbage_is_collected_before_memory_is_given_back() -> None:
    """Or it would stay until the next change."""
    gc.disable()
    try:
        left = weakref.ref(_Cycle())
        asked: list[tuple[int, object]] = []

        def trim(kept_bytes: int) -> int:
            asked.append((kept_bytes, left()))
            return 1

        assert left() is not None
        assert give_memory_back(trim)
        assert asked == [(0, None)]
    finally:
        gc.enable()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_has_the_call() -> None:
    """On the machines that routers mostly run on."""
    assert give_memory_back()


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of that name, or no library to look into: nothing is said, nothing fails."""
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not give_memory_back()

    def refused(_: object) -> object:
        raise OSError("no library")

    monkeypatch.setattr(memory.ctypes, "CDLL", refused)
    assert not give_memory_back()
