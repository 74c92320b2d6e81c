"""What flows make an ids service remember, search and tell: each budget, and what is over it."""

from __future__ import annotations

import json
import zlib

import pytest

from packetcloud.chunk.header import WRAPPED_TYPES, ChunkHeader, PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.chunk.streams.wire import (
    MAX_FRAMES_COUNT,
    Data,
)
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.ids import borders, shares
from packetcloud.services.ids.borders import Borders, Run
from packetcloud.services.ids.flows import YOUNG_S, FlowTable
from packetcloud.services.ids.inspection import Decision, Doubt, Inspection, Policy
from packetcloud.services.ids.rates import Rates
from packetcloud.services.ids.reader import read_rules
from packetcloud.services.ids.ruleset import compile_rules
from packetcloud.services.ids.shares import AlertShares
from packetcloud.services.ids.state import export_state, import_state
from packetcloud.services.testing import HARNESS_SOURCE, ProcessResult, ServiceHarness
from tests.unit.services.ids.ids_place import DROPPED_BY_1, MALICIOUS, Place, ids_of, streams

DESTINATION = GUID(b"\x02" * 20)


def send(to: ServiceHarness, *frames: Data) -> ProcessResult:
    return streams(*frames).to(to)


def inspection(policy: Policy | None = None, **table: int) -> Inspection:
    ruleset, refused = compile_rules(read_rules(MALICIOUS.encode(), {}))
    assert not refused
    sizes = {"max_flows": 10, "max_bytes": 8 << 20, "edge_bytes": 64} | table
    return Inspection(ruleset, FlowTable(**sizes), Rates(10), policy=policy)


def ask(judge: Inspection, frame: Data, now: float = 0.0, source: int = 1) -> Decision:
    payload = streams(frame).payload
    header = ChunkHeader(
        GUID(bytes([source]) * 20),
        DESTINATION,
        ChunkId(1),
        len(payload),
        payload_type=PayloadType.STREAM,
    )
    return judge.inspect(header, memoryview(payload), now)


# Work for one chunk


def scattered(words: tuple[bytes, bytes]) -> list[Data]:
    """Return as many parts as a message may have; the last two lie beside each other."""
    others = [Data(number, 7, (b"x",)) for number in range(2, MAX_FRAMES_COUNT)]
    return [*others, Data(1, len(words[0]), (words[1],)), Data(1, 0, (words[0],))]


def test_the_largest_message_of_streams_is_searched_to_its_end(place: Place) -> None:
    """Whatever the stream protocol takes, each part by itself; harmless, it goes on."""
    for words, reason in (
        ((b"some harm", b"less bytes"), ""),
        ((b"some malic", b"ious bytes"), DROPPED_BY_1),
    ):
        harness = place.start(MALICIOUS, max_runs=MAX_FRAMES_COUNT, border_mib=64)
        assert send(harness, *scattered(words)).reason == reason
    assert not place.events()


@pytest.mark.parametrize("policy", ["drop", "forward"])
def test_what_is_over_the_work_for_one_chunk(place: Place, policy: str) -> None:
    """It is told and follows the policy; the next chunk of its flow is judged by itself."""
    harness = place.start(MALICIOUS, budget_mib=1, on_overload=policy)
    result = send(harness, *scattered((b"some harm", b"less bytes")))
    assert result.reason == ("ids: over the work for one chunk" if policy == "drop" else "")
    assert place.events()[0] == "over_budget"
    assert send(harness, Data(1, 100, (b"x",))).code is VerdictCode.FORWARD
    assert send(harness, Data(1, 101, (b"malicious",))).code is VerdictCode.DROP


# Ends of chunks


def test_without_room_a_chunk_is_dropped_for_now(place: Place) -> None:
    """Its host sends it again; what is remembered stays, and is found."""
    harness = place.start(MALICIOUS, max_runs=3, on_no_room="drop")
    assert send(harness, Data(1, 0, (b"some malic",))).code is VerdictCode.FORWARD
    for number in (2, 3):
        assert send(harness, Data(number, 0, (b"x",))).code is VerdictCode.FORWARD
    for _ in range(2):
        result = send(harness, Data(4, 0, (b"x",)))
        assert (result.reason, result.again) == ("ids: no room for its ends now", True)
    assert send(harness, Data(2, 1, (b"x",))).code is VerdictCode.FORWARD
    assert send(harness, Data(1, 10, (b"ious",))).reason == DROPPED_BY_1
    assert place.events()[0] == "no_room"


def test_room_comes_back_by_itself() -> None:
    """A run that does not go on for two minutes gives way; nothing is refused for good."""
    judge = inspection(Policy(drops_without_room=True), max_runs=2)
    for number in (1, 2):
        assert ask(judge, Data(number, 0, (b"x",))).doubt is None
    for now in (0.0, YOUNG_S - 1):
        decision = ask(judge, Data(3, 0, (b"x",)), now)
        assert (decision.doubt, decision.is_doubt_refused) == (Doubt.NO_ROOM, True)
    decision = ask(judge, Data(3, 0, (b"x",)), YOUNG_S)
    assert (decision.doubt, decision.forgets) == (None, True)
    assert judge.flows.forgotten_borders_count == 1


@pytest.mark.parametrize("says_age", [True, False])
def test_runs_are_as_old_at_the_successor(says_age: bool) -> None:
    """What did not go on for long gives way there as it would have here; in the state of an
    older version, which says no ages, it is as new."""
    policy = Policy(drops_without_room=True)
    judge = inspection(policy, max_runs=1)
    ask(judge, Data(1, 0, (b"x",)))
    document = json.loads(zlib.decompress(export_state(judge.flows, judge.rates, YOUNG_S - 1)))
    if not says_age:
        (item,) = document["flows"]
        del item[7:], item[5][0][0][6:]
    state = zlib.compress(json.dumps(document).encode())
    for later, is_old in ((0.0, False), (1.0, says_age), (YOUNG_S, True)):
        successor = inspection(policy, max_runs=1)
        import_state(state, successor.flows, successor.rates, 5000.0)
        doubt = ask(successor, Data(2, 0, (b"x",)), 5000.0 + later).doubt
        assert doubt is (None if is_old else Doubt.NO_ROOM)


def test_a_flow_that_forgets_is_told_once_a_minute() -> None:
    """As long as it goes on; and again when it begins again."""
    judge = inspection(max_runs=1)
    told = [ask(judge, Data(int(now) + 1, 0, (b"x",)), now).forgets for now in (0, 1, 30, 61, 62)]
    assert told == [False, True, False, True, False]


def test_a_flow_forgets_its_own_first() -> None:
    """However much one source sends, what is known of another one's flow is found."""
    judge = inspection(max_bytes=64 << 10)
    assert ask(judge, Data(1, 0, (b"some malic",)), source=2).refused_by is None
    for number in range(300):
        ask(judge, Data(number, 0, (b"x" * 200,)), source=1)
    assert judge.flows.forgotten_borders_count > 200
    assert ask(judge, Data(1, 10, (b"ious",)), source=2).refused_by is not None


def test_what_was_forgotten_for_others_is_told_of_the_flow_that_lost_it() -> None:
    """With its next chunk, which may have been searched with what is gone."""
    judge = inspection(max_flows=30, max_bytes=16 << 10)
    ask(judge, Data(1, 0, (b"some malic",)), source=2)
    for source in range(3, 13):
        for number in range(3):
            ask(judge, Data(number, 0, (b"x" * 200,)), source=source)
    assert ask(judge, Data(1, 10, (b"ious",)), source=2).forgets


@pytest.mark.parametrize(
    ("first", "second", "is_told"),
    [
        (Data(1, 0, (b"some malXX",)), Data(1, 8, (b"icious",)), True),
        (Data(1, 8, (b"icious",)), Data(1, 0, (b"some malXX",)), True),
        (Data(1, 4, (b"XX",)), Data(1, 0, (b"some malic",)), True),
        (Data(1, 0, (b"some malic",)), Data(1, 8, (b"icy",)), False),
        (Data(1, 0, (b"some malic",)), Data(2, 8, (b"XX",)), False),
        (Data(1, 0, (b"some malXX" + b"x" * 200,)), Data(1, 8, (b"icious",)), True),
    ],
)
def test_other_bytes_where_some_were_before(first: Data, second: Data, is_told: bool) -> None:
    """Whoever receives both may take the one or the other; parts that overlap are compared where
    the ends of what came before are kept."""
    judge = inspection(Policy(drops_doubtful=True))
    assert ask(judge, first).doubt is None
    decision = ask(judge, second)
    assert (decision.doubt is Doubt.OTHER_CONTENT) is is_told is decision.is_doubt_refused


def test_too_little_for_one_flow_is_refused(place: Place) -> None:
    """One that could remember nothing of any flow would only look as if it searched borders."""
    with pytest.raises(ServiceConfigError, match=r"border_mib = 1: .*allowed .*: 2 and more"):
        place.start(MALICIOUS, border_bytes=65536, border_mib=1)


def test_runs_that_lie_over_each_other_are_not_taken_over() -> None:
    """Whoever handed them over was at fault; what is left is found as ever."""
    run = Run(b"s", 0, 10, 10, b"0123456789", b"0123456789")
    inside = Run(b"s", 4, 6, 2, b"45", b"45")
    found = Borders([run, run, inside, Run(b"s", 5, 5, 0, b"", b"")])
    assert found.runs == [run]
    assert found.forget(0, 0) == [run]
    assert (len(found), found.kept_bytes) == (0, 0)
    found.add(borders.Place(b"s", 4, 6, memoryview(b"45")), 10)
    assert len(found) == 1


# What is encrypted before it comes here


@pytest.mark.parametrize(
    ("policy", "code", "events"),
    [
        ("forward", VerdictCode.FORWARD, []),
        ("alert", VerdictCode.FORWARD, ["sealed"]),
        ("drop", VerdictCode.DROP, ["sealed"]),
    ],
)
@pytest.mark.parametrize("kind", sorted(WRAPPED_TYPES))
def test_what_is_sealed(
    place: Place, policy: str, code: VerdictCode, events: list[str], kind: PayloadType
) -> None:
    """Between an encrypter and its decrypter nothing can be read: counted, and as the policy says.
    Around the pair the same chunk is read, before and after, and is no other one."""
    harness = place.start(MALICIOUS, on_sealed=policy)
    assert harness.process(b"some", chunk_id=1).code is VerdictCode.FORWARD
    assert harness.process(b"?", chunk_id=1, payload_type=kind).code is code
    assert harness.process(b"some", chunk_id=1).code is VerdictCode.FORWARD
    assert place.events() == events
    assert ids_of(harness).stats()["sealed"] == 1


def test_a_rule_may_pass_what_is_sealed(place: Place) -> None:
    """Of those whose pair one knows."""
    passing = f"pass chunk {HARNESS_SOURCE} any -> any any (sid:2;)"
    harness = place.start(passing, MALICIOUS, on_sealed="drop")
    result = harness.process(b"?", payload_type=PayloadType.SEALED)
    assert result.code is VerdictCode.FORWARD
    other = harness.process(b"?", payload_type=PayloadType.SEALED, source=DESTINATION)
    assert other.reason == "ids: encrypted or compressed before it came here"


# Alerts


def noise(table: AlertShares, signatures: int, count: int) -> int:
    """Have one source tell as much as it can; return how many were told."""
    told = (table.take(number % signatures, b"noisy", 0.0) for number in range(count))
    return sum(one is not None for one in told)


def test_one_source_silences_nobody() -> None:
    """With one signature it has a tenth, with many a quarter; others are told, whichever rule."""
    table = AlertShares(100)
    assert noise(table, 1, 1000) == 10
    assert noise(table, 1000, 1000) == 15
    assert table.take(0, b"quiet", 0.0) == 0
    for source in range(20):  # however many sources are noisy
        noise_of = [table.take(1, b"n%d" % source, 0.0) for _ in range(50)]
        assert noise_of[0] == 0
    assert table.take(0, b"another", 0.0) == 0


def test_with_one_bucket_for_all_others_are_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: who comes first takes all."""
    for name in ("SOURCE_SHARE", "SIGNATURE_SHARE"):
        monkeypatch.setattr(shares, name, 1)
    monkeypatch.setattr(shares, "KEPT_FOR_QUIET", 0.0)
    table = AlertShares(100)
    assert noise(table, 1, 1000) == 100
    assert table.take(0, b"quiet", 0.0) is None


def test_what_was_suppressed_is_told(place: Place) -> None:
    """With the next alert of the same, and of those without one with the counters."""
    table = AlertShares(100)
    noise(table, 1, 1000)
    assert table.untold(8) == [(0, b"noisy", 990)]
    assert table.take(0, b"noisy", 0.1) == 990
    assert table.untold(8) == []
    harness = place.start(MALICIOUS, alerts_per_s=1, stats_interval_s=3600)
    for number in range(5):
        harness.process(b"malicious", chunk_id=number)
    harness.service.stop()
    (line,) = place.told("stats")
    found = line["stats"]["ids"]
    assert found["alerts_suppressed"] == 5 - len(place.told("alert"))
    (most,) = found["alerts_most_suppressed"]
    assert (most["signature"], most["src_guid"]) == ("1:1", HARNESS_SOURCE.hex)
    harness.service.start(harness._context)
