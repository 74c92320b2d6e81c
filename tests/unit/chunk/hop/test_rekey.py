"""New keys inside a session, with traffic running: nothing is lost, old keys are forgotten."""

from __future__ import annotations

import random

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.api import HopConfig, Settlement
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link

SMALL = HopConfig(rekey_after_bytes=200_000)


@pytest.mark.parametrize("seed", range(8))
def test_keys_change_under_traffic(seed: int) -> None:
    """New keys every few round trips, also with loss: every body once, intact."""
    chooser = random.Random(seed)
    link = Link(
        seed,
        loss=chooser.choice([0.0, 0.1, 0.3]),
        corruption=chooser.choice([0.0, 0.02]),
        duplication=chooser.choice([0.0, 0.1]),
        jitter_s=chooser.choice([0.0, 0.01]),
        config=SMALL,
    )
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    there = [link.random.randbytes(chooser.choice([50, 5000, 150_000])) for _ in range(60)]
    back = [link.random.randbytes(chooser.choice([50, 5000, 150_000])) for _ in range(60)]
    for number in range(60):
        ours.send(BodyKind.CHUNK, b"", there[number], number)
        theirs.send(BodyKind.CHUNK, b"", back[number], number)
    link.run(lambda: len(link.uppers[A].settled) == 60 and len(link.uppers[B].settled) == 60, 300)
    assert sorted(link.uppers[B].bodies) == sorted(there)
    assert sorted(link.uppers[A].bodies) == sorted(back)
    for address in (A, B):
        assert {how for _, how, _ in link.uppers[address].settled} == {Settlement.ACCEPTED}
    assert ours.counters()["rekeyings"] >= 1
    assert abs(ours.counters()["rekeyings"] - theirs.counters()["rekeyings"]) <= 1


def test_old_keys_are_forgotten_with_their_last_transfer() -> None:
    """While a transfer of an epoch is open its keys stay; then they go, on both sides."""
    link = Link(config=SMALL)
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    ring = theirs.receiver._ring
    assert ring is not None
    withheld: list[bytes] = []

    def withhold(source: object, datagram: bytes) -> bool:
        if source != A or datagram[0] != wire.DATA_BYTE or not withholding:
            return True
        fields = wire.DATA_HEADER.unpack_from(datagram)
        if fields[4] == 0 and fields[6] == 3:
            withheld.append(datagram)
            return False
        return True

    withholding = [True]
    link.on_datagram = withhold
    for number in range(12):
        ours.send(BodyKind.CHUNK, b"", bytes([number]) * 100_000, number)
    link.run_until_settled(11)
    assert ring.newest.epoch >= 2
    assert ring.receive_epochs[0] == 0, "transfer 0 is open"
    withholding.clear()
    link.run_until_settled(12)
    assert link.uppers[B].bodies[-1] == bytes(100_000)
    ours.send(BodyKind.CHUNK, b"", bytes(5000), "the first of the newest epoch")
    link.run_until_settled(13)
    assert ring.receive_epochs == [ring.newest.epoch]


def test_keys_change_with_time() -> None:
    """Also where next to nothing is said."""
    link = Link(config=HopConfig(rekey_after_s=60))
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    link.pass_time(200)
    assert ours.counters()["rekeyings"] == theirs.counters()["rekeyings"] == 3
    ours.send(BodyKind.CHUNK, b"", bytes(50_000), "x")
    link.run(lambda: bool(link.uppers[A].settled))
    assert ours.sender.transfers._ring is not None and ours.sender.transfers._ring.send.epoch == 3


def test_a_client_that_does_not_take_new_keys_is_left() -> None:
    """The server waits eight times as long as it should have to."""
    link = Link(config=HopConfig(rekey_after_s=60))
    ours = link.connect()
    assert ours._rekeying is not None
    ours._rekeying._after_s = 1e9
    began = link.now
    link.run(lambda: bool(link.uppers[B].down), 490)
    assert link.now - began > 470
    assert link.uppers[B].down == ["it does not take new keys"]


def test_no_two_epochs_share_a_key() -> None:
    """Each epoch's keys differ from those of the other direction and of the epochs before, also of
    those that a header cannot tell from it."""
    link = Link(config=SMALL)
    ours = link.connect()
    seen = set()
    ring = ours.sender.transfers._ring
    assert ring is not None
    for number in range(90):
        ours.send(BodyKind.CHUNK, b"", bytes(100_000), number)
        link.run_until_settled(number + 1)
        seen.add((ring.send.epoch, ring.send.digest_key))
        seen.add((ring.newest.epoch, ring.newest.digest_key))
    assert len({key for _, key in seen}) == len(seen) == 2 * (ring.send.epoch + 1) > 34


@pytest.mark.parametrize("share", [bytes(32), b"\x01" + bytes(31)])
def test_a_share_of_low_order_is_refused(share: bytes) -> None:
    """It would make keys that everybody knows."""
    link = Link()
    ours = link.connect()
    (theirs,) = link.cores[B].sessions.values()
    offer = wire.RekeyFrame(1, wire.RekeyStep.OFFER, share).to_bytes()
    link.receive(B, A, [ours._envelope.control([offer])])
    assert link.cores[B].dropped == {"bad_share": 1}
    assert theirs.counters()["rekeyings"] == 0
