"""New keys inside a session: a fresh X25519 exchange from time to time, so that no key protects too
much, and what one epoch's keys could open stays shut once they are forgotten.

Only the client of the session offers; it sees both directions. The server answers and takes the new
keys in, but sends with them only after something came that was sealed with them. Transfers keep the
keys that they began with, so nothing is sealed twice.

Source: docs/protocol/hop.md, "Rekeying"; docs/decisions/0009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.keys import KEPT_EPOCHS, Exchange, KeyRing

REKEY_AFTER_S = 3600.0
"""What is recorded today and decrypted with a key stolen tomorrow is an hour's worth at most."""
REKEY_AFTER_BYTES = 1 << 40
"""2^36 blocks under one key: GCM then tells a sealed byte from a random one with a chance of 2^-57
(s^2 / 2^129). In datagrams of 1200 bytes it is fewer than 2^32 bursts, so no two headers of an
epoch are the same block."""
OVERDUE_FACTOR = 8
"""A client that is so far beyond the limit does not mean to rekey: the session is ended. Eight
times the bytes make that chance 2^-51."""
OVERDUE_LEAST_S = 60.0
"""An exchange may take several tries on a bad link."""


class Rekeying:
    """Decides when, and takes part in the exchange.

    Args:
        is_client: this side offers; the other side answers.
        after_s, after_bytes: of either direction.
        oldest_epoch: returns the oldest one that a transfer of this side still needs. The neighbour
            keeps the keys of `KEPT_EPOCHS`, so no new one begins before that is settled.
    """

    def __init__(
        self,
        ring: KeyRing,
        random_bytes: Callable[[int], bytes],
        after_s: float,
        after_bytes: int,
        oldest_epoch: Callable[[], int],
        now: float,
        *,
        is_client: bool,
    ) -> None:
        self._ring = ring
        self._random_bytes = random_bytes
        self._after_s = after_s
        self._after_bytes = after_bytes
        self._oldest_epoch = oldest_epoch
        self._is_client = is_client
        self._began_at = now
        self._began_bytes = 0
        self._offer: Exchange | None = None
        self._offered_at = 0.0
        self._wait_until = float("-inf")
        """When to look again whether an old transfer is settled."""
        self._answer: tuple[bytes, bytes] | None = None
        """The share that was offered last, and the frame that answered it."""
        self._answer_due = False
        self.count = 0
        """Epochs that this session has begun after its first."""

    def next_timeout(self, patience_s: float) -> float:
        """Return when `offers` or `is_overdue` is to be asked at the latest."""
        if self._offer is not None:
            return self._offered_at + patience_s
        if self._is_client:
            return max(self._began_at + self._after_s, self._wait_until)
        return self._began_at + max(self._after_s * OVERDUE_FACTOR, OVERDUE_LEAST_S)

    def is_overdue(self, used_bytes: int, now: float) -> bool:
        """Tell whether the client should have rekeyed long ago."""
        if self._is_client or now < self._began_at + OVERDUE_LEAST_S:
            return False
        return self._is_used_up(used_bytes, now, OVERDUE_FACTOR)

    def answers(self) -> Iterator[bytes]:
        """Yield the answer to an offer that came."""
        if self._answer_due and self._answer is not None:
            self._answer_due = False
            yield self._answer[1]

    def offers(self, used_bytes: int, patience_s: float, now: float) -> Iterator[bytes]:
        """Yield the offer that is due; it is repeated after `patience_s`.

        Args:
            used_bytes: sent or received in this session, whichever is more.
        """
        if not self._is_client:
            return
        if self._offer is None:
            if now < self._wait_until or not self._is_used_up(used_bytes, now, 1):
                return
            if self._must_wait():
                self._wait_until = now + patience_s
                return
            self._offer = Exchange(self._random_bytes)
        elif now < self._offered_at + patience_s:
            return
        self._offered_at = now
        epoch = self._ring.newest.epoch + 1
        yield wire.RekeyFrame(epoch, wire.RekeyStep.OFFER, self._offer.share).to_bytes()

    def receive(self, frame: wire.RekeyFrame, used_bytes: int, now: float) -> bool:
        """Take in an offer or an answer; tell whether new keys are to be shown at once.

        Raises:
            ProtocolError: of this side, of another epoch, or with a share of low order.
        """
        is_offer = frame.step is wire.RekeyStep.OFFER
        if is_offer is self._is_client:
            raise ProtocolError("unexpected_rekey", frame.step.name)
        newest = self._ring.newest.epoch
        if is_offer and self._answer is not None and self._answer[0] == frame.share:
            self._answer_due = True  # the answer was lost
            return False
        if frame.epoch != newest + 1 or (not is_offer and self._offer is None):
            raise ProtocolError("unexpected_rekey", f"epoch {frame.epoch}, here is {newest}")
        if is_offer and self._ring.send.epoch != newest:
            raise ProtocolError("unexpected_rekey", "the last one is not over")
        if is_offer and self._must_wait():
            return False  # it comes again
        exchange = Exchange(self._random_bytes) if self._offer is None else self._offer
        shared = exchange.shared_secret(frame.share)
        if is_offer:
            answer = wire.RekeyFrame(frame.epoch, wire.RekeyStep.ANSWER, exchange.share)
            self._answer, self._answer_due = (frame.share, answer.to_bytes()), True
        self._ring.install(shared, send_now=not is_offer)
        self._offer = None
        self._began_at, self._began_bytes = now, used_bytes
        self.count += 1
        return not is_offer

    def _must_wait(self) -> bool:
        """Tell whether the neighbour would have to forget keys that an open transfer needs."""
        return self._ring.newest.epoch + 1 - self._oldest_epoch() >= KEPT_EPOCHS

    def _is_used_up(self, used_bytes: int, now: float, factor: int) -> bool:
        # The timer that looks may be early by a rounding error.
        is_old = now >= self._began_at + factor * self._after_s - 1e-6
        return is_old or used_bytes - self._began_bytes >= factor * self._after_bytes
