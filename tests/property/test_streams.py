"""Streams over a channel that loses, repeats and reorders: exactly the bytes, or a reset."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.streams.inbox import Inbox
from packetcloud.chunk.streams.outbox import Outbox
from packetcloud.chunk.streams.wire import (
    Call,
    Data,
    Grant,
    Listen,
    Listening,
    Message,
    MessageKind,
    NotListening,
    Open,
    Opened,
    Reset,
    ResetCode,
    decode_message,
    encode_message,
)
from tests.functional.stream_world import Fate, StreamWorld

U32 = st.integers(0, (1 << 32) - 1)
OFFSETS = st.integers(0, 1 << 62)
PORTS = st.integers(1, 65535)
HOSTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
CODES = st.sampled_from(ResetCode)
FRAMES = st.one_of(
    st.builds(Open, U32, HOSTS, PORTS, OFFSETS),
    st.builds(Call, U32, HOSTS, PORTS, OFFSETS),
    st.builds(Opened, U32, OFFSETS),
    st.builds(Data, U32, OFFSETS, st.tuples(st.binary(max_size=60).map(memoryview)), st.booleans()),
    st.builds(Grant, U32, OFFSETS, OFFSETS),
    st.builds(Reset, U32, CODES, TEXTS),
    st.builds(Listen, PORTS),
    st.builds(Listening, PORTS),
    st.builds(NotListening, PORTS, CODES, TEXTS),
)
NUMBERS = st.integers(0, (1 << 64) - 1)
MESSAGES = st.one_of(
    st.builds(
        Message,
        st.just(MessageKind.REQUEST),
        NUMBERS,
        NUMBERS,
        st.lists(FRAMES, max_size=5).map(tuple),
        st.booleans(),
        st.booleans(),
        U32,
        U32,
    ),
    st.builds(
        Message,
        st.sampled_from([MessageKind.ANSWER, MessageKind.UNKNOWN, MessageKind.BUSY]),
        NUMBERS,
        NUMBERS,
        st.lists(FRAMES, max_size=5).map(tuple),
    ),
)


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    """Encoding and decoding lose nothing; a cut message is refused with its one error."""
    data = encode_message(message)
    assert decode_message(data) == message
    for end in range(len(data)):
        try:
            cut = decode_message(data[:end])
        except ProtocolError:
            continue
        assert cut.frames == message.frames[: len(cut.frames)], "a cut between two frames"


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_a_message_or_one_error(junk: bytes, tail: bytes) -> None:
    """Nothing else is ever raised, with and without a plausible head."""
    head = encode_message(Message(MessageKind.ANSWER, 1, 2))
    for data in (junk, head + junk, head + bytes((3, 0, 0, 0)) + tail):
        try:
            decode_message(data)
        except ProtocolError:
            continue


@given(
    st.lists(st.binary(max_size=30_000), max_size=8),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_an_outbox_and_an_inbox_carry_bytes_in_order(
    parts: list[bytes], sizes: list[int], random: Random
) -> None:
    """Whatever is lost, repeated or comes early: the inbox gives what went into the outbox."""
    whole = b"".join(parts)
    outbox, inbox = Outbox(len(whole)), Inbox(len(whole))
    for part in parts:
        outbox.put(part)
    outbox.finish()
    got = b""
    flying: list[Data] = []
    for turn in range(400):
        data = outbox.take(1, sizes[turn % len(sizes)])
        if data is None and not flying:
            if inbox.has_ended:
                break
            outbox.send_again()
            continue
        if data is not None and (turn > 200 or random.random() < 0.8):
            flying.append(data)
        random.shuffle(flying)
        if flying and (data is None or random.random() < 0.7):
            one = flying.pop()
            flying += [one] * (random.random() < 0.2)
            piece = memoryview(b"".join(bytes(part) for part in one.pieces))
            got += b"".join(inbox.take(Data(1, one.offset, (piece,), one.is_last)))
            outbox.acknowledge(inbox.received, len(whole))
    else:
        assert whole.startswith(got)
        return
    assert got == whole and outbox.is_done and not outbox.kept_bytes


@given(
    seed=st.integers(0, 1 << 32),
    lost=st.sampled_from([0.0, 0.02, 0.2]),
    repeated=st.sampled_from([0.0, 0.1, 0.5]),
    sizes=st.lists(
        st.tuples(st.integers(0, 300_000), st.integers(0, 300_000)), min_size=1, max_size=4
    ),
    read_share=st.sampled_from([0.1, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_streams_carry_exactly_the_bytes_or_are_reset(
    seed: int,
    lost: float,
    repeated: float,
    sizes: list[tuple[int, int]],
    read_share: float,
) -> None:
    """An end is only ever seen after every byte before it; without loss nothing is reset."""
    world = StreamWorld(seed, Fate(lost, repeated), read_share)
    random = Random(seed)
    streams = [
        world.open(f"s{number}", random.randbytes(up), random.randbytes(down))
        for number, (up, down) in enumerate(sizes)
    ]
    ends = [world.host_ends[stream] for stream in streams]
    world.run(600.0, lambda: all(end.is_done or end.failure for end in ends))
    for number, stream in enumerate(streams):
        host, server = world.host_ends[stream], world.server_ends.get(stream)
        down = world.answers_to[f"s{number}"]
        assert down.startswith(bytes(host.got))
        assert not host.has_ended or bytes(host.got) == down
        if server is not None:
            assert host.to_send.startswith(bytes(server.got))
            assert not server.has_ended or bytes(server.got) == host.to_send
        assert host.is_done or host.failure
        assert lost or not host.failure, host.failure


@given(seed=st.integers(0, 1 << 32), after_count=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_translator_that_is_restarted_resets_streams_and_serves_again(
    seed: int, after_count: int
) -> None:
    """In mid-transfer: the host hears that its streams are gone, and another one works."""
    world = StreamWorld(seed, Fate())
    big = Random(seed).randbytes(300_000)
    first = world.host_ends[world.open("first", big, big)]
    steps = iter(range(after_count))
    world.run(600.0, lambda: first.is_done or next(steps, None) is None)
    world.restart_translator()
    world.run(600.0, lambda: first.is_done or bool(first.failure))
    # What was on its way still comes, and may be all.
    assert first.failure or bytes(first.got) == big
    assert big.startswith(bytes(first.got))
    # If the first was over before, the host hears of the restart by this one.
    again = world.host_ends[world.open("again", b"up", b"down")]
    world.run(world.now + 600.0, lambda: again.is_done or bool(again.failure))
    assert again.is_done and bytes(again.got) == b"down", again.failure


@given(
    seed=st.integers(0, 1 << 32),
    lost=st.sampled_from([0.0, 0.1]),
    sizes=st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)),
)
@settings(max_examples=20, deadline=None)
def test_a_call_reaches_the_host(seed: int, lost: float, sizes: tuple[int, int]) -> None:
    """Who comes in at a port that the host asked for: exactly the bytes, both ways."""
    world = StreamWorld(seed, Fate(lost))
    random = Random(seed)
    down, up = random.randbytes(sizes[0]), random.randbytes(sizes[1])
    world.answers_to["call"] = up
    world.caller.listen(80)
    world.run(600.0, lambda: bool(world.ports_claimed))
    assert set(world.ports_claimed) == {80}
    stream = world.call("192.0.2.7", 80, down)
    ended = world.server_ends[stream]
    world.run(world.now + 600.0, lambda: ended.is_done or bool(ended.failure))
    assert lost or ended.is_done, ended.failure
    if ended.is_done:
        assert bytes(ended.got) == up and bytes(world.host_ends[stream].got) == down
