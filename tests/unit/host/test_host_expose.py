"""Ports of a translator that lead to services of this host: whose they are."""

from __future__ import annotations

import pytest

from packetcloud.chunk.streams.ports import ASK_AGAIN_S
from packetcloud.chunk.streams.wire import Listening, NotListening, ResetCode
from packetcloud.host.expose import Exposure
from packetcloud.host.shared_session import Standing
from tests.unit.host.proxy_world import ProxyWorld

PORT = 8080


def expose(world: ProxyWorld) -> tuple[Exposure, list[str]]:
    """Ask for the port; what is said of it is in the list."""
    told: list[str] = []

    def tell(standing: Standing, text: str) -> None:
        told.append(f"{standing}: {text}" if text else standing)

    exposure = Exposure(world.link, PORT, ("127.0.0.1", 9), tell)
    exposure.begin()
    world.loop.settle()
    return exposure, told


def test_a_busy_port_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when it is ours, and when it is busy after that."""
    world = ProxyWorld(monkeypatch)
    _, told = expose(world)
    for _ in range(3):
        world.answer(NotListening(PORT, ResetCode.TOO_MANY, "in use"))
        world.loop.pass_time(ASK_AGAIN_S)
    assert told == ["waiting: in use"] and world.link.has_port(PORT)
    for _ in range(2):
        world.answer(Listening(PORT))
    world.answer(NotListening(PORT, ResetCode.TOO_MANY, "in use"))
    assert told == ["waiting: in use", "served", "waiting: in use"]


def test_who_lost_a_port_takes_it_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, then asked for by another program, which has it when the first one ends."""
    world = ProxyWorld(monkeypatch)
    former, told = expose(world)
    world.answer(NotListening(PORT, ResetCode.NOT_ALLOWED, "not now"))
    assert told == ["refused: the translator refuses: not now"] and not world.link.has_port(PORT)
    owner, told = expose(world)
    world.answer(Listening(PORT))
    assert told == ["served"]
    former.close()
    assert world.link.has_port(PORT)
    owner.close()
    assert not world.link.has_port(PORT)
