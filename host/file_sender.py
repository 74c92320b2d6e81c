"""Sending one file, without any I/O: what to ask, which bytes to send, when it is done or hopeless.

OFFERING: asked, no answer yet. SENDING: missing ranges go out, a window at a time. FINISHING: all
delivered, the digest is with the receiver. Every question is asked again until it is answered, and
bytes that did not arrive are sent again; when nothing moves for `stall_s`, it is given up.
Source: docs/protocol/file-transfer.md, "Sender".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.reasons import Reason
from packetcloud.host.file_format import Answer, AnswerState, Finish, Offer
from packetcloud.host.ranges import RangeSet
from packetcloud.host.results import SendOutcome, SendResult

DEFAULT_CHUNK_BYTES = (1 << 20) - 4096
"""1 MiB less one page: room for the message header and for what services add (an IV, padding, a
tag, a frame), so that the payload stays under the routers' limit of 1 MiB."""
DEFAULT_WINDOW_BYTES = 32 << 20
"""Data read and not yet reported delivered: 10 Gbit/s times 25 ms."""
DEFAULT_STALL_S = 60.0
ASK_AGAIN_FIRST_S = 3.0
ASK_AGAIN_CAP_S = 10.0
PAUSE_FIRST_S = 0.5
PAUSE_CAP_S = 5.0
"""Back-off while the receiver, a service or a router is away."""
OFFER_PATIENCE_S = 2.0
"""A receiver that is just finding its router again is found; a wrong GUID is told soon."""
UNKNOWN_TRANSFER = "unknown_transfer"
"""The receiver's word for "I do not know this transfer (any more)": offer it again."""
DIGEST_MISMATCH = "digest_mismatch"

AWAY_REASONS = frozenset(
    {
        Reason.UNRESOLVABLE_GUID,
        Reason.UNKNOWN_SID,
        Reason.SERVICE_FAILED,
        Reason.DEADLINE_PASSED,
        Reason.STORE_FULL,
        Reason.NEIGHBOUR_LOST,
        Reason.SHUTTING_DOWN,
    }
)
"""Once a transfer runs, these mean that somebody is away for now: wait and send again."""


class SenderState(Enum):
    """Where the sending of one file stands."""

    NEW = "new"
    OFFERING = "offering"
    SENDING = "sending"
    FINISHING = "finishing"
    DONE = "done"
    FAILED = "failed"


_TRANSITIONS = {
    SenderState.NEW: {SenderState.OFFERING, SenderState.FAILED},
    SenderState.OFFERING: {SenderState.SENDING, SenderState.DONE, SenderState.FAILED},
    SenderState.SENDING: {SenderState.FINISHING, SenderState.OFFERING, SenderState.FAILED},
    SenderState.FINISHING: {
        SenderState.SENDING,
        SenderState.OFFERING,
        SenderState.DONE,
        SenderState.FAILED,
    },
    SenderState.DONE: set(),
    SenderState.FAILED: set(),
}


@dataclass(frozen=True, slots=True)
class SendPlan:
    """What to send and how."""

    transfer_id: bytes
    file_key: bytes
    name: str
    size_bytes: int
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    window_count: int = max(2, DEFAULT_WINDOW_BYTES // DEFAULT_CHUNK_BYTES)
    stall_s: float = DEFAULT_STALL_S
    resume: bool = False


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send this OFFER or FINISH; report its end by `message_ended`."""

    message: Offer | Finish


@dataclass(frozen=True, slots=True)
class SendData:
    """Read and send [start, end); report its end by `data_ended` with the same `job`."""

    job: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WantDigest:
    """Tell the SHA-256 of the whole file by `hashed`, as soon as it is known."""


@dataclass(frozen=True, slots=True)
class SentAll:
    """The receiver has the file, checked, under `name`."""

    name: str
    digest: bytes
    was_there: bool


@dataclass(frozen=True, slots=True)
class GivenUp:
    """It ended without success."""

    text: str
    resumable: bool


SenderCommand = SendMessage | SendData | WantDigest | SentAll | GivenUp


class FileSend:
    """The sending of one file."""

    def __init__(self, plan: SendPlan) -> None:
        self.plan = plan
        self.state = SenderState.NEW
        self.delivered_bytes = 0
        """Of the file, at the receiver as far as we know; includes what it had before."""
        self.resent_bytes = 0
        self._commands: list[SenderCommand] = []
        self._to_send = RangeSet()
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._job = 0
        self._question = 0
        self._round_question = 1
        """The first question since the last answer: an answer to it or any later one will do, so
        that a way there and back longer than the asking interval still gets us on."""
        self._ask_at_s: float | None = None
        self._ask_s = ASK_AGAIN_FIRST_S
        self._pause_until_s: float | None = None
        self._pause_s = PAUSE_FIRST_S
        self._started_s = 0.0
        self._progress_s = 0.0
        self._digest: bytes | None = None
        self._digest_wanted = False
        self._resume = plan.resume
        self._was_accepted = False
        self._complete: Answer | None = None
        self._last_trouble = ""

    # events

    def start(self, now: float) -> None:
        """Offer the file."""
        self._started_s = self._progress_s = now
        self._offer(now)

    def message_ended(self, result: SendResult, now: float) -> None:
        """An OFFER or FINISH was delivered or not."""
        if self.is_over:
            return
        if result.ok:
            self._progress(now)
        else:
            self._trouble(result, now)

    def data_ended(self, job: int, result: SendResult, now: float) -> None:
        """The data of `job` was delivered or not; of an earlier round: nothing changes."""
        taken = self._in_flight.pop(job, None)
        if taken is None or self.is_over:
            return
        start, end = taken
        if result.ok:
            self.delivered_bytes += end - start
            self._progress(now)
        else:
            self._to_send.add(start, end)
            self.resent_bytes += end - start
            self._trouble(result, now)
        self._go_on(now)

    def answered(self, answer: Answer, now: float) -> None:
        """The receiver said something."""
        if self.is_over:
            return
        is_of_round = self._round_question <= answer.question <= self._question
        if answer.state is AnswerState.FAILED and (is_of_round or not answer.question):
            self._receiver_failed(answer.text, now)
            return
        if not is_of_round or self._ask_at_s is None:
            return  # about an earlier question, or a repetition
        self._progress(now)
        self._ask_at_s = None
        self._ask_s = ASK_AGAIN_FIRST_S
        self._round_question = self._question + 1
        self._was_accepted = True
        if answer.state is AnswerState.COMPLETE:
            self._complete = answer
            self._check_complete()
            return
        if any(end > self.plan.size_bytes for _, end in answer.missing):
            self._fail("the receiver asks for bytes that the file does not have", resumable=False)
            return
        self.delivered_bytes = min(answer.have_bytes, self.plan.size_bytes)
        self._to_send = RangeSet(answer.missing)
        self._in_flight = {}
        self._move(SenderState.SENDING)
        self._go_on(now)

    def hashed(self, digest: bytes, now: float) -> None:
        """The SHA-256 of the whole file is known."""
        self._digest = digest
        if self._complete is not None:
            self._check_complete()
        elif not self.is_over:
            self._go_on(now)

    def is_wanted(self, job: int) -> bool:
        """Whether `job` belongs to this round: a new answer makes the jobs before it idle."""
        return job in self._in_flight

    def worked(self, now: float) -> None:
        """Reading or hashing goes on here: nothing has stalled."""
        self._progress_s = now

    def abort(self, text: str, *, resumable: bool = True) -> None:
        """Give up, for a reason on this side."""
        if not self.is_over:
            self._fail(text, resumable=resumable and self._was_accepted)

    # time and commands

    @property
    def is_over(self) -> bool:
        return self.state in (SenderState.DONE, SenderState.FAILED)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, None if never."""
        if self.is_over:
            return None
        due_s = self._progress_s + self.plan.stall_s
        if self._ask_at_s is not None:
            due_s = min(due_s, self._ask_at_s)
        if self._pause_until_s is not None:
            due_s = min(due_s, self._pause_until_s)
        return due_s

    def handle_timeout(self, now: float) -> None:
        """Ask again, go on after a pause, or give up."""
        if self.is_over:
            return
        if now >= self._progress_s + self.plan.stall_s:
            trouble = self._last_trouble or "no answer from the receiver"
            text = f"nothing moved for {self.plan.stall_s:.0f} s: {trouble}"
            self._fail(text, resumable=self._was_accepted)
            return
        if self._ask_at_s is not None and now >= self._ask_at_s:
            self._ask_s = min(ASK_AGAIN_CAP_S, self._ask_s * 2)
            if self.state is SenderState.OFFERING:
                self._offer(now)
            else:
                self._finish(now)
        self._go_on(now)

    def take_commands(self) -> list[SenderCommand]:
        """Return the commands since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    # inside

    def _offer(self, now: float) -> None:
        if self.state is not SenderState.OFFERING:
            self._round_question = self._question + 1
            self._move(SenderState.OFFERING)
        plan = self.plan
        self._ask(now)
        offer = Offer(
            plan.transfer_id,
            self._question,
            plan.file_key,
            plan.size_bytes,
            plan.name,
            self._resume,
        )
        self._commands.append(SendMessage(offer))

    def _finish(self, now: float) -> None:
        if self.state is not SenderState.FINISHING:
            self._round_question = self._question + 1
            self._move(SenderState.FINISHING)
        assert self._digest is not None, "finishing begins with the digest"
        self._ask(now)
        plan = self.plan
        message = Finish(plan.transfer_id, self._question, plan.size_bytes, self._digest)
        self._commands.append(SendMessage(message))

    def _ask(self, now: float) -> None:
        self._question += 1
        self._ask_at_s = now + self._ask_s

    def _go_on(self, now: float) -> None:
        """In SENDING: hand out ranges while the window has room, then finish."""
        if self._pause_until_s is not None:
            if now < self._pause_until_s:
                return
            self._pause_until_s = None
        if self.state is not SenderState.SENDING:
            return
        plan = self.plan
        while len(self._in_flight) < plan.window_count:
            taken = self._to_send.take_first(plan.chunk_bytes)
            if taken is None:
                break
            self._job += 1
            self._in_flight[self._job] = taken
            self._commands.append(SendData(self._job, *taken))
        if self._to_send:
            return
        self._want_digest()
        if not self._in_flight and self._digest is not None:
            self._finish(now)

    def _want_digest(self) -> None:
        if not self._digest_wanted:
            self._digest_wanted = True
            self._commands.append(WantDigest())

    def _trouble(self, result: SendResult, now: float) -> None:
        """A chunk did not arrive: offer again, wait, or give up."""
        words = result.detail if result.reason == Reason.RECEIVER_REFUSED else ""
        if words.startswith(UNKNOWN_TRANSFER) and self.state is not SenderState.OFFERING:
            self._resume = True
            self._in_flight = {}
            self._offer(now)
        elif words:
            self._fail(f"the receiver refused: {words}", resumable=self._was_accepted)
        elif result.reason == Reason.CANCELLED:
            self.abort("cancelled")
        elif self._may_pass(result, now):
            self._last_trouble = result.explain()
            if self._pause_until_s is None:
                self._pause_until_s = now + self._pause_s
                self._pause_s = min(PAUSE_CAP_S, self._pause_s * 2)
            if self._ask_at_s is not None:
                self._ask_at_s = self._pause_until_s
        else:
            self._fail(result.explain(), resumable=self._was_accepted)

    def _may_pass(self, result: SendResult, now: float) -> bool:
        """Whether somebody is only away for now, so that waiting makes sense."""
        is_away = result.reason in AWAY_REASONS or result.outcome is SendOutcome.EXPIRED
        return is_away and (self._was_accepted or now - self._started_s < OFFER_PATIENCE_S)

    def _receiver_failed(self, text: str, now: float) -> None:
        if text.startswith(DIGEST_MISMATCH) and self._resume:
            self._resume = False  # what it had from before was something else: all of it again
            self.delivered_bytes = 0
            self._to_send, self._in_flight = RangeSet(), {}
            self._offer(now)
            return
        resumable = self._was_accepted and not text.startswith(DIGEST_MISMATCH)
        self._fail(f"the receiver gave up: {text}", resumable=resumable)

    def _check_complete(self) -> None:
        answer = self._complete
        assert answer is not None
        if self._digest is None:
            self._want_digest()
            return
        if answer.digest != self._digest:
            self._fail("the receiver's file has another SHA-256 than ours", resumable=False)
            return
        was_there = self.state is SenderState.OFFERING
        self.delivered_bytes = self.plan.size_bytes
        self._move(SenderState.DONE)
        self._commands.append(SentAll(answer.text, answer.digest, was_there))

    def _progress(self, now: float) -> None:
        self._progress_s = now
        self._pause_s = PAUSE_FIRST_S

    def _fail(self, text: str, *, resumable: bool) -> None:
        self._move(SenderState.FAILED)
        self._ask_at_s = None
        self._commands.append(GivenUp(text, resumable))

    def _move(self, state: SenderState) -> None:
        if state not in _TRANSITIONS[self.state] and state is not self.state:
            raise LocalMisuseError(f"a file cannot go from {self.state.value} to {state.value}")
        self.state = state
