"""wan-optimizer with a peer: what is sent again is small; what is lost costs bytes, never data."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.chunk.header import PayloadType
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.services.wan_optimizer import compressing, kept, peers, sent
from packetcloud.services.wan_optimizer.anchors import MAX_ANCHORS, find_anchors
from packetcloud.services.wan_optimizer.feedback import MAX_NUMBER, Feedback, decode_feedback
from packetcloud.services.wan_optimizer.framing import (
    MAX_EXTENTS,
    MAX_REFERRED_BYTES,
    DamagedFrameError,
    Extent,
    Flag,
    FrameHead,
    HistoryPart,
)
from packetcloud.services.wan_optimizer.restoring import Restoring
from packetcloud.services.wan_optimizer.sealing import Seals
from tests.unit.services.wan_link import BOUND, MIB, WanLink, edited, head_of, lend, refers, text

PAGE = text(60_000)


def keyed(path: Path) -> Seals:
    """Return seals by a key file whose keys have come into use."""
    return Seals(path, 0.0, time.time() + 100)


def test_what_was_sent_before_is_referred_to() -> None:
    """The same again, with a few edits, at another place of the payload, by another source."""
    link = WanLink()
    first = link.send(PAGE)
    assert link.send(PAGE) < first / 50
    assert link.send(edited(PAGE)) < first / 20
    assert link.send(text(10_000, 7) + PAGE[20_000:]) < first / 3
    assert link.send(edited(PAGE, 2), flow=1) < first / 20


def test_noise_that_is_sent_again_is_referred_to() -> None:
    """What cannot be compressed is remembered all the same."""
    link = WanLink()
    noise = os.urandom(50_000)
    assert link.send(noise) > len(noise)
    assert link.send(b"moved" + noise) < 500


def test_nothing_is_referred_to_before_it_is_known_to_be_kept() -> None:
    """Its feedback may be lost, or the frame itself: then the next one says the same at length."""
    link = WanLink()
    link.frame(PAGE)
    again = link.frame(PAGE)
    assert not refers(again)
    link.tell(link.restore(again))
    assert refers(link.frame(PAGE))


def test_a_decompress_that_was_restarted() -> None:
    """One drop for now; it tells, and the second copy needs nothing but itself."""
    link = WanLink()
    link.send(PAGE)
    frame = link.frame(PAGE, chunk_id=7)
    link.restart()
    lost = link.restore(frame)
    assert lost.payload is None and lost.is_lacking
    assert lost.reason == "refers to what this cache does not hold"
    second = link.frame(PAGE, chunk_id=7)
    assert not refers(second), "even before the feedback"
    assert link.restore(second).payload == PAGE
    link.tell(lost)
    third = link.frame(PAGE)
    assert not refers(third)
    link.tell(link.restore(third))
    assert refers(link.frame(PAGE))


def test_a_compress_that_was_restarted() -> None:
    """It begins another history: numbers that it uses again are not those of before."""
    link = WanLink()
    link.send(PAGE)
    link.restart_compress()
    other = text(60_000, 5)
    link.send(other)
    assert link.send(edited(other)) < 5000
    assert link.send(PAGE) > 5000, "of the history before it refers to nothing"


def test_a_decompress_that_never_comes_back_costs_so_many_tries() -> None:
    """Without a word from it no more frames count on it."""
    link = WanLink()
    link.send(PAGE)
    link.restart()
    frames = [link.frame(edited(PAGE, seed)) for seed in range(peers.MAX_UNANSWERED + 3)]
    assert [refers(frame) for frame in frames] == [True] * peers.MAX_UNANSWERED + [False] * 3


def test_after_a_pause_one_frame_tries() -> None:
    """The cache may have been restarted meanwhile; if it was not, all goes on."""
    link = WanLink()
    link.send(PAGE)
    link.now += peers.FRESH_S
    first, second = link.frame(edited(PAGE, 1)), link.frame(edited(PAGE, 2))
    assert (refers(first), refers(second)) == (True, False)
    link.tell(link.restore(first))
    assert refers(link.frame(edited(PAGE, 3)))


def test_chunks_that_overtake_one_another() -> None:
    """Whatever order they come in: what they refer to was there before they were sent."""
    link = WanLink()
    link.send(PAGE)
    pages = [edited(PAGE, seed) for seed in range(8)]
    frames = [link.frame(page) for page in pages]
    assert all(map(refers, frames))
    for number in (5, 2, 7, 0, 1, 6, 3, 4):
        restored = link.restore(frames[number])
        assert restored.payload == pages[number]
        link.tell(restored)
    assert refers(link.frame(PAGE))


def test_a_frame_that_comes_twice() -> None:
    """Both copies are restored, and nothing is kept twice."""
    link = WanLink()
    link.send(PAGE)
    page = text(9000, 3)
    frame = link.frame(page)
    first, second = link.restore(frame), link.restore(frame)
    assert first.payload == second.payload == page
    link.tell(second)
    assert link.send(page) < 500


def test_feedback_that_is_doubled_or_late_changes_nothing() -> None:
    """Each says all that is kept; an older one is ignored."""
    link = WanLink()
    old = link.restore(link.frame(PAGE))
    link.now += 1
    other = text(30_000, 4)
    new = link.restore(link.frame(other))
    for told in (new, new, old):
        link.tell(told)
    assert refers(link.frame(other)) and refers(link.frame(PAGE))


def test_two_replicas_of_decompress() -> None:
    """Each flow refers to what its own replica keeps; a flow that moves costs one try."""
    link = WanLink(replicas=2)
    other = text(60_000, 9)
    first = link.send(PAGE, flow=0, replica=0)
    link.send(other, flow=1, replica=1)
    assert link.send(edited(PAGE), flow=0, replica=0) < first / 20
    assert link.send(edited(other), flow=1, replica=1) < first / 20
    assert link.send(edited(PAGE, 5), flow=1, replica=1) > first / 4, "the other replica has it"
    third = text(60_000, 20)
    link.send(third, flow=0, replica=0)
    lost = link.restore(link.frame(edited(third), flow=0), replica=1)
    assert lost.is_lacking
    link.tell(lost)
    assert link.send(edited(other, 7), flow=0, replica=1) < first / 20


def test_a_flow_that_is_new_waits_when_there_are_two_replicas() -> None:
    """Nobody knows which of them it will meet."""
    link = WanLink(replicas=2)
    link.send(PAGE, flow=0, replica=0)
    assert refers(link.frame(PAGE, flow=2)), "there is one place only"
    link.tell(link.restore(link.frame(text(60_000, 3), flow=1), replica=1))
    assert not refers(link.frame(PAGE, flow=3))


@pytest.mark.parametrize("partition", ["service", "source", "pair"])
def test_partitions_share_nothing(partition: str) -> None:
    """What one source sent makes the payloads of another smaller only if both share a partition."""
    link = WanLink(partition=partition)
    first = link.send(PAGE, flow=0)
    assert (link.send(PAGE, flow=1) < first / 20) == (partition == "service")
    assert link.send(PAGE, flow=0) < first / 20


def test_caches_of_different_size() -> None:
    """What either side has forgotten is not referred to."""
    for sizes in ((400_000, 2_000_000), (2_000_000, 400_000)):
        link = WanLink(cache_bytes=sizes[0], kept_bytes=sizes[1])
        pages = [text(60_000, seed) for seed in range(12)]
        first = [link.send(page) for page in pages]
        again = [link.send(page) for page in pages]
        assert sum(again) > sum(first) * 0.9, "in this order each was forgotten just before"
        assert link.send(pages[-1]) < first[-1] / 20


def test_what_is_used_stays() -> None:
    """The block unused for longest goes, on both sides."""
    link = WanLink(cache_bytes=500_000)
    first = link.send(PAGE)
    for seed in range(20):
        link.send(text(60_000, seed + 10))
        assert link.send(edited(PAGE, seed)) < first / 20


def test_a_block_that_fades_is_still_there_for_frames_under_way() -> None:
    """It is not told any more, and goes when a quarter of the cache has come behind it."""
    link = WanLink(kept_bytes=600_000)
    link.send(PAGE)
    under_way = link.frame(edited(PAGE))
    assert refers(under_way)
    for seed in range(8):
        link.restore(link.frame(text(60_000, seed + 10)))
    assert link.restore(under_way).payload == edited(PAGE)


def test_a_planted_block_is_noticed_and_forgotten() -> None:
    """Who knows a history's id and has no key can plant bytes under a number; the digest of what
    comes out is wrong then, never the payload, and the next frames do without it."""
    link = WanLink()
    link.send(PAGE)
    history = head_of(link.frame(PAGE)).part
    assert history is not None
    planted = _raw_frame(history.history, history.frame + 1, 1, text(60_000, 8))
    assert link.restore(planted).payload is not None
    page = text(60_000, 11)
    frame = link.frame(page)
    assert link.restore(frame).payload == page
    # Compress is told that its block is kept, which is true of the number only.
    link.now += 1
    link.tell(link.restore(link.frame(text(5000, 12))))
    frame = link.frame(edited(page))
    assert refers(frame)
    lost = link.restore(frame)
    assert lost.payload is None and lost.is_lacking
    assert lost.reason == "refers to what this cache holds otherwise"
    link.tell(lost)
    link.send(edited(page))


class Careless(Restoring):
    """The control: it believes whatever comes out."""

    def _check_original(self, *_: object) -> None:
        return


@pytest.mark.parametrize("restoring", [Restoring, Careless])
def test_a_history_that_is_used_twice(restoring: type[Restoring]) -> None:
    """Were a restarted compress to use an id again, the digest would still notice; without it, a
    wrong payload would come out."""
    link = WanLink(restoring=restoring, histories=itertools.repeat(b"h" * 8))
    link.send(PAGE)
    link.restart_compress()
    page = text(60_000, 11)
    frame = link.frame(page)
    told = link.restore(frame)
    link.tell(told)
    came = link.restore(link.frame(edited(page)))
    if restoring is Careless:
        assert came.payload is None or came.payload != edited(page)
    else:
        assert came.payload is None and came.is_lacking


def test_without_the_key_nobody_plants_or_guesses(tmp_path: Path) -> None:
    """A frame needs the digest of what comes out. With a key file only who has the key makes one,
    even of bytes that it knows; without, whoever sees the id of a history."""
    create_key_file(tmp_path / "key")
    for seals, is_restored in ((Seals(None), True), (keyed(tmp_path / "key"), False)):
        link = WanLink(seals=seals)
        link.send(PAGE)
        part = head_of(link.frame(PAGE)).part
        assert part is not None
        came = link.restore(_raw_frame(part.history, 9, 9, PAGE))
        assert (came.payload is not None) == is_restored
        if not is_restored:
            assert came.reason == "cannot decompress: made without a key, and here is a key_file"


@pytest.mark.parametrize("has_key", [True, False])
def test_who_has_no_key_has_nothing_looked_up_or_told(tmp_path: Path, has_key: bool) -> None:
    """A frame that refers to what is not there makes decompress tell what it keeps, signed, and so
    does one that asks; with a key file only for a frame that its key made. Without one, anybody's:
    the control."""
    create_key_file(tmp_path / "key")
    link = WanLink(seals=keyed(tmp_path / "key") if has_key else Seals(None))
    link.send(PAGE)
    genuine = head_of(link.frame(PAGE))
    assert genuine.part is not None and genuine.refers
    forged = Seals(None) if not has_key else _Forger()
    for part in (genuine.part, replace(genuine.part, history=b"elsewhere"[:8])):
        head = replace(genuine, part=replace(part, extents=(Extent(999, 0, 10),)))
        came = link.restore(forged.sealed_head(head, BOUND, PAGE) + bytes(head.stored_bytes))
        if has_key:
            assert (came.is_lacking, came.feedback) == (False, b"")
            assert came.reason == "cannot decompress: wrong seal"
        else:
            assert came.is_lacking and came.feedback


class _Forger(Seals):
    """Seals as somebody who does not have the key: with another one, under the same id."""

    def __init__(self) -> None:
        super().__init__(None)

    def _key(self, key_id: int) -> bytes | None:
        return b"another"


@pytest.mark.parametrize("has_key", [True, False])
def test_with_a_key_file_every_frame_is_keyed(tmp_path: Path, has_key: bool) -> None:
    """Small payloads, too, which belong to no history: what somebody else framed is refused."""
    create_key_file(tmp_path / "key")
    link = WanLink(seals=keyed(tmp_path / "key") if has_key else Seals(None))
    own = link.frame(b"small")
    assert link.restore(own).payload == b"small"
    assert bool(head_of(own).flags & Flag.KEYED) == has_key
    foreign = WanLink()
    frame = foreign.frame(b"small")
    came = link.restore(frame, bound=foreign._bounds[frame])
    assert (came.payload is None) == has_key
    forged = _Forger().sealed_head(head_of(own), BOUND, b"other") + b"other"
    assert link.restore(forged).reason == "cannot decompress: wrong digest"


def test_before_the_time_of_the_first_key_nothing_is_framed(tmp_path: Path) -> None:
    """Decompress would refuse what has no key."""
    path = tmp_path / "key"
    create_key_file(path)
    later = path.read_text().replace('"created"', '"not_before": "2999-01-01T00:00:00Z", "created"')
    path.write_text(later)
    link = WanLink(seals=keyed(path))
    for payload in (PAGE, b"small"):
        header = link.header(payload)
        assert link.ahead.frame(memoryview(payload), header, 0.0, lend) is None


def test_a_frame_is_restored_in_its_own_chunk_only(tmp_path: Path) -> None:
    """Who saw a frame cannot have it restored for himself, in a chunk under his own name, nor have
    anything forgotten by it."""
    create_key_file(tmp_path / "key")
    for seals in (Seals(None), keyed(tmp_path / "key")):
        link = WanLink(seals=seals)
        link.send(PAGE)
        frame = link.frame(PAGE)
        assert link.restore(frame, bound=b"another source, another id").payload is None
        assert link.restore(frame).payload == PAGE


def test_who_has_no_key_has_nothing_forgotten(tmp_path: Path) -> None:
    """A frame under a key that is not there is wrong, whatever it refers to; the genuine one that
    it was made from is restored after it."""
    create_key_file(tmp_path / "key")
    link = WanLink(seals=keyed(tmp_path / "key"))
    link.send(PAGE)
    frame = link.frame(PAGE)
    assert refers(frame)
    key_id = head_of(frame).key_id.to_bytes(4, "big")
    assert frame.count(key_id) == 1
    came = link.restore(frame.replace(key_id, bytes(4)))
    assert came.reason == "cannot decompress: unknown key 00000000"
    assert came.payload is None and not came.feedback
    assert link.restore(frame).payload == PAGE


def test_a_chunk_that_nobody_would_send_again_refers_to_nothing() -> None:
    """Its source asked for no report, so it would never hear that it was dropped for now."""
    link = WanLink()
    link.send(PAGE)
    frame = link.frame(PAGE, wants_report=False)
    link.restart()
    assert link.restore(frame).payload == PAGE
    assert not refers(frame)


def test_keys_that_change(tmp_path: Path) -> None:
    """Frames name their key; one that is not here is named in the reason, and may come yet: the
    chunk is dropped for now, and nobody is told anything."""
    create_key_file(tmp_path / "a")
    create_key_file(tmp_path / "b")
    link = WanLink(seals=keyed(tmp_path / "a"), kept_seals=Seals(tmp_path / "b"))
    came = link.restore(link.frame(PAGE))
    assert came.payload is None and came.is_lacking and not came.feedback
    assert came.reason.startswith("cannot decompress: unknown key ")


def test_behind_the_last_number_of_feedback_another_instance_begins() -> None:
    """Numbers have 32 bits: compress takes what comes then for another cache, not for old news."""
    link = WanLink()
    link.send(PAGE)
    behind = link.behind[0]
    behind._feedback_count = MAX_NUMBER - 1
    told = []
    for _ in range(2):
        came = link.restore(link.frame(PAGE))
        link.tell(came)
        told.append(decode_feedback(memoryview(came.feedback), Seals(None)))
    last, first = told
    assert (last.number, first.number) == (MAX_NUMBER, 1)
    assert last.instance != first.instance
    link.send(edited(PAGE))
    assert refers(link.frame(PAGE))


def test_what_a_frame_may_refer_to_is_bounded() -> None:
    """The head alone decides, before anything is looked up."""
    link = WanLink()
    link.send(PAGE)
    many = [Extent(0, 0, 10)] * (MAX_EXTENTS + 1)
    assert "65 extents, allowed 64" in link.restore(_frame(many)).reason
    large = [Extent(0, 0, MAX_REFERRED_BYTES - 1), Extent(0, 0, 2)]
    assert "bomb: refers to 2097153 bytes" in link.restore(_frame(large)).reason


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (FrameHead(Flag.REMEMBER, 0, 0, 0), "flags that contradict each other"),
        (FrameHead(Flag.ASK, 0, 0, 0), "flags that contradict each other"),
        (FrameHead(Flag.DICTIONARY, 0, 0, 0), "flags that contradict each other"),
        (
            FrameHead(Flag.HISTORY, 0, 0, 0, part=HistoryPart(b"h" * 8, 0, 0, (Extent(0, 0, 1),))),
            "flags that contradict each other",
        ),
        (
            FrameHead(Flag.DICTIONARY | Flag.ZSTANDARD, 0, 10, 0, 5),
            "dictionary 00000005 is not here",
        ),
        (FrameHead(Flag.KEYED, 0, 0, 0, key_id=5), "unknown key 00000005"),
        (FrameHead(Flag(0x80), 0, 0, 0), "flags 0x80"),
        (FrameHead(Flag(0), PayloadType.REPORT, 0, 0), "a delivery report, which is never"),
        (FrameHead(Flag(0), PayloadType.SEALED_REPORT, 0, 0), "a delivery report, which is never"),
    ],
)
def test_heads_that_say_nothing_sensible(head: FrameHead, reason: str) -> None:
    """One named drop each."""
    assert reason in WanLink().restore(head.to_bytes().ljust(head.sealed_bytes, b"\0")).reason


def test_a_head_of_another_version() -> None:
    """Dropped by its number, never passed on: nobody could read what is behind it."""
    frame = bytearray(WanLink().frame(PAGE))
    for version in (*range(3), *range(4, 256)):
        frame[0] = version
        came = WanLink().restore(bytes(frame))
        assert came.payload is None
        assert came.reason == f"cannot decompress: version {version}, known is 3"


def test_every_byte_of_a_frame_counts() -> None:
    """Altered anywhere: one named drop, or the original where it is only the padding."""
    link = WanLink()
    first = link.frame(PAGE)
    link.tell(link.restore(first))
    page = edited(PAGE)
    frame = link.frame(page)
    assert refers(frame)
    for place in range(len(frame)):
        altered = bytearray(frame)
        altered[place] ^= 0x55
        link.restart()
        link.restore(first)
        came = link.restore(bytes(altered), bound=link._bounds[frame])
        assert came.payload is None or (came.payload, came.payload_type) == (page, 0)
        assert came.payload is None or place >= head_of(frame).sealed_bytes


def test_what_both_sides_keep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, blocks, histories, partitions, flows, frames, instances, chunk ids: each has its
    cap, and stays at it when one more comes."""
    monkeypatch.setattr(kept, "MAX_BLOCKS", 40)
    monkeypatch.setattr(kept, "MAX_HISTORIES", 3)
    monkeypatch.setattr(sent, "MAX_PARTITIONS", 2)
    monkeypatch.setattr(compressing, "MAX_SEEN", 10)
    link = WanLink(cache_bytes=300_000, partition="pair")
    for number in range(100):
        link.send(text(5000, number), flow=number % 4)
        assert link.sent.held_bytes <= 300_000
    behind = link.behind[0]._kept
    assert len(behind) <= 40 and behind.held_bytes <= 300_000
    assert len(behind._histories) == 3
    assert len(link.sent._histories) == 2
    assert len(link.ahead._seen) == 10


def test_what_is_known_of_peers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances that claim to keep something, flows, frames."""
    monkeypatch.setattr(peers, "MAX_FLOWS", 5)
    monkeypatch.setattr(peers, "MAX_FRAMES", 7)
    known = peers.Peers()
    for number in range(30):
        known.sent(number, b"%d" % number, None)
        known.told(Feedback(b"h" * 8, b"%16d" % number, 1, number, number), 0.0)
    assert (len(known._views), len(known._flows)) == (peers.MAX_INSTANCES, 5)
    assert len(known._frames) == 7


def test_a_flood_of_anchors_is_thinned() -> None:
    """The same bytes again and again are anchors everywhere, or nowhere."""
    for period in range(1, 40):
        places, hashes = find_anchors(bytes(range(period)) * (MIB // period))
        assert len(places) == len(hashes) <= MAX_ANCHORS


def test_anchors_move_with_what_they_stand_in() -> None:
    """An insertion moves all behind it, and changes none but around itself."""
    page = text(200_000)
    places, hashes = find_anchors(page)
    assert 200 < len(places) < 800
    moved, again = find_anchors(page[:1000] + b"inserted" + page[1000:])
    known = dict(zip(again.tolist(), moved.tolist(), strict=True))
    behind = [(h, p) for h, p in zip(hashes.tolist(), places.tolist(), strict=True) if p >= 1000]
    assert all(known[h] == p + 8 for h, p in behind if list(hashes).count(h) == 1)
    for size in range(70):
        assert len(find_anchors(bytes(size))[0]) <= size


def test_feedback_is_read_as_it_was_written() -> None:
    """And nothing else is taken for feedback."""
    seals = Seals(None)
    told = Feedback(b"h" * 8, b"i" * 16, 3, 4, 5, True, (range(1, 3), range(7, 8)))
    encoded = told.to_bytes(seals, 0)
    assert decode_feedback(memoryview(encoded), seals) == told
    for place in range(len(encoded)):
        altered = bytearray(encoded)
        altered[place] ^= 1
        with pytest.raises(DamagedFrameError):
            decode_feedback(memoryview(altered), seals)
    for size in range(len(encoded)):
        with pytest.raises(DamagedFrameError):
            decode_feedback(memoryview(encoded[:size]), seals)


def _frame(extents: list[Extent]) -> bytes:
    part = HistoryPart(b"h" * 8, 0, 0, tuple(extents))
    return FrameHead(Flag.HISTORY | Flag.ZSTANDARD, 0, 100, 0, part=part).to_bytes() + bytes(24)


def _raw_frame(history: bytes, frame: int, block: int, payload: bytes) -> bytes:
    """Return a frame that somebody without a key makes."""
    flags, size = Flag.HISTORY | Flag.REMEMBER, len(payload)
    head = FrameHead(flags, 0, size, size, part=HistoryPart(history, frame, block))
    return Seals(None).sealed_head(head, BOUND, payload) + payload
