"""Output buffers: lent, given back, capped."""

from __future__ import annotations

import pytest

from packetcloud.services.buffers import SMALLEST_BUFFER_BYTES, BufferPool
from packetcloud.services.errors import ServiceMisuseError


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 65536, 65537])
def test_a_buffer_has_room_for_what_was_asked(count: int) -> None:
    """Sizes are powers of two of 4 KiB at least."""
    buffer = BufferPool(1 << 20).take(count)
    assert len(buffer) >= max(count, SMALLEST_BUFFER_BYTES)
    assert len(buffer).bit_count() == 1


def test_a_returned_buffer_is_lent_again() -> None:
    """In a steady state nothing is allocated."""
    pool = BufferPool(1 << 20)
    first = pool.take(100_000)
    pool.give_back(first)
    assert pool.take(90_000) is first
    assert pool.allocated_count == 1


@pytest.mark.parametrize("count", [-1, 1001])
def test_a_request_outside_the_limit_is_the_services_mistake(count: int) -> None:
    """At the limit it is lent; beyond it nothing is allocated."""
    pool = BufferPool(1000)
    pool.take(1000)
    with pytest.raises(ServiceMisuseError, match=r"0\.\.1000"):
        pool.take(count)
    assert pool.allocated_count == 1


def test_idle_buffers_have_a_cap() -> None:
    """What comes back beyond the cap is freed."""
    pool = BufferPool(1 << 20, kept_bytes=8192)
    for buffer in [pool.take(4096) for _ in range(3)]:
        pool.give_back(buffer)
    assert pool.idle_bytes == 8192
