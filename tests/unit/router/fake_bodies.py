"""Bodies in memory, with the rules of `chunk.hop.api` checked as they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class PlainBody:
    """A body without the checks of the fakes: many thousands of them are held."""

    flow = 0

    __slots__ = ("data",)

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def head(self, count: int) -> bytes:
        return bytes(self.data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        return memoryview(self.data)

    def look(self, at: Callable[[memoryview], Any]) -> Any:
        return at(self.contiguous())

    def release(self) -> None:
        pass


class FakeBody:
    """A received body that fails the test when it is used after its release."""

    flow = 0

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.is_released = False
        self.reader: object | None = None
        """Who sends it now: nobody may patch or send it meanwhile."""

    def __len__(self) -> int:
        return len(self.data)

    def head(self, count: int) -> bytes:
        self._check()
        return bytes(self.data[:count])

    def patch(self, offset: int, data: bytes) -> None:
        self._check()
        assert self.reader is None, "patched while the hop reads it"
        assert offset + len(data) <= min(1024, len(self.data))
        self.data[offset : offset + len(data)] = data

    def contiguous(self) -> memoryview:
        self._check()
        return memoryview(self.data)

    def look(self, at: Callable[[memoryview], Any]) -> Any:
        return at(self.contiguous())

    def release(self) -> None:
        assert not self.is_released, "released twice"
        assert self.reader is None, "released while the hop reads it"
        self.is_released = True

    def _check(self) -> None:
        assert not self.is_released, "used after its release"
