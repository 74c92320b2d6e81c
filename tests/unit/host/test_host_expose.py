"""Ports of a translator that lead to services of this host: whose they are."""

from __future__ import annotations

import pytest

from packetcloud.chunk.streams.wire import Listening, NotListening, ResetCode
from packetcloud.host.expose import Exposure
from tests.unit.host.proxy_world import ProxyWorld

PORT = 8080


def expose(world: ProxyWorld) -> tuple[Exposure, list[str]]:
    """Ask for the port; what is said of it is in the list."""
    told: list[str] = []
    exposure = Exposure(
        world.link, PORT, ("127.0.0.1", 9), lambda: told.append("ready"), told.append
    )
    exposure.begin()
    world.loop.settle()
    return exposure, told


def test_who_lost_a_port_takes_it_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, then asked for by another program, which has it when the first one ends."""
    world = ProxyWorld(monkeypatch)
    former, told = expose(world)
    world.answer(NotListening(PORT, ResetCode.NOT_ALLOWED, "not now"))
    assert told == ["not now"] and not world.link.has_port(PORT)
    owner, told = expose(world)
    world.answer(Listening(PORT))
    assert told == ["ready"]
    former.close()
    assert world.link.has_port(PORT)
    owner.close()
    assert not world.link.has_port(PORT)
