"""Fillers of the caps of handshakes and answers to strangers. Source: chunk/hop/caps.py."""

from __future__ import annotations

import math
from dataclasses import replace

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_rate import ADDRESSES_COUNT
from packetcloud.chunk.hop.api import HopConfig, Role
from packetcloud.chunk.hop.handshake import HALF_OPEN_COUNT
from packetcloud.chunk.hop.replies import MAX_REPLIES_COUNT
from packetcloud.chunk.hop.resets import RESETS_PER_S
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.hop.stamps import PEERS_COUNT
from packetcloud.chunk.names import GUID
from tests.unit.caps.filled import Filled, fills
from tests.unit.caps.hostile import VICTIM, Scene


@fills("hop", "neighbours")
def neighbours() -> Filled:
    """One key attaches as one instance after the other."""
    config = HopConfig(max_neighbours_count=16)
    scene = Scene(config=config)
    assert scene.honest_goes_on()
    first = scene.hostile()

    def attach(instance: int) -> Session | str:
        address = (f"198.51.100.{100 + instance}", 4000)
        scene.uppers[address] = type(scene.uppers[VICTIM])()
        mine = replace(config, instance=instance)
        core = scene.core(address, Role.HOST, mine, 1472, first.identity)
        scene.cores[address] = core
        result: list[Session | str] = []
        core.connect(VICTIM, None, result.append, scene.now)
        scene.run(lambda: bool(result))
        scene.step(0.05)
        del scene.cores[address]
        return result[0]

    for instance in range(1, 15):
        assert isinstance(attach(instance), Session)
    at_cap, counted = len(scene.victim.sessions), scene.victim.dropped["neighbours_full"]
    refused = [attach(instance) for instance in range(15, 20)]
    assert all(isinstance(one, str) and "neighbours" in one for one in refused)
    beyond, counted_beyond = len(scene.victim.sessions), scene.victim.dropped["neighbours_full"]
    goes_on = scene.honest_goes_on()
    scene.step(20.0)
    left = len(scene.victim.sessions) - 1
    return Filled(16, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "half-open handshakes")
def half_open() -> Filled:
    """Strangers with addresses of their own, who bring their cookies back, never say CONFIRM."""
    scene = Scene()
    assert scene.honest_goes_on()

    def knock(number: int) -> None:
        address = (f"203.0.{number >> 8}.{number & 255}", 4000)
        stranger = scene.core(VICTIM, Role.HOST, None, 1472)
        stranger.connect(VICTIM, None, lambda _: None, scene.now)
        for _ in range(2):  # HELLO to anybody, and HELLO again with name and cookie
            for _, buffers, _ in list(stranger.datagrams_to_send(scene.now)):
                hello = bytes(buffers[0])
                if wire.DatagramType(hello[0] & 15) is wire.DatagramType.HELLO:
                    scene.receive(VICTIM, address, [hello])
            scene.pump()
            for to, answer in scene.heard:
                if to == address:
                    buffer = stranger.landing()[0]
                    buffer[: len(answer)] = answer
                    stranger.receive_train(len(answer), len(answer), VICTIM, scene.now)
            scene.heard.clear()

    def half() -> int:
        return scene.victim.stats()["half_open"]

    def counted() -> int:
        return scene.victim.counters()["half_open_forgotten"]

    for number in range(HALF_OPEN_COUNT):
        knock(number)
    at_cap, counted_at_cap = half(), counted()
    for number in range(HALF_OPEN_COUNT, HALF_OPEN_COUNT + 50):
        knock(number)
    beyond, counted_beyond = half(), counted()
    goes_on = scene.honest_goes_on()
    scene.step(20.0)
    knock(9999)
    left = half() - 1
    return Filled(HALF_OPEN_COUNT, at_cap, counted_at_cap, beyond, counted_beyond, goes_on, left)


@fills("hop", "addresses that began handshakes")
def addresses_that_began() -> Filled:
    """HELLOs from ever new addresses, each of which would cost a signature."""
    scene = Scene()
    assert scene.honest_goes_on()
    rate = scene.victim._door._servers._rate

    def come(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            assert rate.take(f"203.{number >> 16}.{number >> 8 & 255}.{number & 255}", scene.now)
        return len(rate), scene.victim.counters()["addresses_forgotten"]

    at_cap, counted = come(len(rate), ADDRESSES_COUNT)
    beyond, counted_beyond = come(ADDRESSES_COUNT, 3 * ADDRESSES_COUNT)
    goes_on = scene.honest_goes_on()
    return Filled(ADDRESSES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "stamps of handshakes")
def stamps() -> Filled:
    """Ever new keys prove themselves."""
    scene = Scene()
    assert scene.honest_goes_on()
    known = scene.victim.stamps

    def come(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            known.note(GUID(number.to_bytes(20, "big")), 0, 1)
        return len(known._newest), scene.victim.counters()["stamps_forgotten"]

    at_cap, counted = come(len(known._newest), PEERS_COUNT)
    beyond, counted_beyond = come(PEERS_COUNT, 3 * PEERS_COUNT)
    goes_on = scene.honest_goes_on()
    return Filled(PEERS_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, 0)


@fills("hop", "answers waiting for a full socket")
def replies() -> Filled:
    """A stranger repeats its HELLO while nothing leaves the socket."""
    scene = Scene()
    assert scene.honest_goes_on()
    victim = scene.victim
    stranger = scene.core(VICTIM, Role.HOST, None, 1472)
    stranger.connect(VICTIM, None, lambda _: None, scene.now)
    ((_, buffers, _),) = stranger.datagrams_to_send(scene.now)

    def knock(times: int) -> tuple[int, int]:
        for _ in range(times):
            scene.receive(VICTIM, ("203.0.113.1", 4000), [bytes(buffers[0])])
        return len(victim._replies), victim.dropped["replies_full"]

    at_cap, counted = knock(MAX_REPLIES_COUNT)
    beyond, counted_beyond = knock(100)
    goes_on = scene.honest_goes_on()
    left = len(victim._replies)
    return Filled(MAX_REPLIES_COUNT, at_cap, counted, beyond, counted_beyond, goes_on, left)


@fills("hop", "answers to datagrams of unknown sessions")
def resets() -> Filled:
    """Datagrams of sessions that are not there, from many addresses in one second."""
    scene = Scene()
    assert scene.honest_goes_on()
    scene.now = math.ceil(scene.now)
    victim, told = scene.victim, scene.victim._door._resets._told

    def stray(first: int, end: int) -> tuple[int, int]:
        for number in range(first, end):
            stray = wire.encode_control(number, 1, [wire.PaddingFrame(60).to_bytes()])
            scene.receive(VICTIM, (f"203.{number % 100}.113.{number % 200}", 4000), [stray])
        return told.total(), victim.dropped["resets_full"]

    at_cap, counted = stray(1, RESETS_PER_S + 1)
    beyond, counted_beyond = stray(RESETS_PER_S + 1, 5000)
    assert len(told) <= RESETS_PER_S
    goes_on = scene.honest_goes_on()
    scene.step(2.0)
    left = stray(1, 2)[0] - 1
    return Filled(RESETS_PER_S, at_cap, counted, beyond, counted_beyond, goes_on, left)
