"""One cloudlet's channel at its controller: frames in, transactions, frames out.

What is bad is counted and dropped: it costs its sender the frame, and nobody else anything. What a
database that is away does not take is not answered; the cloudlet, or the outbox, sends it again.
Source: docs/protocol/channel.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.channel.frames import (
    Amount,
    AnswerFrame,
    CompleteTakenFrame,
    OrphanFrame,
    Part,
    RecordPart,
    ReportFrame,
    RulesPart,
    RulesStateFrame,
    TakenFrame,
    TakenPart,
    UsageCompleteFrame,
    UsageFrame,
    WelcomeFrame,
    decode_up,
    encode,
)
from packetcloud.domain_controller.channel.port import ChannelState
from packetcloud.domain_controller.core import reconciliation
from packetcloud.domain_controller.core.cloudlets import (
    CloudletReport,
    Distance,
    NodeReport,
    Running,
    TypeCount,
)
from packetcloud.domain_controller.core.installations import RefusedRule, RulesState, SetState
from packetcloud.domain_controller.core.reconciliation import Drift, Remind, StopOrphan
from packetcloud.domain_controller.core.resources import Resources
from packetcloud.domain_controller.core.usage import RecordSignature, UsageRecord
from packetcloud.domain_controller.errors import DomainError, FrameError
from packetcloud.domain_controller.state.errors import StaleOwnerError, StateError
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.usage_signatures import is_signed

RESEND_AFTER_MS = 2000
"""A directive that was not answered for so long is sent again."""
MAX_DROPPED_COUNT = 256
"""Frames dropped on one channel before it is ended: whoever sends more is broken."""
COMPARE_EVERY_MS = 30_000
"""So often a report is compared with what is reserved; VIs have a minute to come and go."""
MAX_TOLD_COUNT = 16
"""Differences that are acted on after one comparison: the rest after the next."""
_log = logging.getLogger("packetcloud.domain")


class ChannelEndedError(DomainError):
    """The channel is to be ended; the text says why. The cloudlet opens another one."""


class Session:
    """One channel.

    Args:
        public_key: of whoever opened it.
        send: returns when the frame is on its way; waits for a slow cloudlet.
        report_every_ms: what the cloudlet is asked for.
    """

    def __init__(
        self,
        cloudlet: str,
        domain: str,
        owner: Ownership,
        public_key: bytes,
        state: ChannelState,
        send: Callable[[str], Awaitable[None]],
        clock_ms: Callable[[], int],
        report_every_ms: int,
    ) -> None:
        self.cloudlet = cloudlet
        self.owner = owner
        self.drift = Drift()
        self.rules: Counter[RulesState] = Counter()
        """Sets of rules that the cloudlet is to have, by how far they are."""
        self.received: Counter[str] = Counter()
        """Frames, by kind."""
        self.dropped: Counter[str] = Counter()
        """Frames that changed nothing, by reason."""
        self.taken: Counter[str] = Counter()
        """Usage records, by outcome."""
        self.sent: Counter[str] = Counter()
        """Frames, by kind."""
        self._domain = domain
        self._public_key = public_key
        self._state = state
        self._send = send
        self._clock_ms = clock_ms
        self._report_every_ms = report_every_ms
        self._sequence = self._rules_sequence = -1
        self._reported_ms = 0
        self._compared_ms = clock_ms()
        self._since: dict[tuple[str, str, str], int] = {}
        self._is_first = True

    async def begin(self) -> None:
        """Say whose the channel is now."""
        await self._say(
            WelcomeFrame(
                epoch=self.owner.epoch,
                domain=self._domain,
                cloudlet=self.cloudlet,
                now_ms=self._clock_ms(),
                report_every_ms=self._report_every_ms,
            )
        )

    async def receive(self, text: str | bytes) -> None:
        """Take a frame.

        Raises:
            ChannelEndedError: another controller has the cloudlet, or too much was dropped.
        """
        try:
            frame = decode_up(text)
            self.received[frame.kind] += 1
            match frame:
                case ReportFrame():
                    await self._report(frame)
                case AnswerFrame():
                    await self._answer(frame)
                case UsageFrame():
                    await self._usage(frame)
                case UsageCompleteFrame():
                    await self._complete(frame)
                case RulesStateFrame():
                    await self._rules_state(frame)
        except FrameError as error:
            self._drop(error.reason, str(error))
        except StaleOwnerError as error:
            raise ChannelEndedError(str(error)) from None
        except StateError as error:
            self.dropped["state"] += 1  # ours, not the cloudlet's
            _log.warning("cloudlet %s: %s", self.cloudlet, error)
        except DomainError as error:
            self._drop("value", str(error))

    async def deliver(self) -> None:
        """Send what the cloudlet is to be told, on a new channel also what was sent before.

        Raises:
            ChannelEndedError: another controller has the cloudlet.
        """
        now_ms = self._clock_ms()
        before_ms = now_ms + 1 if self._is_first else now_ms - RESEND_AFTER_MS
        try:
            frames = await self._state.directives(self.owner, self.cloudlet, before_ms)
        except StaleOwnerError as error:
            raise ChannelEndedError(str(error)) from None
        except StateError as error:
            _log.warning("cloudlet %s: %s", self.cloudlet, error)
            return
        self._is_first = False
        for frame in frames:
            await self._say(frame)

    def sent_before_ms(self) -> int:
        """Return as of when directives are to be looked for."""
        now_ms = self._clock_ms()
        return now_ms + 1 if self._is_first else now_ms - RESEND_AFTER_MS

    async def _report(self, frame: ReportFrame) -> None:
        now_ms = self._clock_ms()
        if frame.sequence <= self._sequence:
            raise FrameError("old", f"report {frame.sequence} after {self._sequence}")
        if 0 <= now_ms - self._reported_ms < self._report_every_ms // 4:
            raise FrameError("early", f"a report each {self._report_every_ms} ms was asked for")
        report = _report_of(self.cloudlet, frame, now_ms)
        self._sequence, self._reported_ms = frame.sequence, now_ms
        self._state.put_report(report)
        if now_ms - self._compared_ms >= COMPARE_EVERY_MS:
            self._compared_ms = now_ms
            await self._reconcile(report, now_ms)

    async def _reconcile(self, report: CloudletReport, now_ms: int) -> None:
        """Have the cloudlet be told again what it does not do, and stop what nobody reserved."""
        findings = await self._state.compare(report)
        decisions, self._since, self.drift = reconciliation.decide(findings, self._since, now_ms)
        for decision in decisions[:MAX_TOLD_COUNT]:
            _log.warning("drift: %s", decision.why)
            match decision:
                case Remind(cloudlet, reservation, _):
                    await self._state.remind(self.owner, cloudlet, reservation)
                case StopOrphan(_, reservation, why):
                    await self._say(
                        OrphanFrame(
                            epoch=self.owner.epoch, reservation=reservation, text=why[:1000]
                        )
                    )

    async def _answer(self, frame: AnswerFrame) -> None:
        if frame.epoch != self.owner.epoch:
            raise FrameError("epoch", f"an answer of epoch {frame.epoch}; now {self.owner.epoch}")
        await self._state.answered(self.owner, self.cloudlet, frame)

    async def _rules_state(self, frame: RulesStateFrame) -> None:
        if frame.epoch != self.owner.epoch:
            raise FrameError("epoch", f"rules of epoch {frame.epoch}; now {self.owner.epoch}")
        if frame.sequence <= self._rules_sequence:
            raise FrameError("old", f"rules {frame.sequence} after {self._rules_sequence}")
        said = [_set_state_of(part) for part in frame.sets]
        if len({one.rule_set for one in said}) < len(said):
            raise FrameError("value", "a set of rules stands there twice")
        self.rules = await self._state.rules_said(
            self.owner, self.cloudlet, said, is_whole=frame.is_whole
        )
        self._rules_sequence = frame.sequence

    async def _usage(self, frame: UsageFrame) -> None:
        records = [_record_of(self.cloudlet, part) for part in frame.records]
        signatures = {
            record.digest: RecordSignature(self._public_key, bytes.fromhex(part.signature))
            for record, part in zip(records, frame.records, strict=True)
        }
        for one in records:
            if not is_signed(one, signatures[one.digest]):
                text = f"record {one.meter}/{one.number} is not signed by the cloudlet's key"
                raise FrameError("signature", text)
        taken = await self._state.take(self.owner, self.cloudlet, records, signatures)
        self.taken.update("later" if outcome is None else outcome.value for outcome in taken)
        parts = tuple(
            TakenPart(meter=record.meter, number=record.number, outcome=outcome)
            for record, outcome in zip(records, taken, strict=True)
            if outcome is not None
        )
        if parts:  # the others it sends again, as if they had been lost
            await self._say(TakenFrame(epoch=self.owner.epoch, records=parts))

    async def _complete(self, frame: UsageCompleteFrame) -> None:
        if frame.epoch != self.owner.epoch:
            raise FrameError("epoch", f"ends of epoch {frame.epoch}; now {self.owner.epoch}")
        for one in frame.reservations:
            await self._state.usage_complete(self.owner, self.cloudlet, one.reservation, one.number)
        await self._say(CompleteTakenFrame(epoch=self.owner.epoch, reservations=frame.reservations))

    async def _say(self, frame: Part) -> None:
        text = encode(frame)
        self.sent[str(getattr(frame, "kind", ""))] += 1
        await self._send(text)

    def _drop(self, reason: str, text: str) -> None:
        self.dropped[reason] += 1
        if sum(self.dropped.values()) - self.dropped["state"] > MAX_DROPPED_COUNT:
            raise ChannelEndedError(f"{MAX_DROPPED_COUNT} bad frames; the last: {text}")
        _log.info("cloudlet %s: a frame is dropped (%s): %s", self.cloudlet, reason, text)


def _report_of(cloudlet: str, frame: ReportFrame, now_ms: int) -> CloudletReport:
    """Raises: InvalidValueError: something stands there twice."""
    return CloudletReport(
        cloudlet,
        frame.sequence,
        now_ms,
        tuple(
            NodeReport(
                node.name,
                _resources(node.capacity),
                _resources(node.reserved),
                _resources(node.available),
                node.is_usable,
                tuple(TypeCount(one.vi_type, one.count) for one in node.vis),
            )
            for node in frame.nodes
        ),
        tuple(Running(one.reservation, one.vi_type, one.count) for one in frame.running),
        NA(frame.na) if frame.na is not None else None,
        tuple(GUID.from_hex(one) for one in frame.hosts),
        tuple(Distance(NA(one.na), one.hops) for one in frame.distances),
    )


def _resources(amount: Amount) -> Resources:
    return Resources(amount.milli_cpus, amount.memory_bytes, amount.disk_bytes, amount.io_per_s)


def _record_of(cloudlet: str, part: RecordPart) -> UsageRecord:
    """Raises: InvalidValueError: it cannot be, though its fields can."""
    return UsageRecord(
        cloudlet,
        part.meter,
        part.number,
        bytes.fromhex(part.previous),
        part.reservation,
        part.terms,
        part.kind,
        part.begin_ms,
        part.end_ms,
        part.quantity,
    )


def _set_state_of(part: RulesPart) -> SetState:
    return SetState(
        part.rule_set,
        part.serial,
        part.state,
        part.accepted,
        part.refused,
        part.revoked,
        part.text,
        tuple(RefusedRule(one.name, one.reason, one.text) for one in part.refusals),
    )
