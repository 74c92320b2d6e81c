"""Two branches whose traffic is encrypted between their routers, unknown to both ends.

Everything is real but the router between the two, which is an attacker's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from packetcloud.chunk.grants import issue_grant
from packetcloud.chunk.header import PayloadType, decode_header
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.reasons import Reason
from packetcloud.router.layout import HeaderLayout
from packetcloud.services.sdk import Verdict
from packetcloud.services.secure_communication import service
from packetcloud.services.secure_communication.freshness import TRAILER_BYTES
from packetcloud.services.secure_communication.keys import (
    load_key_file,
    retire_key,
    rotate_key_file,
)
from packetcloud.services.secure_communication.sealing import (
    UNTIMED_VERSION,
    SealingKey,
    bound_to,
)
from packetcloud.services.secure_communication.suites import decode_head
from tests.functional.branches import Alter, Branches, is_sealed, split, with_payload
from tests.functional.router_network import run

SECRET = b"the plans are in the third drawer"
SEALED_TYPES = {PayloadType.SEALED, PayloadType.SEALED_REPORT}


def play(
    folder: Path,
    body: Callable[[Branches], Any],
    suite: str = "aes-256-gcm",
    settings: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """Run a test with the two branches; rules are not installed yet."""

    async def test(reactor: Any) -> None:
        world = Branches(reactor, folder, **options)
        await world.start(suite=suite, **(settings or {}))
        await body(world)
        await world.close()

    run(test)


async def joined(world: Branches) -> None:
    for branch in (world.a, world.b):
        await branch.install(*branch.rules())


def pause(world: Branches, seconds: float) -> Deferred[None]:
    waiting: Deferred[None] = Deferred()
    world.net.reactor.callLater(seconds, waiting.callback, None)
    return waiting


def test_nothing_passes_in_the_clear_and_nobody_notices(tmp_path: Path) -> None:
    """Both ways, every size and type, delivery reports too. The control before it: without rules
    the same payloads are read by the router between."""

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        assert (await a.send(SECRET)).ok
        await world.net.until(lambda: len(world.between.seen) == 2)
        assert world.passed(SECRET) == 1, "without rules it is read on the way"
        assert world.payload_types() == {PayloadType.DATA, PayloadType.REPORT}
        await joined(world)
        world.between.seen.clear()
        payloads = [SECRET, b"", SECRET * 3000, SECRET + os.urandom((1 << 20) - len(SECRET))]
        for sender, receiver in ((a, b), (b, a)):
            receiver.arrived.clear()
            for payload in payloads:
                assert (await sender.send(payload)).ok
            typed = await sender.send(SECRET, payload_type=200)
            assert typed.ok and typed.attempts_count == 1
            assert [payload for _, payload in receiver.arrived] == [*payloads, SECRET]
            assert [header.payload_type for header, _ in receiver.arrived] == [0, 0, 0, 0, 200]
            assert {header.source for header, _ in receiver.arrived} == {sender.host.guid}
        assert world.passed(SECRET) == 0
        assert world.payload_types() == SEALED_TYPES, "reports are sealed, too"
        for branch in (a, b):
            answered = {name: dict(one.tasks.answered) for name, one in branch.runtimes.items()}
            counts = [sum(one.values()) for one in answered.values()]
            assert counts[0] >= 5 and not branch.drops, "each was encrypted and decrypted once"
            assert set(answered["encrypt"]) == set(answered["decrypt"]) == {2}

    play(tmp_path, body)


def test_what_cannot_be_protected_does_not_pass(tmp_path: Path) -> None:
    """No encrypter: refused at its router. No decrypter: refused at its own. No rule that decrypts:
    the receiving host refuses it. Each time the source is told, and nothing is in the clear."""

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        await joined(world)
        await a.stop("encrypt")
        told = await a.send(SECRET)
        assert told.reason == Reason.SERVICE_FAILED and not world.between.seen
        await a.run_again("encrypt")
        assert (await a.send(SECRET)).ok
        await b.stop("decrypt")
        assert (await a.send(SECRET)).reason == Reason.SERVICE_FAILED
        await b.run_again("decrypt")
        assert (await a.send(SECRET)).ok
        count = len(b.arrived)
        await b.install({"withdraw": "decrypt"})
        told = await a.send(SECRET)
        assert told.reason == Reason.RECEIVER_REFUSED
        assert "no router decrypted it" in told.detail
        assert b.host.stats()["sealed_total"] == 1 and len(b.arrived) == count
        assert world.passed(SECRET) == 0
        # Where only one side has rules, what comes in the clear is not taken for what it is not.
        await b.install(b.rule("decrypt", a, b))
        await a.install({"withdraw": "encrypt"})
        told = await a.send(SECRET)
        assert (told.reason, told.detail) == (Reason.DROPPED_BY_SERVICE, "not encrypted")

    play(tmp_path, body)


def _flipped(chunk: bytes) -> list[bytes]:
    header, payload = split(chunk)
    return [header + payload[:40] + bytes([payload[40] ^ 1]) + payload[41:]]


def _cut(chunk: bytes) -> list[bytes]:
    return [with_payload(chunk, split(chunk)[1][:-1])]


def _unmarked(chunk: bytes) -> list[bytes]:
    return [chunk[:5] + bytes([PayloadType.DATA]) + chunk[6:]]


def _forged(chunk: bytes) -> list[bytes]:
    return _unmarked(with_payload(chunk, b"what the attacker wants"))


def _other_id(chunk: bytes) -> list[bytes]:
    return [chunk[:8] + bytes([chunk[8] ^ 1]) + chunk[9:]]


def _older(chunk: bytes) -> list[bytes]:
    header, payload = split(chunk)
    return [header + b"SC\x01\x01" + payload[4:]]


def _other_key(chunk: bytes) -> list[bytes]:
    header, payload = split(chunk)
    return [header + payload[:4] + b"\0\0\0\1" + payload[8:]]


ATTACKS: dict[str, tuple[Alter, str]] = {
    "a flipped bit": (_flipped, "authentication failed"),
    "cut by a byte": (_cut, "authentication failed"),
    "the mark taken off": (_unmarked, "not encrypted"),
    "plain text put in": (_forged, "not encrypted"),
    "another chunk id": (_other_id, "authentication failed"),
    "another suite named": (_older, "encrypted by another suite"),
}


def test_each_attack_on_the_way_is_seen_and_counted(tmp_path: Path) -> None:
    """Altered, cut, forged, under another name: dropped by the decrypter with its reason, nothing
    of it reaches an application. Untouched, the same chunk arrives."""

    async def body(world: Branches) -> None:
        a, b, between = world.a, world.b, world.between
        await joined(world)

        def attacking(alter: Alter) -> Alter:
            return lambda chunk: alter(chunk) if a.host.guid.value == chunk[20:40] else [chunk]

        expected: Counter[str] = Counter()
        for name, (alter, reason) in ATTACKS.items():
            between.alter = attacking(alter)
            sending = a.send(SECRET, lifetime_s=20)
            expected[reason] += 1
            await world.net.until(lambda: sum(b.drops.values()) >= sum(expected.values()))
            assert b.drops == expected and not b.arrived, name
            if name != "another chunk id":  # of that one the attacker's id is told
                told = await sending
                assert told.reason == Reason.DROPPED_BY_SERVICE, name
                assert told.detail.startswith(reason)
            else:
                sending.cancel()
        # Another key named may be one that is not here yet: its host sends the chunk again.
        between.alter = attacking(_other_key)
        sending = a.send(SECRET, lifetime_s=20)
        await world.net.until(lambda: b.drops["unknown key"] > 0)
        assert not b.arrived
        between.alter = lambda chunk: [chunk]
        told = await sending
        assert told.ok and told.attempts_count > 1 and len(b.arrived) == 1
        assert (await a.send(SECRET)).ok and len(b.arrived) == 2

        # Two chunks that exchange their payloads
        held: list[bytes] = []

        def swap(chunk: bytes) -> list[bytes]:
            held.append(chunk)
            if len(held) < 2:
                return []
            one, two = held[:2]
            held.clear()
            return [with_payload(one, split(two)[1]), with_payload(two, split(one)[1])]

        between.alter = attacking(swap)
        first, second = a.send(SECRET + b"1", lifetime_s=20), a.send(SECRET + b"2", lifetime_s=20)
        assert [(await first).detail, (await second).detail] == ["authentication failed"] * 2

        # The same chunk again at once: the decrypter has no memory, the receiver's window has.
        between.alter = attacking(lambda chunk: [chunk] * 3)
        b.arrived.clear()
        assert (await a.send(SECRET)).ok
        await world.net.until(lambda: _duplicates(b.host.stats()) == 2)
        assert len(b.arrived) == 1

    play(tmp_path, body)


def _duplicates(stats: Mapping[str, float]) -> float:
    return sum(count for name, count in stats.items() if "_duplicates_" in name)


def test_with_cbc_an_attack_on_the_way_is_not_seen(tmp_path: Path) -> None:
    """The control: what the attacker changed is delivered."""

    async def body(world: Branches) -> None:
        await joined(world)
        world.between.alter = lambda chunk: (
            _flipped(chunk) if world.a.host.guid.value == chunk[20:40] else [chunk]
        )
        assert (await world.a.send(SECRET * 3)).ok
        ((_, payload),) = world.b.arrived
        assert payload != SECRET * 3 and len(payload) == len(SECRET * 3)
        assert not world.b.drops

    play(tmp_path, body, suite="aes-128-cbc")


def _lasting(chunk: bytes, lifetime_ms: int) -> bytes:
    """Return a chunk with another lifetime, which any router may write."""
    header, payload = split(chunk)
    at = HeaderLayout.of(header).lifetime_offset
    return header[:at] + lifetime_ms.to_bytes(4, "big") + header[at + 4 :] + payload


@pytest.mark.parametrize("way", ["fresh", "unchecked", "format 2"])
def test_a_recorded_chunk_is_not_delivered_when_its_receiver_has_forgotten_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Sent again with a new lifetime it is dropped, with the reason; what is sealed then arrives.
    The controls: without the check, or sealed without a time, it is delivered a second time."""
    later_s = 0.0
    monkeypatch.setattr(service, "wall_clock_s", lambda: time.time() + later_s)
    if way == "unchecked":
        monkeypatch.setattr(service, "check_fresh", lambda *_: None)

    async def body(world: Branches) -> None:
        nonlocal later_s
        a, b, between = world.a, world.b, world.between
        await joined(world)
        if way == "format 2":
            between.alter = lambda chunk: [_without_time(world, chunk)]
        assert (await a.send(SECRET, lifetime_s=20)).ok
        (recorded,) = [chunk for chunk in between.seen if chunk[20:40] == a.host.guid.value]
        if way == "format 2":
            recorded = _without_time(world, recorded)
        between.alter = lambda chunk: (
            [_lasting(recorded, 60_000), chunk] if chunk[20:40] == a.host.guid.value else [chunk]
        )
        later_s = 300.0
        b.host._core.window.expire(world.net.reactor.seconds() + later_s)
        assert (await a.send(SECRET + b" again")).ok
        arrived = [payload for _, payload in b.arrived]
        if way == "fresh":
            assert arrived == [SECRET, SECRET + b" again"]
            assert b.drops == {"sealed too long ago": 1}
        else:
            assert sorted(arrived) == [SECRET, SECRET, SECRET + b" again"] and not b.drops

    play(tmp_path, body, settings={"format_2": "decrypt"} if way == "format 2" else {})


def _without_time(world: Branches, chunk: bytes) -> bytes:
    """Return a chunk of A's as version 2 of its encrypter would have sealed it."""
    if chunk[20:40] != world.a.host.guid.value:
        return chunk
    (key,) = load_key_file(world.a.keys)
    sealing, bound = SealingKey.of(key), bound_to(decode_header(chunk))
    _, payload = split(chunk)
    opened = memoryview(bytearray(len(payload)))
    length, trailer = sealing.open(memoryview(payload), TRAILER_BYTES, bound, opened)
    output = memoryview(bytearray(len(payload)))
    length = sealing.seal(key.key_id, opened[:length], trailer[:1], bound, output, UNTIMED_VERSION)
    return with_payload(chunk, bytes(output[:length]))


def test_a_lifetime_that_was_cut_short_is_seen(tmp_path: Path) -> None:
    """Its receiver would forget the chunk early, while its seal is still good. The host sends it
    again, and it arrives."""

    async def body(world: Branches) -> None:
        a, b, between = world.a, world.b, world.between
        await joined(world)
        between.alter = lambda chunk: (
            [_lasting(chunk, 2000)] if chunk[20:40] == a.host.guid.value else [chunk]
        )
        sending = a.send(SECRET, lifetime_s=60)
        await world.net.until(lambda: b.drops["not the lifetime that was sealed"] > 0)
        assert not b.arrived
        between.alter = lambda chunk: [chunk]
        assert (await sending).ok and len(b.arrived) == 1

    play(tmp_path, body)


class _Load:
    """Sends numbered chunks from A to B, so many at a time, until it is stopped."""

    def __init__(self, world: Branches) -> None:
        self._world = world
        self._is_over = False
        self.sent_count = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        waiting: list[Any] = []
        while not self._is_over:
            waiting.append(self._world.a.send(SECRET + self.sent_count.to_bytes(4, "big")))
            self.sent_count += 1
            if len(waiting) == 16:
                self._note(await waiting.pop(0))
                await pause(self._world, 0.002)
        for one in waiting:
            self._note(await one)

    def stop(self) -> None:
        self._is_over = True

    def _note(self, result: Any) -> None:
        if not result.ok:
            self.failed.append(result.detail)

    def check(self) -> None:
        """See that each chunk arrived once."""
        numbers = [int.from_bytes(payload[-4:], "big") for _, payload in self._world.b.arrived]
        assert sorted(numbers) == list(range(self.sent_count)), "lost or doubled"
        assert not self.failed

    def key_ids(self) -> set[int]:
        """Return the ids of the keys that A's chunks bore on the way."""
        guid = self._world.a.host.guid.value
        return {
            decode_head(memoryview(split(chunk)[1]))[2]
            for chunk in self._world.between.seen
            if is_sealed(chunk) and chunk[20:40] == guid
        }


def test_keys_are_rotated_under_load_without_a_lost_chunk(tmp_path: Path) -> None:
    """Each new key is for later; the file reaches the encrypter first, even, and the decrypter
    before its time. Old keys decrypt until they are retired. Nothing is lost, nothing doubled."""

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        await joined(world)
        load = _Load(world)
        running = ensureDeferred(load.run())
        known = [one.key_id for one in load_key_file(a.keys)]
        for _ in range(3):
            key = rotate_key_file(a.keys, 2.0)
            await pause(world, 0.3)
            assert key.key_id not in load.key_ids()
            shutil.copy(a.keys, b.keys)
            await world.net.until(lambda key=key: key.key_id in load.key_ids())
            known.append(key.key_id)
        retired = known[0]
        for branch in (b, a):
            retire_key(branch.keys, retired, key.began_s + 1, at_once=True)
        await world.net.until(lambda: load.sent_count >= 1000)
        load.stop()
        await running
        load.check()
        assert load.key_ids() == set(known)
        assert not b.drops

    play(tmp_path, body)


@pytest.mark.parametrize("is_for_good", [False, True])
def test_a_key_that_is_used_before_the_other_side_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_for_good: bool
) -> None:
    """Rotated for at once, and brought to the decrypter afterwards: what was sent meanwhile is sent
    again by its host, and arrives. The control, dropped for good: it is lost, and said, with the
    key."""
    if is_for_good:
        monkeypatch.setattr(service, "key_missing", Verdict.drop)

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        await joined(world)
        key = rotate_key_file(a.keys)
        for _ in range(500):
            count = len(b.arrived)
            sending = a.send(SECRET, lifetime_s=20)
            await world.net.until(
                lambda count=count: b.drops["unknown key"] > 0 or len(b.arrived) > count
            )
            if b.drops["unknown key"]:
                break
            assert (await sending).ok
            await pause(world, 0.02)
        assert b.drops["unknown key"] and len(b.arrived) == count
        shutil.copy(a.keys, b.keys)
        told = await sending
        if is_for_good:
            word = f"unknown key: {key.key_id:08x}"
            assert (told.reason, told.detail) == (Reason.DROPPED_BY_SERVICE, word)
        else:
            assert told.ok and told.attempts_count > 1 and len(b.arrived) == count + 1
        await pause(world, 0.1)
        assert (await a.send(SECRET)).ok

    play(tmp_path, body)


@pytest.mark.parametrize("side", ["encrypt", "decrypt"])
def test_a_service_that_starts_again_loses_nothing(tmp_path: Path, side: str) -> None:
    """Chunks wait at the router for its VI, sealed or not yet, and then go on."""

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        await joined(world)
        branch = a if side == "encrypt" else b
        assert (await a.send(SECRET)).ok
        await branch.stop(side)
        sending = [a.send(SECRET + bytes([number])) for number in range(20)]
        await pause(world, 0.1)
        branch.run(side)
        assert all([(await one).ok for one in sending])
        assert len(b.arrived) == 21 and world.passed(SECRET) == 0

    play(tmp_path, body, grace_s=30.0)


def test_a_tenant_connects_branches_of_its_own(tmp_path: Path) -> None:
    """Whoever holds the keys of both hosts grants that to a tenant, whose rules then do the same as
    the ISP's. Without the grant of one host the rules about it are refused."""

    async def body(world: Branches) -> None:
        a, b = world.a, world.b
        tenant = Identity.generate()
        now_s = int(time.time())
        grants = [
            issue_grant(
                branch.host_key,
                tenant.public_key,
                frozenset({branch.host_key.guid.value}),
                None,
                now_s - 10,
                now_s + 3600,
                nonce=bytes(16),
            )
            for branch in (a, b)
        ]
        for branch in (a, b):
            items = branch.rules()
            half = await branch.bring(items, tenant, grants[:1], until_s=now_s + 600)
            assert (half["accepted"], half["reasons"]) == (1, {"no proof": 1})
            whole = await branch.bring(items, tenant, grants, until_s=now_s + 600)
            assert (whole["accepted"] + whole["unchanged"], whole["refused"]) == (2, 0)
        assert (await a.send(SECRET)).ok and (await b.send(SECRET)).ok
        assert world.passed(SECRET) == 0 and world.payload_types() == SEALED_TYPES
        assert len(a.arrived) == len(b.arrived) == 1

    play(tmp_path, body, rules_from="anyone")
