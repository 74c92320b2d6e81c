"""Services that keep flows: a flow stays with its VI, which alone knows what it had of it."""

from __future__ import annotations

import pytest

from packetcloud.chunk.messages import Outcome, VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.chunk.reasons import Reason
from packetcloud.router import dispatch
from packetcloud.router.planner import flow_hash_of
from tests.unit.router.router_fakes import (
    B,
    FakeNeighbour,
    FakeNetwork,
    S,
    chunk,
    guid,
    service,
    settings,
)
from tests.unit.router.service_visits import reported, task_of

WINDOW_COUNT = 4


def source_of(slot: int) -> GUID:
    """Return a host whose flow belongs to this one of two slots."""
    names = (guid(letter) for letter in "hijklmnop")
    return next(one for one in names if flow_hash_of(chunk(one, services=(S,))) % 2 == slot)


class Place:
    """Two VIs, and one host for each of them."""

    def __init__(self, *, keeps_flows: bool = True) -> None:
        one = service(S, keeps_flows=keeps_flows, deadline_ms=500)
        self.net = FakeNetwork(settings(one, vi_window_count=WINDOW_COUNT))
        self.net.host(B)
        self.sources = [source_of(0), source_of(1)]
        self.hosts = [self.net.host(one) for one in self.sources]
        self.vis = [self.net.vi(S), self.net.vi(S)]
        self._number = 0

    def ask(self, slot: int, count: int = 1) -> None:
        for _ in range(count):
            self._number += 1
            data = chunk(self.sources[slot], chunk_id=self._number, services=(S,))
            assert self.hosts[slot].chunk(data) is None

    def answer(self, vi: FakeNeighbour) -> None:
        sent = vi.unsettled[0]
        vi.settle(sent)
        vi.verdict(sent)


@pytest.mark.parametrize("keeps_flows", [True, False])
def test_a_flow_waits_for_its_vi(keeps_flows: bool) -> None:
    """What its VI has no room for waits, and others go past. Control: without the setting it goes
    to the other VI."""
    place = Place(keeps_flows=keeps_flows)
    first, second = place.vis
    place.ask(0, WINDOW_COUNT + 2)
    assert len(second.unsettled) == (0 if keeps_flows else 2)
    if not keeps_flows:
        return
    place.ask(1)
    assert len(second.unsettled) == 1, "who has room does not wait for others"
    while first.unsettled:
        assert {sent.header.source for sent in first.unsettled} == {place.sources[0]}
        place.answer(first)
    assert len(first.accepted) == WINDOW_COUNT + 2
    place.answer(second)
    assert {sent.header.source for sent in second.accepted} == {place.sources[1]}


def test_a_dead_vi_gives_its_flows_away() -> None:
    """All of a flow go to the same other one, in their order, until it is back."""
    place = Place()
    first, second = place.vis
    place.ask(0, WINDOW_COUNT + 2)
    first.go_down()
    seen = []
    while second.unsettled:
        seen.append(second.unsettled[0].header.chunk_id.value)
        place.answer(second)
    assert seen == list(range(1, WINDOW_COUNT + 3))
    back = place.net.vi(S)
    place.ask(0)
    assert len(back.unsettled) == 1 and not second.unsettled
    place.answer(back)


def test_a_vi_that_hangs_gives_its_flows_away() -> None:
    """One that missed a deadline is asked no more until it answers."""
    place = Place()
    first, second = place.vis
    place.ask(0)
    task_of(first)
    place.net.pass_time(0.6)
    assert len(second.unsettled) == 1 and not first.unsettled
    place.answer(second)


def test_nobody_but_its_vi_is_asked_about_a_chunk() -> None:
    """When that fails over it, the policy decides, though another VI has not tried."""
    place = Place()
    first, second = place.vis
    place.ask(0)
    first.verdict(task_of(first), VerdictCode.FAILED, detail=b"boom")
    outcome, reason, detail = reported(place.hosts[0])
    assert (outcome, reason) == (Outcome.REFUSED, Reason.SERVICE_FAILED) and "boom" in detail
    assert not second.unsettled


def test_who_has_room_does_not_stand_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """One host's full VI holds up nobody else, however many of its chunks wait."""
    monkeypatch.setattr(dispatch, "MAX_LOOKED_AT_COUNT", 4)
    place = Place()
    first, second = place.vis
    place.ask(0, WINDOW_COUNT + 5)
    place.ask(1)
    assert len(second.unsettled) == 1
    place.answer(second)
    seen = []
    while first.unsettled:
        seen.append(first.unsettled[0].header.chunk_id.value)
        place.answer(first)
    assert seen == list(range(1, WINDOW_COUNT + 6)), "those of one flow go in their order"
