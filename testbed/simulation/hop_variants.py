"""The mistakes of the hop that the bug museum shows."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np

from packetcloud.chunk.hop import keys
from packetcloud.chunk.hop.api import Refusal, Settlement
from packetcloud.chunk.hop.datagrams import TAG_BYTES
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.incoming import Incoming
from packetcloud.chunk.hop.incoming_transfers import IncomingTransfers
from packetcloud.chunk.hop.neighbour_credit import NeighbourCredit
from packetcloud.chunk.hop.replay import ReplayWindow
from packetcloud.chunk.hop.sender import Sender
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.reasons import Reason
from packetcloud.testbed.simulation.machine import ProcessReactor
from packetcloud.testbed.simulation.plan import Plan
from packetcloud.testbed.simulation.variant import Variant, links_with


def _takes_what_is_refused(original: Any) -> Any:
    def deliver(self: Session, *arguments: Any) -> Any:
        answer = original(self, *arguments)
        return None if isinstance(answer, Refusal) else answer

    return deliver


def _counts_repeats(original: Any) -> Any:
    def mark(self: Incoming, index: int, end: int) -> int:
        fresh: int = original(self, index, end)
        if not fresh:
            fresh = min(end - index, self.segments - self.count)
            self.count += fresh
        return fresh

    return mark


def _is_whole_at_its_end(original: Any) -> Any:
    def mark(self: Incoming, index: int, end: int) -> int:
        fresh: int = original(self, index, end)
        self.count = self.segments if end == self.segments else 0
        return fresh

    return mark


_incoming_of: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()


def _shares_transfers(original: Any) -> Any:
    def init(self: IncomingTransfers, pool: Any, *arguments: Any, **named: Any) -> None:
        original(self, pool, *arguments, **named)
        self.transfers = _incoming_of.setdefault(pool, {})

    return init


class _Unchecked:
    """A cipher that deciphers whatever comes: with both suites that is to add the key stream."""

    def __init__(self, cipher: Any) -> None:
        self._cipher = cipher
        self.encrypt = cipher.encrypt
        self.encrypt_into = cipher.encrypt_into

    def decrypt(self, nonce: bytes, data: Any, associated: Any) -> bytes:
        size = len(data) - TAG_BYTES
        stream = np.frombuffer(self._cipher.encrypt(nonce, bytes(size), b""), np.uint8)
        return bytes(np.frombuffer(data, np.uint8)[:size] ^ stream[:size])

    def decrypt_into(self, nonce: bytes, data: Any, associated: Any, into: Any) -> None:
        into[: len(data) - TAG_BYTES] = self.decrypt(nonce, data, associated)


def _does_not_check_tags(original: Any) -> Any:
    return lambda suite, key: _Unchecked(original(suite, key))


def _counts_slowly(original: Any) -> Any:
    def control(self: Envelope, frames: Any) -> bytes:
        datagram: bytes = original(self, frames)
        if not self._counter % 16:
            self._counter -= 1
        return datagram

    return control


def _lets_everything_pass(original: Any) -> Any:
    return lambda self, counter: None


def _releases_at_once(original: Any) -> Any:
    def send_body(self: Session, kind: Any, body: Any, *arguments: Any, **named: Any) -> None:
        original(self, kind, body, *arguments, **named)
        body.release()

    return send_body


def _keeps_the_credit(original: Any) -> Any:
    return lambda self, *arguments: None


def _cancels_for_certain(original: Any) -> Any:
    def cancel(self: Sender, token: object) -> None:
        end: Any = self._end

        def end_for_certain(outgoing: Any, settlement: Settlement, reason: int) -> None:
            end(outgoing, Settlement.CANCELLED, int(Reason.CANCELLED))

        self._end = end_for_certain  # type: ignore[method-assign]  # on purpose
        try:
            original(self, token)
        finally:
            del self._end

    return cancel


def _runs_on_the_wall_clock(original: Any) -> Any:
    return lambda self: self.process.machine.wall_s()


def _private(plan: Plan) -> Plan:
    """Open sessions: what a cipher would catch as well must be caught without it."""
    return replace(plan, is_private=True, links=links_with(plan, corruption_is_seen=True))


def _sealed(plan: Plan) -> Plan:
    return replace(plan, is_private=False, links=links_with(plan, corruption_is_seen=False))


def _large(plan: Plan) -> Plan:
    """Bodies of many segments, all at once."""
    operations = tuple(
        replace(operation, size=max(operation.size, 20_000), at_s=1.0 + 0.002 * number)
        for number, operation in enumerate(plan.operations)
    )
    return replace(_private(plan), operations=operations)


HOP_VARIANTS = (
    Variant(
        "acknowledges before custody",
        "The hop acknowledges a whole body before the layer above has taken it. The prototype's "
        "CACK said no more than that the bits had come.",
        "slow_destination",
        ("L4",),
        ((Session, "_deliver", _takes_what_is_refused),),
    ),
    Variant(
        "counts repeats",
        "A datagram that comes twice counts twice, so a body with a hole is complete. The "
        "prototype did that.",
        "crooked",
        ("L3",),
        ((Incoming, "mark", _counts_repeats),),
        _private,
    ),
    Variant(
        "keys transfers by number only",
        "Unfinished transfers are found by their number, whoever sent them: two neighbours write "
        "into one body. The prototype's tables were keyed by hop id only.",
        "slow_destination",
        ("L1", "L2", "L3", "L4", "L9", "L10", "no fault"),
        ((IncomingTransfers, "__init__", _shares_transfers),),
        _private,
    ),
    Variant(
        "is whole at its end",
        "A body is delivered when its last segment has come, holes or not.",
        "loss",
        ("L3",),
        ((Incoming, "mark", _is_whole_at_its_end),),
        _private,
    ),
    Variant(
        "does not check tags",
        "What is deciphered is not proven: bit flips reach the application.",
        "crooked",
        ("L3",),
        ((keys, "make_aead", _does_not_check_tags),),
        _sealed,
    ),
    Variant(
        "repeats a nonce",
        "The counter of datagrams stands still now and then.",
        "loss",
        ("L12",),
        ((Envelope, "control", _counts_slowly),),
        _sealed,
    ),
    Variant(
        "accepts replays",
        "Nobody looks whether a datagram was opened before.",
        "crooked",
        ("L12",),
        ((ReplayWindow, "check", _lets_everything_pass),),
        _sealed,
    ),
    Variant(
        "releases a body too early",
        "The router gives a body's buffer back as soon as the next hop has queued it.",
        "kill_router",
        ("L3", "L9", "no fault"),
        ((Session, "send_body", _releases_at_once),),
        _large,
    ),
    Variant(
        "leaks credit",
        "A released body stays on the sender's account.",
        "loss",
        ("L9",),
        ((NeighbourCredit, "release", _keeps_the_credit),),
    ),
    Variant(
        "cancels for certain",
        "A cancelled body counts as not delivered although all of it was sent. Ours, found by the "
        "scenarios pause and partition.",
        "pause",
        ("L5",),
        ((Sender, "cancel", _cancels_for_certain),),
    ),
    Variant(
        "runs timers on the wall clock",
        "What Twisted does by itself: reactor.seconds is time.time.",
        "clocks",
        ("L1", "L5", "L9", "L10"),
        ((ProcessReactor, "seconds", _runs_on_the_wall_clock),),
    ),
)
