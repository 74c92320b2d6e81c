"""Laws of the WAN optimizer between two caches: whatever is lost, doubled, late, forgotten or
restarted, a payload comes out as it went in or is dropped by name, and its second copy arrives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packetcloud.services.wan_optimizer.restoring import Restored
from tests.unit.services.wan_link import WanLink, edited, refers, text

PAGES = [
    text(9000, 1),
    edited(text(9000, 1), 2),
    text(20_000, 3),
    text(9000, 1)[4000:],
    bytes(5000),
]
REPLICAS = 2
NAMED = (
    "refers to what this cache does not hold",
    "refers to more than this cache holds",
    "refers to what this cache holds otherwise",
)

Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.integers(0, len(PAGES) - 1)),
        st.tuples(st.just("send"), st.integers(0, 3), st.integers(0, len(PAGES) - 1)),
        st.tuples(st.just("deliver"), st.integers(0, 50), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("deliver"), st.integers(0, 50), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("lose"), st.integers(0, 50)),
        st.tuples(st.just("tell"), st.integers(0, 50), st.booleans()),
        st.tuples(st.just("tell"), st.integers(0, 50), st.booleans()),
        st.tuples(st.just("restart"), st.integers(0, 1)),
        st.tuples(st.just("restart compress")),
        st.tuples(st.just("wait"), st.sampled_from([0.05, 11.0])),
    ),
    max_size=40,
)


class World:
    """Frames and feedback under way between one compress and two replicas of decompress."""

    def __init__(self, cache_bytes: int, kept_bytes: int) -> None:
        self.link = WanLink(replicas=REPLICAS, cache_bytes=cache_bytes, kept_bytes=kept_bytes)
        self.frames: list[tuple[bytes, int, int, int, int]] = []
        """Each with its flow, page, chunk id, and how often compress had been restarted."""
        self.feedback: list[Restored] = []
        self.sent_count = 0
        self.restarts_count = 0

    def take(self, step: Step) -> None:
        match step:
            case "send", int(flow), int(page):
                self.sent_count += 1
                frame = self.link.frame(PAGES[page], flow, self.sent_count)
                self.frames.append((frame, flow, page, self.sent_count, self.restarts_count))
            case "deliver", int(at), int(replica), bool(stays) if self.frames:
                at %= len(self.frames)
                entry = self.frames[at] if stays else self.frames.pop(at)
                self._deliver(*entry, replica)
            case "lose", int(at) if self.frames:
                self.frames.pop(at % len(self.frames))
            case "tell", int(at), bool(stays) if self.feedback:
                at %= len(self.feedback)
                told = self.feedback[at] if stays else self.feedback.pop(at)
                self.link.tell(told)
            case "restart", int(replica):
                self.link.restart(replica)
            case ("restart compress",):
                self.link.restart_compress()
                self.restarts_count += 1
            case "wait", float(seconds):
                self.link.now += seconds

    def _deliver(
        self, frame: bytes, flow: int, page: int, chunk_id: int, restarts_count: int, replica: int
    ) -> None:
        came = self.link.restore(frame, replica)
        self._look_at(came, page)
        # A compress that was restarted since takes the second copy for the first.
        tries = 1 + (restarts_count < self.restarts_count)
        while came.payload is None:
            assert came.is_lacking and came.reason in NAMED
            assert tries, "the copy before needed nothing but itself"
            tries -= 1
            again = self.link.frame(PAGES[page], flow, chunk_id)
            assert tries or not refers(again)
            came = self.link.restore(again, 1 - replica)
            self._look_at(came, page)

    def _look_at(self, came: Restored, page: int) -> None:
        if came.payload is not None:
            assert came.payload == PAGES[page]
        if came.feedback:
            self.feedback.append(came)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    cache_bytes=st.sampled_from([12_000, 40_000, 1 << 20]),
    kept_bytes=st.sampled_from([12_000, 40_000, 1 << 20]),
)
def test_what_comes_out_is_what_went_in(
    steps: list[Step], cache_bytes: int, kept_bytes: int
) -> None:
    """And one more copy of what was dropped always arrives, at whichever replica."""
    world = World(cache_bytes, kept_bytes)
    for step in steps:
        world.take(step)
        for behind in world.link.behind:
            assert behind._kept.held_bytes <= kept_bytes


@pytest.mark.parametrize("seed", range(3))
def test_the_law_has_something_to_say(seed: int) -> None:
    """In runs like these frames do refer to what is not there: the repair is really taken."""
    world = World(1 << 20, 40_000)
    steps: list[Step] = [("send", 0, seed), ("deliver", 0, 0, False), ("tell", 0, False)]
    steps += [("send", 0, seed), ("restart", 0), ("deliver", 0, 0, True)]
    for step in steps:
        world.take(step)
    assert refers(world.frames[0][0])
    assert any(came.is_lacking for came in world.feedback)


@settings(max_examples=200, deadline=None)
@given(
    flags=st.integers(0, 255).map(lambda value: value & 0xFD),
    rest=st.binary(max_size=200),
    tail=st.binary(max_size=40),
)
def test_any_bytes_in_a_compressed_chunk(flags: int, rest: bytes, tail: bytes) -> None:
    """A value or one named drop, and nothing is kept of what was not sealed."""
    link = WanLink()
    for data in (rest, b"\x03" + bytes([flags]) + rest, _headed(flags, rest, tail)):
        came: Restored = link.restore(data)
        assert came.payload is not None or came.reason
        assert len(link.behind[0]._kept) == 0


def _headed(flags: int, rest: bytes, tail: bytes) -> bytes:
    """Return a head whose lengths are those of what follows."""
    sizes = len(tail).to_bytes(4, "big") * 2
    parts = 16 * bool(flags & 4) + 4 * bool(flags & 32) + (16 if flags & 36 else 4)
    return b"\x03" + bytes([flags, 0, 0]) + sizes + rest.ljust(parts, b"\0")[:parts] + tail
