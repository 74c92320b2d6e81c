"""The sending half of an endpoint: every chunk from `submit` until its caller knows how it ended.

A chunk that was reported lost, or whose report is late, is sent again under the same id while its
lifetime lasts; the receiver drops what it has. Events in, commands out, `now` in seconds passed in.
Source: design, section 6, "Custody".
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.messages import DeliveryReport, Outcome
from packetcloud.chunk.reasons import Reason, reason_word
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.report_timer import ReportTimer
from packetcloud.host.results import SendOutcome, SendResult
from packetcloud.host.send import (
    CancelAtHop,
    HandToHop,
    Resolve,
    Send,
    SendCommand,
    SendState,
)
from packetcloud.host.send_window import SendWindow

RETRYABLE_REASONS = frozenset(
    {
        Reason.STORE_FULL,
        Reason.NEIGHBOUR_LOST,
        Reason.SHUTTING_DOWN,
        Reason.OUTCOME_UNKNOWN,
        Reason.SEND_AGAIN,
    },
)
"""Refusals that time may heal: the chunk is sent again with back-off while its lifetime lasts.
Every other reason ends the send at once."""
RESETTLING_REASONS = frozenset(
    {Reason.UNRESOLVABLE_GUID, Reason.UNKNOWN_SID, Reason.SERVICE_FAILED},
)
"""Retried too for `RESETTLING_S` after a reconnect: a router that restarted knows its hosts and
services again only once they have found it, as we just did."""
RESETTLING_S = 10.0
"""A host looks for its router every 5 s at the latest, and a service is restarted in about that."""
REFUSED_FIRST_S = 0.25
REFUSED_CAP_S = 2.0
"""Back-off of these: a refusal is an answer, so there is no report to wait for, and what was away
(a host, a service, room) is used within 2 s of its return."""
RECENT_COUNT = 8192
"""Ended sends remembered to tell a late report from one that we never asked for: about 1 MiB."""
HEAP_SLACK_COUNT = 4096
"""Wake-ups that were replaced by others may lie in the heap, besides four for each send."""


@dataclass(frozen=True, slots=True)
class SendLimits:
    """Caps and times of the sending half."""

    max_outstanding_bytes: int = 128 << 20
    """Payload bytes handed to the router or in its custody: 10 Gbit/s times 50 ms of report RTT, in
    half of it, as one flow gets no more."""
    max_outstanding_count: int = 32_768
    """The same as a number of chunks: 200 000 small chunks/s times 80 ms."""
    max_waiting_count: int = 65_536
    """Sends that wait for room before `submit` raises: an application that never awaits is told."""
    max_payload_bytes: int = 1 << 20
    """Larger payloads are refused here, with the reason a router would give."""
    report_grace_s: float = 1.0
    """How long a report may still come in after the lifetime ended: the way back takes time too."""


class OutstandingSends:
    """All sends of one source GUID that have not ended, keyed by chunk id."""

    def __init__(self, limits: SendLimits, timer: ReportTimer) -> None:
        self._limits = limits
        self._timer = timer
        self._link_is_up = False
        self._was_up = False
        self._resettling_until_s = float("-inf")
        self._sends: dict[int, Send] = {}
        self._window = SendWindow(limits.max_outstanding_bytes, limits.max_outstanding_count)
        self._wakes: list[tuple[float, int, Send]] = []
        self._serial = itertools.count()
        self._recent: OrderedDict[int, SendOutcome] = OrderedDict()
        self._commands: list[SendCommand] = []
        self.counters: Counter[str] = Counter()

    def __contains__(self, chunk_id: object) -> bool:
        return chunk_id in self._sends

    def __len__(self) -> int:
        return len(self._sends)

    def has_room(self, flow: int | None = None) -> bool:
        """Whether a full chunk submitted now would go to the router at once.

        Args:
            flow: the label of its flow; None for a flow of which nothing is outstanding.
        """
        return self._window.has_room(self._limits.max_payload_bytes, flow)

    @property
    def outstanding_bytes(self) -> int:
        return self._window.held_bytes

    @property
    def unhanded_count(self) -> int:
        """Sends that no router has custody of; O(sends)."""
        waiting = (SendState.WAITING, SendState.QUEUED)
        return sum(send.state in waiting for send in self._sends.values())

    def ids(self) -> dict[int, Send]:
        """Return the live table, to be read only."""
        return self._sends

    # events

    def submit(self, send: Send, now: float) -> None:
        """Take over `send`; its `Resolve` comes exactly once.

        Raises:
            SendQueueFullError: too many wait already; nothing was changed.
        """
        if send.chunk_id in self._sends:
            raise LocalMisuseError(f"chunk id {send.chunk_id:016x} is outstanding already")
        too_large = send.payload_bytes > self._limits.max_payload_bytes
        waiting_count = self._window.waiting_count
        if not too_large and waiting_count >= self._limits.max_waiting_count:
            self.counters["rejected_total"] += 1
            raise SendQueueFullError(
                f"{waiting_count} sends wait already; await writable() between sends"
            )
        self._sends[send.chunk_id] = send
        self._window.add(send)
        self.counters["submitted_total"] += 1
        if too_large:
            detail = f"{send.payload_bytes} bytes, this host's limit is "
            detail += str(self._limits.max_payload_bytes)
            self._end(send, SendOutcome.REFUSED, now, Reason.PAYLOAD_TOO_LARGE, detail)
            return
        self._schedule(send, send.deadline_s)
        self._admit(send.template.flow, now)

    def link_up(self, now: float) -> None:
        """The router's session is up: send what is queued, and soon what it may have forgotten."""
        self._link_is_up = True
        if self._was_up:
            self._resettling_until_s = now + RESETTLING_S
        self._was_up = True
        soon = now + self._timer.interval_s(0)
        for send in list(self._sends.values()):
            if send.state is SendState.QUEUED and not send.in_flight:
                self._hand(send, now)
            elif send.state is SendState.IN_CUSTODY and send.wake_s > soon:
                self._schedule(send, soon)

    def link_down(self, now: float) -> None:
        """The session is gone. What the hop did not settle counts as lost."""
        self._link_is_up = False
        for send in list(self._sends.values()):
            if send.in_flight:
                self.settled(send, Settlement.LOST, 0, now)

    def settled(self, send: Send, settlement: Settlement, reason: int, now: float) -> None:
        """The hop ended one hand-over of `send`."""
        if not send.in_flight:
            raise LocalMisuseError(f"chunk {send.chunk_id:016x} was settled twice")
        send.in_flight = False
        self.counters[f"hop_{settlement.value}_total"] += 1
        if settlement is Settlement.ACCEPTED:
            send.copies_count += 1
            send.custody_s = now
            if send.first_custody_s is None:
                send.first_custody_s = now - send.submitted_s
        elif settlement is Settlement.LOST:
            send.copies_count += 1
        if send.state is SendState.RELEASING:
            self._released(send, now)
        elif settlement is Settlement.ACCEPTED:
            self._accepted(send, now)
        elif settlement is Settlement.REFUSED:
            self._refused(send, reason, "by the first router", now)
        elif self._link_is_up:
            self._schedule(send, min(send.deadline_s, now + self._back_off_s(send)))

    def reported(self, report: DeliveryReport, now: float) -> None:
        """A delivery report came in, from the destination or from a custodian."""
        send = self._sends.get(report.chunk_id.value)
        if send is None or send.state is SendState.RELEASING:
            self._count_late(report)
            return
        if not send.template.options.wants_report or not send.attempts_count:
            self.counters["reports_unsolicited_total"] += 1
            return
        self.counters["reports_used_total"] += 1
        if report.outcome is Outcome.DELIVERED:
            if send.attempts_count == 1 and send.state is SendState.IN_CUSTODY:
                self._timer.measured(now - send.custody_s)
            self._end(send, SendOutcome.DELIVERED, now)
            return
        if report.reason != Reason.OUTCOME_UNKNOWN:  # else a copy may still be on its way
            send.copies_count = max(0, send.copies_count - 1)
        send.may_have_doubled |= report.is_second_hand
        if report.outcome is Outcome.REFUSED:
            self._refused(send, report.reason, report.detail, now)
        elif send.copies_count == 0 and not send.in_flight:
            self._end(send, SendOutcome.EXPIRED, now, Reason.DEADLINE_PASSED, report.detail)

    def abandon(self, send: Send, now: float) -> None:
        """The caller does not want `send` any more; no effect once it ended."""
        if not send.is_over:
            self._end(send, SendOutcome.REFUSED, now, Reason.CANCELLED, "by the caller")

    def abandon_all(self, now: float) -> None:
        """The endpoint closes: every send ends now."""
        for send in list(self._sends.values()):
            self.abandon(send, now)

    # time and commands

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, None if never."""
        wakes = self._wakes
        while wakes and (wakes[0][2].wake_s != wakes[0][0] or wakes[0][2].is_over):
            heapq.heappop(wakes)
        return wakes[0][0] if wakes else None

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`: send again, or give up."""
        while (due := self.next_timeout()) is not None and due <= now:
            send = heapq.heappop(self._wakes)[2]
            send.wake_s = -1.0
            self._woken(send, now)

    def take_commands(self) -> list[SendCommand]:
        """Return the commands since the last call, in order."""
        commands = self._commands
        if commands:
            self._commands = []
        return commands

    def stats(self) -> dict[str, float | int]:
        """Return the counters; submitted = delivered + refused + expired + in_custody + held."""
        return {
            **self.counters,
            "outstanding_count": len(self._sends),
            "outstanding_bytes": self._window.held_bytes,
            "waiting_count": self._window.waiting_count,
            "report_rtt_s": self._timer.smoothed_s,
        }

    # inside

    def _admit(self, flow: int, now: float) -> None:
        """Let out what there is room for; of `flow` something came or ended."""
        for send in self._window.admit(flow):
            send.move(SendState.QUEUED)
            self._hand(send, now)

    def _hand(self, send: Send, now: float) -> None:
        if not self._link_is_up or now >= send.deadline_s:
            return
        send.in_flight = True
        send.attempts_count += 1
        if send.attempts_count > 1:
            self.counters["resent_total"] += 1
        self._schedule(send, send.deadline_s)
        self._commands.append(HandToHop(send, send.prefix(now)))

    def _accepted(self, send: Send, now: float) -> None:
        send.move(SendState.IN_CUSTODY)
        if not send.template.options.wants_report:
            self._end(send, SendOutcome.IN_CUSTODY, now)
            return
        self._schedule(send, min(send.deadline_s, now + self._back_off_s(send)))

    def _refused(self, send: Send, reason: int, detail: str, now: float) -> None:
        self.counters[f"refusals_{reason_word(reason)}_total"] += 1
        is_retryable = reason in RETRYABLE_REASONS or (
            reason in RESETTLING_REASONS and now < self._resettling_until_s
        )
        if not is_retryable or now >= send.deadline_s:
            self._end(send, SendOutcome.REFUSED, now, reason, detail)
            return
        send.last_refusal = (reason, detail)
        wait_s = min(REFUSED_CAP_S, REFUSED_FIRST_S * (1 << min(send.refusals_count, 10)))
        send.refusals_count += 1
        if send.state is SendState.IN_CUSTODY and send.copies_count == 0:
            send.move(SendState.QUEUED)
        if not send.in_flight:
            self._schedule(send, min(send.deadline_s, now + wait_s))

    def _woken(self, send: Send, now: float) -> None:
        if now >= send.deadline_s:
            self._lifetime_over(send, now)
            return
        if send.state is SendState.IN_CUSTODY:
            send.move(SendState.QUEUED)
        if send.state is SendState.QUEUED and not send.in_flight:
            self._hand(send, now)
        if send.wake_s < 0:
            self._schedule(send, send.deadline_s)

    def _lifetime_over(self, send: Send, now: float) -> None:
        patience_s = send.deadline_s + self._limits.report_grace_s
        if send.copies_count and not send.in_flight and now < patience_s:
            self._schedule(send, patience_s)
        elif send.last_refusal is not None:
            self._end(send, SendOutcome.REFUSED, now, *send.last_refusal)
        else:
            detail = "no word of it" if send.copies_count else "it never left this host"
            self._end(send, SendOutcome.EXPIRED, now, Reason.DEADLINE_PASSED, detail)

    def _end(
        self, send: Send, outcome: SendOutcome, now: float, reason: int = 0, detail: str = ""
    ) -> None:
        failed = outcome in (SendOutcome.REFUSED, SendOutcome.EXPIRED)
        send.result = SendResult(
            outcome=outcome,
            reason=reason,
            detail=detail,
            custody_s=send.first_custody_s,
            total_s=now - send.submitted_s,
            attempts_count=send.attempts_count,
            indeterminate=failed and send.may_have_arrived,
        )
        if send.in_flight:
            send.move(SendState.RELEASING)
            self._commands.append(CancelAtHop(send))
            return
        self._resolve(send, send.result)
        self._admit(send.template.flow, now)

    def _released(self, send: Send, now: float) -> None:
        """The hop let go of the payload of a send whose result is known."""
        result = send.result
        assert result is not None, "releasing begins with a result"
        indeterminate = not result.ok and send.may_have_arrived
        custody_s = send.first_custody_s
        self._resolve(send, replace(result, custody_s=custody_s, indeterminate=indeterminate))
        self._admit(send.template.flow, now)

    def _resolve(self, send: Send, result: SendResult) -> None:
        self._window.leave(send)
        send.move(SendState.ENDED)
        del self._sends[send.chunk_id]
        self._recent[send.chunk_id] = result.outcome
        if len(self._recent) > RECENT_COUNT:
            self._recent.popitem(last=False)
            self.counters["ended_forgotten_total"] += 1
        send.payload = b""  # a timer may name this send for a minute; its memory goes now
        self.counters[f"{result.outcome.value}_total"] += 1
        if result.indeterminate:
            self.counters["indeterminate_total"] += 1
        self._commands.append(Resolve(send, result))

    def _count_late(self, report: DeliveryReport) -> None:
        outcome = self._recent.get(report.chunk_id.value)
        if outcome is None and report.chunk_id.value not in self._sends:
            self.counters["reports_unsolicited_total"] += 1
        elif report.outcome is Outcome.DELIVERED and outcome in (
            SendOutcome.REFUSED,
            SendOutcome.EXPIRED,
        ):
            self.counters["reports_delivered_after_failure_total"] += 1
        else:
            self.counters["reports_late_total"] += 1
            if report.outcome is Outcome.DELIVERED and outcome is SendOutcome.DELIVERED:
                self._timer.sent_too_early()

    def _back_off_s(self, send: Send) -> float:
        return self._timer.interval_s(max(0, send.attempts_count - 1))

    def _schedule(self, send: Send, when_s: float) -> None:
        send.wake_s = when_s
        heapq.heappush(self._wakes, (when_s, next(self._serial), send))
        if len(self._wakes) > 4 * len(self._sends) + HEAP_SLACK_COUNT:
            self.counters["wakes_swept_total"] += 1
            live = (send for send in self._sends.values() if not send.is_over)
            self._wakes = [(send.wake_s, next(self._serial), send) for send in live]
            heapq.heapify(self._wakes)
