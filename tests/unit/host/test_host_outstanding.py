"""The sending half: every send ends exactly once, with the truth, within its lifetime."""

from __future__ import annotations

import pytest

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import decode_header
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import DeliveryReport, Outcome
from packetcloud.chunk.names import ChunkId
from packetcloud.chunk.reasons import Reason
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.header_template import HeaderTemplate, SendOptions
from packetcloud.host.outstanding import (
    REFUSED_CAP_S,
    REFUSED_FIRST_S,
    OutstandingSends,
    SendLimits,
)
from packetcloud.host.report_timer import CAP_S, FIRST_S, FLOOR_S, ReportTimer
from packetcloud.host.results import SendOutcome, SendResult
from packetcloud.host.send import CancelAtHop, HandToHop, Resolve, Send, SendState

SOURCE = Identity(b"\x01" * 32).guid
DESTINATION = Identity(b"\x02" * 32).guid


class Bench:
    """An `OutstandingSends` and what it has asked for so far."""

    def __init__(self, limits: SendLimits | None = None, up: bool = True) -> None:
        self.sends = OutstandingSends(limits or SendLimits(), ReportTimer())
        self.results: dict[int, SendResult] = {}
        self.handed: list[Send] = []
        self.cancelled: list[Send] = []
        self.prefixes: list[bytes] = []
        if up:
            self.sends.link_up(0.0)

    def submit(
        self,
        chunk_id: int,
        now: float = 0.0,
        *,
        report: bool = True,
        size: int = 10,
        life: float = 60,
    ) -> Send:
        options = SendOptions(DESTINATION, wants_report=report)
        template = HeaderTemplate(options, SOURCE)
        send = Send(chunk_id, template, bytes(size), b"", now, now + life)
        self.sends.submit(send, now)
        self.collect()
        return send

    def collect(self) -> None:
        for command in self.sends.take_commands():
            match command:
                case HandToHop(send, prefix):
                    self.handed.append(send)
                    self.prefixes.append(prefix)
                case CancelAtHop(send):
                    self.cancelled.append(send)
                case Resolve(send, result):
                    assert send.chunk_id not in self.results, "ended twice"
                    self.results[send.chunk_id] = result

    def settled(self, send: Send, settlement: Settlement, now: float, reason: int = 0) -> None:
        self.sends.settled(send, settlement, reason, now)
        self.collect()

    def reported(
        self, chunk_id: int, outcome: Outcome, now: float, reason: int = 0, detail: str = ""
    ) -> None:
        self.sends.reported(DeliveryReport(ChunkId(chunk_id), outcome, reason, detail), now)
        self.collect()

    def timeout(self, now: float) -> None:
        self.sends.handle_timeout(now)
        self.collect()


def test_delivered() -> None:
    """Custody, then the report: delivered, with both times measured from the call."""
    bench = Bench()
    send = bench.submit(1, 10.0)
    assert bench.handed == [send]
    bench.settled(send, Settlement.ACCEPTED, 10.5)
    assert send.state is SendState.IN_CUSTODY
    bench.reported(1, Outcome.DELIVERED, 11.0)
    assert bench.results[1] == SendResult(SendOutcome.DELIVERED, 0, "", 0.5, 1.0, 1, False)
    assert len(bench.sends) == 0
    assert bench.sends.next_timeout() is None


def test_without_report_it_ends_at_custody() -> None:
    """Who asks for no report learns when the router took custody."""
    bench = Bench()
    send = bench.submit(1, report=False)
    bench.settled(send, Settlement.ACCEPTED, 0.25)
    assert bench.results[1].outcome is SendOutcome.IN_CUSTODY
    assert bench.results[1].ok


def test_final_refusal_ends_it_with_reason_and_detail() -> None:
    """A custodian's refusal reaches the caller with its reason and words, and is certain."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.1)
    bench.reported(1, Outcome.REFUSED, 0.2, Reason.UNKNOWN_SID, "no VI")
    result = bench.results[1]
    assert (result.outcome, result.reason, result.detail) == (
        SendOutcome.REFUSED,
        Reason.UNKNOWN_SID,
        "no VI",
    )
    assert not result.indeterminate
    assert "unknown_sid (no VI)" in result.explain()


def test_hop_refusal_ends_it() -> None:
    """The first router's own refusal is told the same way."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.REFUSED, 0.1, Reason.NOT_AUTHORISED)
    assert bench.results[1].reason == Reason.NOT_AUTHORISED
    assert not bench.results[1].indeterminate


@pytest.mark.parametrize(
    "reason", [Reason.STORE_FULL, Reason.NEIGHBOUR_LOST, Reason.SHUTTING_DOWN, Reason.SEND_AGAIN]
)
def test_refusal_that_time_may_heal_is_retried_with_back_off(reason: Reason) -> None:
    """It goes out again, each time later, and ends with that reason when its life is over."""
    bench = Bench()
    send = bench.submit(1, life=60)
    now, gaps, last = 0.0, [], 0.0
    while 1 not in bench.results:
        if send.in_flight:
            bench.settled(send, Settlement.REFUSED, now, reason)
        due = bench.sends.next_timeout()
        assert due is not None
        now = due
        count = len(bench.handed)
        bench.timeout(now)
        if len(bench.handed) > count:
            gaps.append(now - last)
            last = now
    assert gaps[:3] == [REFUSED_FIRST_S, 2 * REFUSED_FIRST_S, 4 * REFUSED_FIRST_S]
    assert max(gaps) <= REFUSED_CAP_S
    assert bench.results[1].outcome is SendOutcome.REFUSED
    assert bench.results[1].reason == reason
    assert not bench.results[1].indeterminate
    assert now == pytest.approx(60.0)


def test_missing_report_means_sending_again_with_the_life_that_is_left() -> None:
    """After the report interval the same id goes out again; its lifetime has shrunk."""
    bench = Bench()
    send = bench.submit(7)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    due = bench.sends.next_timeout()
    assert due == FIRST_S
    bench.timeout(due)
    assert bench.handed == [send, send]
    first, second = (decode_header(prefix) for prefix in bench.prefixes)
    assert first.chunk_id == second.chunk_id == ChunkId(7)
    assert (first.lifetime_ms, second.lifetime_ms) == (60_000, 57_000)


def test_lost_settlement_sends_again_after_reconnect() -> None:
    """What a broken session held goes out on the next session at once."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.LOST, 1.0)
    bench.sends.link_down(1.0)
    bench.collect()
    assert len(bench.handed) == 1
    bench.sends.link_up(5.0)
    bench.collect()
    assert bench.handed == [send, send]


def test_chunk_in_custody_of_a_restarted_router_is_sent_again_soon() -> None:
    """After a reconnect a long back-off is cut short: the router may have forgotten the chunk."""
    bench = Bench()
    send = bench.submit(1)
    for _ in range(3):
        now = bench.sends.next_timeout() if send.state is SendState.IN_CUSTODY else 0.0
        assert now is not None
        bench.timeout(now)
        bench.settled(send, Settlement.ACCEPTED, now)
    due = bench.sends.next_timeout()
    assert due is not None
    assert due - now > 2 * FIRST_S
    bench.sends.link_down(now)
    bench.sends.link_up(now)
    assert bench.sends.next_timeout() == now + FIRST_S


def test_no_word_until_the_end_is_expired_and_indeterminate() -> None:
    """A chunk that was in custody may have been delivered: expired, and said to be uncertain."""
    bench = Bench()
    send = bench.submit(1, life=5.0)
    now = 0.0
    while 1 not in bench.results:
        if send.in_flight:
            bench.settled(send, Settlement.ACCEPTED, now)
        due = bench.sends.next_timeout()
        assert due is not None
        now = due
        bench.timeout(now)
    assert bench.results[1].outcome is SendOutcome.EXPIRED
    assert bench.results[1].indeterminate
    assert now == pytest.approx(5.0 + SendLimits().report_grace_s)


def test_expired_without_ever_leaving_is_certain() -> None:
    """Without a router nothing can have been delivered."""
    bench = Bench(up=False)
    bench.submit(1, life=5.0)
    bench.timeout(5.0)
    assert bench.results[1].outcome is SendOutcome.EXPIRED
    assert not bench.results[1].indeterminate
    assert bench.results[1].attempts_count == 0


def test_report_in_the_grace_after_the_lifetime_counts() -> None:
    """A report needs time for its way back: it is still believed shortly after the end."""
    bench = Bench()
    send = bench.submit(1, life=2.0)
    bench.settled(send, Settlement.ACCEPTED, 0.1)
    bench.timeout(2.0)
    bench.reported(1, Outcome.DELIVERED, 2.5)
    assert bench.results[1].ok


def test_refusal_of_one_copy_while_another_is_out_is_indeterminate() -> None:
    """A refused copy says nothing of the other copy."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    bench.timeout(FIRST_S)
    bench.settled(send, Settlement.ACCEPTED, FIRST_S)
    bench.reported(1, Outcome.REFUSED, 4.0, Reason.HOP_LIMIT)
    assert bench.results[1].indeterminate


def test_end_while_the_hop_holds_the_payload_waits_for_the_hop() -> None:
    """The caller may reuse its buffer when told; so first the hop must let go of it."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    bench.timeout(FIRST_S)
    assert send.in_flight
    bench.reported(1, Outcome.DELIVERED, 3.5)
    assert bench.cancelled == [send]
    assert bench.results == {}
    bench.settled(send, Settlement.CANCELLED, 3.6)
    assert bench.results[1].outcome is SendOutcome.DELIVERED


def test_expiry_that_comes_too_late_to_cancel_is_indeterminate() -> None:
    """The cancel met an acceptance: the chunk is out of our hands after all."""
    bench = Bench()
    send = bench.submit(1, life=2.0)
    bench.timeout(2.0)
    assert bench.cancelled == [send]
    bench.settled(send, Settlement.ACCEPTED, 2.1)
    assert bench.results[1].outcome is SendOutcome.EXPIRED
    assert bench.results[1].indeterminate


def test_report_of_an_unknown_outcome_does_not_count_the_copy_as_gone() -> None:
    """A custodian that may have left a copy makes no failure certain; the chunk goes again."""
    bench = Bench()
    send = bench.submit(1, life=5.0)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    bench.reported(1, Outcome.EXPIRED, 1.0, Reason.OUTCOME_UNKNOWN)
    assert bench.results == {}
    bench.timeout(FIRST_S)
    assert send.in_flight
    bench.settled(send, Settlement.CANCELLED, 4.0)
    bench.timeout(5.0)
    bench.timeout(6.1)
    assert bench.results[1].outcome is SendOutcome.EXPIRED
    assert bench.results[1].indeterminate


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.EXPIRED])
@pytest.mark.parametrize("is_second_hand", [False, True])
def test_failure_at_second_hand_is_indeterminate(outcome: Outcome, is_second_hand: bool) -> None:
    """Two routers may have made two copies of the one that this host counts."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    report = DeliveryReport(ChunkId(1), outcome, Reason.HOP_LIMIT, "", is_second_hand)
    bench.sends.reported(report, 1.0)
    bench.collect()
    assert bench.results[1].outcome.value == outcome.name.lower()
    assert bench.results[1].indeterminate is is_second_hand


def test_what_failed_at_second_hand_stays_indeterminate() -> None:
    """Also when the chunk went again and the first router itself refuses that copy."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    report = DeliveryReport(ChunkId(1), Outcome.REFUSED, Reason.STORE_FULL, "", True)
    bench.sends.reported(report, 1.0)
    bench.timeout(bench.sends.next_timeout() or 0.0)
    assert send.in_flight
    bench.settled(send, Settlement.REFUSED, 2.0, Reason.HOP_LIMIT)
    assert bench.results[1].indeterminate


def test_caps_hold_and_the_queue_is_fifo() -> None:
    """At the cap the next waits, and goes when room is made; over the waiting cap it is refused."""
    limits = SendLimits(max_outstanding_count=4, max_waiting_count=2)
    bench = Bench(limits)
    # Of one flow: half of four.
    sends = [bench.submit(i) for i in range(4)]
    assert bench.handed == sends[:2]
    assert not bench.sends.has_room()
    with pytest.raises(SendQueueFullError):
        bench.submit(9)
    bench.settled(sends[1], Settlement.ACCEPTED, 0.1)
    bench.reported(1, Outcome.DELIVERED, 0.2)
    assert bench.handed == sends[:3]
    bench.submit(10)


def test_byte_cap_and_a_single_large_chunk() -> None:
    """The byte cap holds exactly, and a chunk larger than the cap goes alone."""
    limits = SendLimits(max_outstanding_bytes=100, max_payload_bytes=200)
    bench = Bench(limits)
    big = bench.submit(1, size=150)
    small = bench.submit(2, size=10)
    assert bench.handed == [big]
    bench.settled(big, Settlement.REFUSED, 0.0, Reason.HOP_LIMIT)
    assert bench.handed == [big, small]
    bench.submit(3, size=40)
    assert len(bench.handed) == 3
    bench.submit(4, size=1)
    assert len(bench.handed) == 3


def test_payload_over_the_limit_is_refused_with_its_reason() -> None:
    """At the limit it goes, one byte over it comes back as payload_too_large."""
    bench = Bench(SendLimits(max_payload_bytes=100))
    bench.submit(1, size=100)
    bench.submit(2, size=101)
    assert len(bench.handed) == 1
    assert bench.results[2].reason == Reason.PAYLOAD_TOO_LARGE
    assert "101 bytes" in bench.results[2].detail
    assert bench.sends.stats()["waiting_count"] == 0


def test_reports_are_counted_by_what_is_odd_about_them() -> None:
    """Late, unsolicited and contradicting reports change nothing and are told apart."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    bench.reported(1, Outcome.DELIVERED, 0.1)
    bench.reported(1, Outcome.DELIVERED, 0.2)
    bench.reported(99, Outcome.DELIVERED, 0.2)
    other = bench.submit(2)
    bench.settled(other, Settlement.REFUSED, 0.3, Reason.HOP_LIMIT)
    bench.reported(2, Outcome.DELIVERED, 0.4)
    stats = bench.sends.stats()
    assert stats["reports_late_total"] == 1
    assert stats["reports_unsolicited_total"] == 1
    assert stats["reports_delivered_after_failure_total"] == 1


def test_abandoned_send_says_whether_it_was_out() -> None:
    """A cancelled send ends as refused(cancelled); uncertain only when somebody had it."""
    bench = Bench(up=False)
    waiting = bench.submit(1)
    bench.sends.abandon(waiting, 0.0)
    bench.sends.link_up(0.0)
    out = bench.submit(2)
    bench.settled(out, Settlement.ACCEPTED, 0.1)
    bench.sends.abandon(out, 0.2)
    bench.sends.abandon(out, 0.2)
    bench.collect()
    assert bench.results[1].reason == bench.results[2].reason == Reason.CANCELLED
    assert (bench.results[1].indeterminate, bench.results[2].indeterminate) == (False, True)
    assert bench.handed == [out]


def test_settling_twice_is_a_bug_of_ours() -> None:
    """A second settlement raises and changes nothing."""
    bench = Bench()
    send = bench.submit(1)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    with pytest.raises(LocalMisuseError):
        bench.sends.settled(send, Settlement.ACCEPTED, 0, 0.0)
    assert send.state is SendState.IN_CUSTODY


def test_report_timer_learns_and_backs_off() -> None:
    """The interval follows the measured time, never under the floor nor over the cap."""
    timer = ReportTimer()
    assert timer.interval_s(0) == FIRST_S
    for _ in range(50):
        timer.measured(0.01)
    assert timer.interval_s(0) == FLOOR_S
    assert timer.interval_s(2) == 4 * FLOOR_S
    assert timer.interval_s(60) == CAP_S
    for _ in range(50):
        timer.measured(3.0)
    assert 3.0 <= timer.interval_s(0) < 6.0


def test_reports_slower_than_the_first_interval_are_learned() -> None:
    """Where every report takes longer than the first guess, the interval grows until chunks are
    sent once again, and is then measured."""
    timer, twice = ReportTimer(), 0
    sends = OutstandingSends(SendLimits(), timer)
    sends.link_up(0.0)
    rtt_s, now = 7.0, 0.0
    for chunk_id in range(20):
        template = HeaderTemplate(SendOptions(DESTINATION), SOURCE)
        send = Send(chunk_id, template, b"x", b"", now, now + 60)
        sends.submit(send, now)
        sends.settled(send, Settlement.ACCEPTED, 0, now)
        end = now + rtt_s
        copies = 1
        while (due := sends.next_timeout()) is not None and due < end:
            sends.handle_timeout(due)
            sends.settled(send, Settlement.ACCEPTED, 0, due)
            copies += 1
        for _ in range(copies):
            report = DeliveryReport(ChunkId(chunk_id), Outcome.DELIVERED)
            sends.reported(report, end)
        twice += copies > 1
        now = end
    assert twice <= 4
    assert timer.smoothed_s == pytest.approx(rtt_s)


def test_an_ended_send_lets_go_of_its_payload() -> None:
    """Timers that still name the send must not keep a MiB each alive.

    Regression: payloads stayed in memory for the rest of their lifetime."""
    bench = Bench()
    send = bench.submit(1, size=1000)
    bench.settled(send, Settlement.ACCEPTED, 0.0)
    bench.reported(1, Outcome.DELIVERED, 0.1)
    assert len(send.payload) == 0
    assert bench.sends.outstanding_bytes == 0


def test_wake_heap_stays_bounded() -> None:
    """Many short sends leave no growing trail of stale timers."""
    bench = Bench()
    for chunk_id in range(20_000):
        send = bench.submit(chunk_id)
        bench.settled(send, Settlement.ACCEPTED, 0.0)
        bench.reported(chunk_id, Outcome.DELIVERED, 0.0)
    assert len(bench.sends._wakes) < 5000
