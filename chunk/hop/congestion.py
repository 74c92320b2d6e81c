"""How much may be in flight and how fast it leaves: from measured delivery rate and round trip.

Loss by itself is not congestion. What counts is the rate at which bytes arrive, and whether they
wait in a queue. Alone on its path a session probes for more each eighth round, drains what that
queued, and sends a little more than arrives where the path loses some anyway. When no round finds
the queue empty any more, somebody else fills it: then the window is CUBIC's, which shares fairly
with TCP and with its own kind; an empty queue ends that.

Source: BBR (draft-ietf-ccwg-bbr) for the model and its states; Copa (NSDI 2018) for telling
competition by queues that never empty; RFC 9438 for the window then. docs/decisions/0011.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from packetcloud.chunk.hop.background import BackgroundWindow
from packetcloud.chunk.hop.cubic import CubicWindow
from packetcloud.chunk.hop.path_model import PathModel
from packetcloud.chunk.hop.rtt import RttEstimator

INITIAL_WINDOW_BYTES = 16 * 1472
MIN_WINDOW_DATAGRAMS = 4
"""Never less in flight, also where a datagram is as large as the initial window."""
MAX_WINDOW_BYTES = 1 << 30
"""Far beyond what any receive buffer takes."""
START_GAIN = 2.89
"""Doubles what arrives each round trip: BBR's 2/ln 2."""
STEADY_WINDOW_GAIN = 2.0
MAX_HOST_DELAY_S = 0.025
GROWTH_FACTOR = 1.25
ROUNDS_WITHOUT_GROWTH = 3
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Gain of the sending rate, a round each: ask for more, drain the queue of that, cruise."""
DRAIN_PHASE = 1
LONGEST_DRAIN_ROUNDS = 3
DRAIN_GAIN = 0.5
DRAIN_ROUNDS = 10
"""Enough for ten times the product; a queue that is longer is not ours."""
COMPETING_ROUNDS = len(CYCLE) + 2
"""So many rounds without an empty queue, a whole cycle among them: somebody else fills it."""
OVERFLOW_ROUNDS = 6
OVERFLOWS_FORGOTTEN = 2
"""More rounds with overflow than two in each cycle, until they are six: the queue was full when the
shortest round trip was measured, so it never looks long."""
COMPETING_PACE = 1.2
EMPTY_ROUNDS = 3
"""So many rounds with an empty queue, one after the other, end a competition. One that lost more
than the path does is not among them: where every session began in a queue that never empties, the
shortest round trip is too long, and a full queue looks empty. `COMPETING_ROUNDS` of them end it
whatever is lost, as the path may lose more than it did."""
LOSS_RATIO = 0.02
"""A first rush that loses more than this into a queue is over; the figure is BBRv2's."""
YIELD_GAIN = 0.125
YIELD_S = 0.5
YIELD_ROUNDS = 8
"""Who finds more loss than is known to be the path's gets out of the way for so long. If others
caused it together with him, they do the same, and it goes away; else it is the path's."""
YIELD_SETTLING_ROUNDS = 3
"""The first of them still hear of what was sent before."""
PROBE_RTT_GAIN = 0.5
PROBE_RTT_S = 0.2
BURST_DURATION_S = 0.001
"""One burst is about this long at the sending rate."""
MIN_CATCH_UP_S = 0.002
MAX_CATCH_UP_S = 0.010
CATCH_UP_SHARE = 0.25
"""Who was woken late may send so much of a round trip more at once: timers are that coarse, and a
process waits for its turn on a busy machine."""
SHORTEST_ROUND_S = 0.0005
SLUMP_SHARE = 0.25
SLUMP_ROUNDS = 2
SLUMP_DATAGRAMS = 16
"""When less than a quarter of the rate arrives in so many rounds one after the other, of which each
could have brought so many datagrams, the path is slower now. To wait until ten of them have
forgotten the faster time would flood it, as rounds are as long as its queue then."""


class Mode(Enum):
    """What a session is doing about its path."""

    STARTING = auto()
    DRAINING = auto()
    CRUISING = auto()
    COMPETING = auto()
    ASKING_RTT = auto()
    YIELDING = auto()


@dataclass(slots=True)
class _Round:
    """From when something was sent until the neighbour has heard of it."""

    began_at: float
    delivered: int
    end_burst: int
    lost: int = 0
    sent: int = 0
    says_little: bool = False
    """The host could not keep the pace, or had nothing to send for a time: its rate is not the
    path's."""
    min_rtt_s: float = float("inf")


class Congestion:
    """The window and the pace of one session's sending direction.

    Args:
        datagram_bytes: of a full datagram in this session.
        rtt: the session's round trips, the handshake's among them.
        max_burst_bytes: beyond it a burst of a millisecond is not cut, and nothing is paced.
    """

    def __init__(
        self, datagram_bytes: int, rtt: RttEstimator, max_burst_bytes: int = 512 << 10
    ) -> None:
        self._rtt = rtt
        self._datagram_bytes = datagram_bytes
        self._max_burst_bytes = max_burst_bytes
        self._least_bytes = float(MIN_WINDOW_DATAGRAMS * datagram_bytes)
        self._start_anew()

    def _start_anew(self) -> None:
        self.path = PathModel()
        self.background = BackgroundWindow(self._datagram_bytes)
        self.mode = Mode.STARTING
        self.window_bytes = float(max(INITIAL_WINDOW_BYTES, self._least_bytes))
        self._round: _Round | None = None
        self._delivered = 0
        self._best_rate = 0.0
        self._rounds_without_growth = 0
        self._rounds_with_queue = 0
        self._slow_rounds = 0
        self._overflows = 0
        self._yield_lost = self._yield_delivered = self._yield_queued = 0
        self._rate_before = 0.0
        self._phase = 0
        self._drained_rounds = 0
        self._was_draining = False
        """The round before this one was sent slowly: what an empty queue loses of it is lost at
        random."""
        self._sent_rate = float("inf")
        """Of the round before this one, whose bytes are heard of in this one."""
        self._said_little = False
        """The round before this one."""
        self._mode_rounds = 0
        self._mode_since = 0.0
        self._resume = Mode.CRUISING
        self._cubic: CubicWindow | None = None
        self._empty_rounds = self._calm_rounds = 0
        """In competition, one after the other; the calm ones lost no more than the path does."""
        self._is_recovering = False
        self._release_at = 0.0
        self.pace_bytes_per_s = self._pace()
        """How fast bursts may leave; of the present round."""

    def reset(self) -> None:
        """Forget everything: the neighbour is somewhere else now."""
        delivered = self._delivered
        self._start_anew()
        self._delivered = delivered

    @property
    def is_starting(self) -> bool:
        """The window grows each round trip: every ACK that waits costs as long."""
        return self.mode is Mode.STARTING

    # --- pace -----------------------------------------------------------------------------------

    def _pace(self) -> float:
        match self.mode:
            case Mode.STARTING:
                return 2 * self.window_bytes / self._rtt.smoothed_s
            case Mode.COMPETING:
                return COMPETING_PACE * self.window_bytes / self._rtt.smoothed_s
            case Mode.DRAINING:
                gain = DRAIN_GAIN
            case Mode.CRUISING:
                gain = CYCLE[self._phase]
            case Mode.ASKING_RTT:
                gain = 1.0
            case Mode.YIELDING:
                gain = YIELD_GAIN
        least = self._least_bytes / self._rtt.smoothed_s
        return max(gain * self.path.send_rate_bytes_per_s, least)

    @property
    def burst_bytes(self) -> float:
        """How many bytes to send in one burst at most."""
        if self._round is None:
            return self.window_bytes / 4
        return self.pace_bytes_per_s * BURST_DURATION_S

    def release_at(self) -> float:
        """Return from when on the next burst may leave."""
        return self._release_at

    def on_sent(self, size: int, now: float) -> None:
        """A burst of `size` bytes left: when may the next one?

        The first window may leave in one piece: RFC 9002, section 7.7.
        """
        pace = self.pace_bytes_per_s
        if self._round is not None:
            self._round.sent += size
        if self._round is None or pace * BURST_DURATION_S >= self._max_burst_bytes:
            self._release_at = now
        else:
            self._release_at = max(self._release_at, now - self._catch_up_s) + size / pace

    @property
    def _catch_up_s(self) -> float:
        return min(max(CATCH_UP_SHARE * self.path.min_rtt_s, MIN_CATCH_UP_S), MAX_CATCH_UP_S)

    def on_woken(self, now: float) -> None:
        """The pace allows the next burst: for how long already?

        A round in which the host could not keep the pace says how fast the host is, not the path.
        """
        if self._round is not None and now - self._release_at > self._catch_up_s:
            self._round.says_little = True

    # --- what the path says ---------------------------------------------------------------------

    def on_loss(self, lost_bytes: int) -> None:
        """Count what was found lost in the present round."""
        if self._round is not None:
            self._round.lost += lost_bytes

    def on_restart(self, next_burst: int, now: float) -> None:
        """Begin a new round: something is sent and nothing was in flight.

        A round that held the pause would say how fast the source is, not the path; the window of a
        source of one chunk now and then would shrink to what it sends, and its chunks to a crawl.
        """
        if self._round is not None:
            self._round = _Round(now, self._delivered, next_burst)
            self._sent_rate = float("inf")
            # No round ends where each burst is answered before the pace lets the next one go. Who
            # rested keeps the pace that he had, if that was more.
            self.pace_bytes_per_s = max(self.pace_bytes_per_s, self._pace())

    def on_nothing_to_send(self) -> None:
        """What is sent in this round says how fast the source is, not the path."""
        if self._round is not None:
            self._round.says_little = True

    def on_ack(
        self,
        delivered_bytes: int,
        rtt_s: float | None,
        largest: int,
        next_burst: int,
        in_flight_bytes: int,
        limited: bool,
        now: float,
    ) -> None:
        """Take in what an ACK says of the path.

        Args:
            delivered_bytes: bytes that arrived since the session began.
            rtt_s: of the burst it names, less the neighbour's delay; None when it names no new one.
            largest: the burst it names.
            next_burst: the number of the burst to be sent next.
            in_flight_bytes: what is sent and not passed by an ACK.
            limited: the sender had nothing more to send; such a round says little of the path.
        """
        if delivered_bytes < self._delivered:
            return  # overtaken by a later ACK
        self._delivered = delivered_bytes
        if rtt_s is not None:
            self.path.add_rtt(rtt_s, now)
        current = self._round
        if current is None:
            if rtt_s is not None:
                # The handshake may have met an empty queue that others have filled since.
                self.path.add_rtt(self._rtt.minimum_s, now)
            self._round = _Round(now, delivered_bytes, next_burst)
            self.pace_bytes_per_s = self._pace()
            return
        if rtt_s is not None:
            current.min_rtt_s = min(current.min_rtt_s, rtt_s)
        elapsed = now - current.began_at
        shortest = max(min(self.path.min_rtt_s, 1.0), SHORTEST_ROUND_S)
        if largest < current.end_burst or elapsed < shortest:
            return
        self._round = _Round(now, delivered_bytes, next_burst)
        # What is heard of in this round was sent in the one before it.
        limited = limited or current.says_little or self._said_little
        self._said_little = current.says_little
        self._end_round(current, delivered_bytes - current.delivered, elapsed, limited, now)
        if self.mode is Mode.DRAINING and in_flight_bytes <= self.path.product_bytes:
            self._enter(Mode.CRUISING, now)
        self.pace_bytes_per_s = self._pace()

    def _end_round(
        self, ended: _Round, delivered: int, elapsed: float, limited: bool, now: float
    ) -> None:
        path = self.path
        is_empty = path.is_queue_empty(ended.min_rtt_s)
        if self._was_draining and is_empty:
            path.add_loss(ended.lost, delivered)
        elif self._was_draining:
            path.doubt_loss()
        self._was_draining = self.mode is Mode.DRAINING or (
            self.mode is Mode.CRUISING and self._phase == DRAIN_PHASE
        )
        # Answers that were held up and come at once would show a rate that was never sent.
        sample = min(delivered / elapsed, self._sent_rate)
        self._note_slump(sample, elapsed, limited)
        self._sent_rate = ended.sent / elapsed
        is_telling = delivered > 0 and not (limited and sample < path.rate_bytes_per_s)
        if is_telling:
            path.add_rate(sample)
        is_lossy = ended.lost > LOSS_RATIO * (delivered + ended.lost)
        has_queue = not is_empty and self._tells_of_queue(is_lossy, limited)
        if is_empty:
            self._rounds_with_queue = 0
        elif has_queue:
            self._rounds_with_queue += 1
        if ended.min_rtt_s < float("inf"):
            self.background.on_round(path, ended.min_rtt_s, ended.lost > 0)
        self._mode_rounds += 1
        match self.mode:
            case Mode.STARTING if has_queue and is_lossy:
                self._enter(Mode.DRAINING, now)
            case Mode.STARTING if is_telling:
                self._continue_start(sample, now)
            case Mode.YIELDING:
                self._continue_yielding(ended.lost, delivered, is_empty, now)
            case Mode.DRAINING if is_empty or self._mode_rounds >= DRAIN_ROUNDS:
                self._enter(Mode.CRUISING, now)
            case Mode.CRUISING:
                self._drained_rounds = self._drained_rounds + 1 if self._phase == DRAIN_PHASE else 0
                if is_empty or not 0 < self._drained_rounds < LONGEST_DRAIN_ROUNDS:
                    self._phase = (self._phase + 1) % len(CYCLE)
                self._note_overflow(ended.lost, delivered)
                if path.is_loss_doubtful:
                    self._enter(Mode.YIELDING, now)
                elif (
                    self._rounds_with_queue >= COMPETING_ROUNDS
                    or self._overflows >= OVERFLOW_ROUNDS
                ):
                    self._enter(Mode.COMPETING, now)
            case Mode.COMPETING:
                if self._has_rival_left(is_empty, ended.lost, delivered):
                    self._enter(Mode.CRUISING, now)
                else:
                    self._compete(ended.lost > 0, limited, now)
            case Mode.ASKING_RTT:
                self._end_asking(ended.min_rtt_s, now)
        if self.mode in (Mode.CRUISING, Mode.COMPETING) and path.is_min_rtt_old(now):
            self._resume = self.mode
            self._enter(Mode.ASKING_RTT, now)
        self._set_window()

    @staticmethod
    def _tells_of_queue(is_lossy: bool, limited: bool) -> bool:
        """Tell whether a round that met a queue counts as one.

        Of a source that sends less than it may, or of a host that is late, a queue may be its own
        doing. A queue that overflows is a queue, whatever was sent: who goes on as if alone because
        his source has no more takes most of it, and leaves the rest to those who listen.
        """
        return is_lossy or not limited

    def _note_slump(self, sample: float, elapsed: float, limited: bool) -> None:
        """Forget how fast the path was, if it no longer is."""
        rate = self.path.rate_bytes_per_s
        is_slow = (
            sample < SLUMP_SHARE * rate
            and not limited
            and self.mode in (Mode.CRUISING, Mode.COMPETING)
            and self._mode_rounds >= SLUMP_ROUNDS
            and rate * elapsed >= SLUMP_DATAGRAMS * self._datagram_bytes
        )
        self._slow_rounds = self._slow_rounds + 1 if is_slow else 0
        if self._slow_rounds >= SLUMP_ROUNDS:
            self._slow_rounds = 0
            self.path.add_rate(sample)
            self.path.forget_rates_before(SLUMP_ROUNDS)

    def _note_overflow(self, lost: int, delivered: int) -> None:
        """Count rounds that lost more than the path loses of what is sent slowly."""
        if self._phase == DRAIN_PHASE + 1:
            self._overflows = max(0, self._overflows - OVERFLOWS_FORGOTTEN)
        sent, unit = lost + delivered, self._datagram_bytes
        usual = (self.path.random_loss + LOSS_RATIO) * sent
        by_chance = 2 * unit + 3 * (self.path.random_loss * sent * unit) ** 0.5
        if lost > usual + by_chance:
            self._overflows += 1

    def _enter(self, mode: Mode, now: float) -> None:
        if mode is Mode.COMPETING and self._cubic is None:
            in_use = self.path.rate_bytes_per_s * self._rtt.smoothed_s
            window = min(in_use, self.window_bytes)
            self._cubic = CubicWindow(window, self._datagram_bytes, now)
            self._empty_rounds = self._calm_rounds = 0
            self._is_recovering = False
        elif mode is Mode.CRUISING:
            self._cubic = None
            self._phase = DRAIN_PHASE + 1
            self._rounds_with_queue = 0
            self._overflows = 0
        if mode is Mode.YIELDING:
            self._yield_lost = self._yield_delivered = self._yield_queued = 0
            self._rate_before = self.path.rate_bytes_per_s
        self.mode = mode
        self._mode_rounds = 0
        self._mode_since = now

    def _continue_yielding(self, lost: int, delivered: int, is_empty: bool, now: float) -> None:
        if self._mode_rounds > YIELD_SETTLING_ROUNDS:
            self._yield_queued += not is_empty
            self._yield_lost += lost
            self._yield_delivered += delivered
        if now - self._mode_since >= YIELD_S and self._mode_rounds >= YIELD_ROUNDS:
            if 2 * self._yield_queued > self._mode_rounds - YIELD_SETTLING_ROUNDS:
                # Somebody else fills the queue: what it loses is not the path's own.
                self.path.dismiss_doubt()
                self.path.add_rate(self._rate_before)
                self._enter(Mode.COMPETING, now)
                return
            self.path.verify_loss(self._yield_lost, self._yield_delivered)
            if self.path.random_loss > LOSS_RATIO:
                self._best_rate = 0.0
                self._rounds_without_growth = 0
                self._enter(Mode.STARTING, now)
            else:
                # The loss was ours: a new start would overrun a short queue again.
                self.path.add_rate(self._rate_before)
                self._enter(Mode.CRUISING, now)

    def _continue_start(self, sample: float, now: float) -> None:
        if sample >= self._best_rate * GROWTH_FACTOR:
            self._best_rate = sample
            self._rounds_without_growth = 0
        else:
            self._rounds_without_growth += 1
        if self._rounds_without_growth >= ROUNDS_WITHOUT_GROWTH:
            self._enter(Mode.DRAINING, now)

    def _has_rival_left(self, is_empty: bool, lost: int, delivered: int) -> bool:
        """Count a round in competition, and tell whether it was the last."""
        is_calm = lost <= (self.path.random_loss + LOSS_RATIO) * (lost + delivered)
        self._empty_rounds = self._empty_rounds + 1 if is_empty else 0
        self._calm_rounds = self._calm_rounds + 1 if is_empty and is_calm else 0
        return self._calm_rounds >= EMPTY_ROUNDS or self._empty_rounds >= COMPETING_ROUNDS

    def _compete(self, has_lost: bool, limited: bool, now: float) -> None:
        assert self._cubic is not None
        if self._is_recovering:
            # What was sent before the cut and lost by it says nothing new.
            self._is_recovering = False
            return
        if has_lost:
            self._cubic.on_loss(now)
            self._is_recovering = True
            return
        if not self._cubic.has_lost:
            self._cubic.grow_to(STEADY_WINDOW_GAIN * self.path.product_bytes, now)
        if not limited:
            self._cubic.on_round(self._rtt.smoothed_s, now)

    def _end_asking(self, rtt_s: float, now: float) -> None:
        """The shortest round trip was asked for with little in flight: take the answer."""
        if now - self._mode_since < PROBE_RTT_S or self._mode_rounds < 2:
            return
        was_own_queue = self.path.is_queue_empty(rtt_s)
        if rtt_s < float("inf"):
            self.path.renew_min_rtt(rtt_s, now)
        self._enter(Mode.CRUISING if was_own_queue else self._resume, now)

    def _set_window(self) -> None:
        product = self.path.product_bytes
        match self.mode:
            case Mode.STARTING:
                wanted = min(2 * self.window_bytes, START_GAIN * product)
                wanted = max(wanted, self.window_bytes)
            case Mode.COMPETING:
                assert self._cubic is not None
                wanted = self._cubic.window_bytes
            case Mode.ASKING_RTT:
                wanted = PROBE_RTT_GAIN * product
            case Mode.YIELDING:
                wanted = 2 * YIELD_GAIN * product
            case _:
                # The pace bounds the queue. The window only has to outlast the delay of busy hosts:
                # if it did not, it would be what is measured, and shrink from round to round.
                delay_s = max(self._rtt.smoothed_s - self.path.min_rtt_s, 0.0)
                rate = self.path.send_rate_bytes_per_s
                wanted = STEADY_WINDOW_GAIN * (product + rate * min(delay_s, MAX_HOST_DELAY_S))
        self.window_bytes = min(max(wanted, self._least_bytes), MAX_WINDOW_BYTES)
