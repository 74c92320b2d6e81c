"""Fillers of the caps of memory that is shared with services. Source: chunk/hop/caps.py."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet.task import Clock

from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.lane import MAX_LANES_COUNT, Lane
from packetcloud.chunk.hop.lane_door import (
    GREETING,
    GUEST_TIMEOUT_S,
    GUESTS_COUNT,
    REST_S,
    LaneDoor,
)
from packetcloud.chunk.hop.lane_memory import close_all
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.identity import Identity
from tests.unit.caps.filled import Filled, fills
from tests.unit.caps.hostile import VICTIM, Scene


def _services(scene: Scene) -> Callable[[int], Session]:
    """Return what attaches one more VI of a key, and gives its session with the router."""
    identity = Identity.generate()

    def attach(instance: int) -> Session:
        address = (f"198.51.{100 + (instance >> 7)}.{1 + (instance & 127)}", 4000)
        scene.uppers[address] = type(scene.uppers[VICTIM])()
        core = scene.core(address, Role.SERVICE, HopConfig(instance=instance), 1472, identity)
        scene.cores[address] = core
        result: list[Session | str] = []
        core.connect(VICTIM, None, result.append, scene.now)
        scene.run(lambda: bool(result))
        scene.step(0.05)
        del scene.cores[address]
        (session,) = result
        assert isinstance(session, Session)
        return session

    return attach


@fills("hop", "lanes")
def lanes() -> Filled:
    """One VI after the other asks for memory."""
    scene = Scene(config=replace(HopConfig(), idle_timeout_s=15.0))
    assert scene.honest_goes_on()
    attach, victim = _services(scene), scene.victim
    nothing = np.zeros(4096, np.uint8)

    def ask(instance: int) -> None:
        session = victim.session_for_lane(attach(instance).lane_token)
        if session is not None:
            session.open_lane(Lane(nothing, nothing))

    def count() -> int:
        return sum(session.has_lane for session in victim.sessions.values())

    for instance in range(1, MAX_LANES_COUNT + 1):
        ask(instance)
    at_cap, counted = count(), victim.counters()["lanes_refused"]
    for instance in range(MAX_LANES_COUNT + 1, MAX_LANES_COUNT + 4):
        ask(instance)
    beyond, counted_beyond = count(), victim.counters()["lanes_refused"]
    goes_on = scene.honest_goes_on()
    scene.step(20.0)
    return Filled(MAX_LANES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, count())


class _Watch(Clock):
    """A clock that looks at every socket when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def look(self) -> None:
        for reader in list(self.readers):
            if reader in self.readers:
                reader.doRead()


@fills("hop", "connections at the door of lanes")
def guests() -> Filled:
    """Whoever reaches the socket connects and says nothing."""
    scene, clock = Scene(), _Watch()
    service = _services(scene)(1)
    victim = scene.victim
    with tempfile.TemporaryDirectory(prefix="lanes-", dir="/tmp") as folder:
        path = Path(folder, "own", "lanes", "router", "door")
        door = LaneDoor(clock, path, victim)
        visitors: list[socket.socket] = []

        def visit() -> socket.socket:
            visitor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            visitor.connect(str(path))
            visitors.append(visitor)
            clock.advance(REST_S)
            clock.look()
            return visitor

        for _ in range(GUESTS_COUNT):
            visit()
        at_cap, counted = len(door._guests), victim.counters()["guests_turned_away"]
        for _ in range(GUESTS_COUNT):
            visit()
        beyond, counted_beyond = len(door._guests), victim.counters()["guests_turned_away"]
        honest = visit()
        honest.send(GREETING + service.lane_token)
        clock.look()
        said, descriptors, _, _ = socket.recv_fds(honest, 100, 3)
        close_all(descriptors)
        clock.advance(GUEST_TIMEOUT_S)
        left = len(door._guests)
        for visitor in visitors:
            visitor.close()
        door.close()
    goes_on = said.startswith(GREETING) and len(descriptors) == 3
    return Filled(GUESTS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)
