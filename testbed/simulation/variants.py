"""The bug museum: code broken on purpose, which the judges must catch.

Each variant is a patch of the real classes while a run goes: a mistake that somebody made once,
here or elsewhere, or that lies near. If its run passes, the judges or the scenarios are broken.
A patched name that is gone raises: whoever renames a method moves its variant along.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from packetcloud.host import router_link
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import EndpointCore
from packetcloud.host.outstanding import OutstandingSends
from packetcloud.router.chunk_log import REMOVED_NAME, ChunkLog
from packetcloud.router.core import RouterCore
from packetcloud.router.custody import Custody
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.forward import Forwarder
from packetcloud.router.redial import Redial
from packetcloud.router.spool import Spool
from packetcloud.testbed.simulation.disk import SimulatedFolder
from packetcloud.testbed.simulation.machine import ProcessReactor
from packetcloud.testbed.simulation.plan import Fault, Plan
from packetcloud.testbed.simulation.run import SeedResult, run_plan
from packetcloud.testbed.simulation.scenario import draw_plan

MOST_SEEDS_COUNT = 40
"""A variant is caught within so many seeds of its scenario."""

Patch = tuple[Any, str, Callable[[Any], Any]]
"""Owner, name, and a function from the real attribute to the broken one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One mistake."""

    name: str
    story: str
    """What is wrong, and where it comes from."""
    scenario: str
    promises: tuple[str, ...]
    """What may break; any of them counts as caught."""
    patches: tuple[Patch, ...]
    arrange: Callable[[Plan], Plan] = lambda plan: plan
    """Makes the plans of the scenario fit for it."""
    first_seed: int = 0
    """Where the hunt begins: for what is seldom, a seed that is known to meet it."""


@contextmanager
def broken(variant: Variant) -> Iterator[None]:
    """Have the real classes behave as the variant says.

    Raises:
        AttributeError: what it patches is not there any more.
    """
    originals: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, spoil in variant.patches:
            original = getattr(owner, name)
            originals.append((owner, name, original))
            setattr(owner, name, spoil(original))
        yield
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)


def hunt(variant: Variant, seeds: int = MOST_SEEDS_COUNT) -> tuple[SeedResult | None, int]:
    """Return the first seed that catches the variant, or None, and how many were run."""
    for number in range(seeds):
        seed = variant.first_seed + number
        plan = variant.arrange(draw_plan(seed, variant.scenario))
        with broken(variant):
            result = run_plan(plan)
        if any(violation.promise in variant.promises for violation in result.violations):
            return result, number + 1
    return None, seeds


def _private(plan: Plan) -> Plan:
    """Open sessions: what a cipher would catch as well must be caught without it."""
    return replace(plan, is_private=True, links=_links(plan, corruption_is_seen=True))


def _sealed(plan: Plan) -> Plan:
    return replace(plan, is_private=False, links=_links(plan, corruption_is_seen=False))


def _large(plan: Plan) -> Plan:
    """Bodies of many segments, all at once."""
    operations = tuple(
        replace(operation, size=max(operation.size, 20_000), at_s=1.0 + 0.002 * number)
        for number, operation in enumerate(plan.operations)
    )
    return replace(_private(plan), operations=operations)


def _links(plan: Plan, **options: Any) -> Any:
    return {
        name: (replace(there, **options), replace(back, **options))
        for name, (there, back) in plan.links.items()
    }


# --- the hop ------------------------------------------------------------------------------------


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


# --- the router ---------------------------------------------------------------------------------


def _forgets(when: Settlement) -> Callable[[Any], Any]:
    def spoil(original: Any) -> Any:
        def settled(
            self: Forwarder, entry: Any, attachment: Any, settlement: Any, *rest: Any
        ) -> None:
            if settlement is when:
                self._book.passed_on(entry, entry.next_hop.is_router)
            else:
                original(self, entry, attachment, settlement, *rest)

        return settled

    return spoil


def _syncs_nothing(original: Any) -> Any:
    return lambda self: None


def _takes_back_all(original: Any) -> Any:
    def take_back(self: Custody, data: bytes) -> None:
        self.header = None
        original(self, data)

    return take_back


def _drops_what_nobody_asks_for(original: Any) -> Any:
    def begin(self: RouterCore, entry: Custody, now: float) -> None:
        if entry.flow.reports_to is None and not entry.flow.is_report:
            self.book.passed_on(entry, True)
        else:
            original(self, entry, now)

    return begin


def _never_full(original: Any) -> Any:
    return lambda self, label, size_bytes: "" if self.settings is not None else "off"


def _knows_of_no_error(original: Any) -> Any:
    return lambda self, entry, error, now: original(self, entry, "", now)


def _does_not_tidy(original: Any) -> Any:
    return lambda self: None


def _notes_no_removal(original: Any) -> Any:
    def write(self: SimulatedFolder, name: str, data: Any) -> None:
        if name != REMOVED_NAME:
            original(self, name, data)

    return write


def _calls_again_at_once(original: Any) -> Any:
    def succeeded(self: Redial, guid: Any, now: float) -> None:
        self._targets[guid].is_calling = False

    return succeeded


def _crossing(plan: Plan) -> Plan:
    """One router comes up while the other has been calling it for a while."""
    until_s = 2.0 + plan.seed % 20 * 0.03
    faults = (Fault("kill", "R2", 2.0, 0.2), Fault("kill", "R1", 2.0, until_s))
    return replace(plan, links=_links(plan, delay_s=0.05, loss=0.0), faults=faults)


def _knows_of_no_copies(original: Any) -> Any:
    def give_up(self: CustodyBook, entry: Any, *arguments: Any) -> None:
        entry.has_left_a_copy = False
        original(self, entry, *arguments)

    return give_up


# --- the host -----------------------------------------------------------------------------------


def _remembers_nothing(original: Any) -> Any:
    return lambda self, entries: None


def _suppresses_on_arrival(original: Any) -> Any:
    def arrived(self: EndpointCore, chunk: Any, now: float) -> Any:
        outcome = original(self, chunk, now)
        if outcome is chunk:
            header = chunk.header
            self.window.taken(header.source.value, header.chunk_id.value)
            self._remembered.append((header.source.value, header.chunk_id.value, 100.0))
        return outcome

    return arrived


def _reports_on_arrival(original: Any) -> Any:
    def arrived(self: EndpointCore, chunk: Any, now: float) -> Any:
        outcome = original(self, chunk, now)
        if outcome is chunk and chunk.header.wants_report:
            self._report(chunk.header.source, chunk.header.chunk_id, None, now)
        return outcome

    return arrived


def _hands_once(original: Any) -> Any:
    def hand(self: OutstandingSends, send: Any, now: float) -> None:
        if not send.attempts_count:
            original(self, send, now)

    return hand


def _twelve_seconds(original: Any) -> Any:
    return 12.0


def _ends_never(original: Any) -> Any:
    return lambda self, send, now: self._schedule(send, now + 1e6)


VARIANTS = (
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
    Variant(
        "forgets on LOST",
        "A router takes the end of a session for an acceptance.",
        "kill_router",
        ("L4",),
        ((Forwarder, "settled", _forgets(Settlement.LOST)),),
    ),
    Variant(
        "drops what is refused",
        "A router forgets a chunk that the next hop refuses, and tells nobody.",
        "slow_destination",
        ("L4",),
        ((Forwarder, "settled", _forgets(Settlement.REFUSED)),),
    ),
    Variant(
        "reports doubtful ends as certain",
        "A router that left a copy behind reports the chunk as expired. Ours, found by the "
        "scenario pause.",
        "pause",
        ("L5",),
        ((CustodyBook, "give_up", _knows_of_no_copies),),
    ),
    Variant(
        "acknowledges before the disk has it",
        "Durable custody without the fsync: what was acknowledged is gone after a power cut.",
        "durable",
        ("L1",),
        ((ChunkLog, "sync", _syncs_nothing),),
        first_seed=40,
    ),
    Variant(
        "puts the old header back",
        "A chunk that comes back from disk has the header that it arrived with: its service runs "
        "again, or its destination is the old one. Ours.",
        "durable_services",
        ("L3",),
        ((Custody, "take_back", _takes_back_all),),
    ),
    Variant(
        "drops what nobody asks for",
        "A router forgets the chunks whose source wants no report.",
        "loss",
        ("L1",),
        ((RouterCore, "_begin", _drops_what_nobody_asks_for),),
    ),
    Variant(
        "knows no bound on disk",
        "What memory has no room for is written, however much is on disk already.",
        "spill",
        ("L9",),
        ((Spool, "reason_to_refuse", _never_full),),
    ),
    Variant(
        "acknowledges what the disk refused",
        "Durable custody is taken although the record could not be written.",
        "full_disk",
        ("L1",),
        ((RouterCore, "_stored", _knows_of_no_error),),
    ),
    Variant(
        "deletes no file",
        "The files of a spool stay when nothing in them lives any more.",
        "durable",
        ("L9",),
        ((ChunkLog, "tidy", _does_not_tidy),),
    ),
    Variant(
        "notes no removal",
        "What has left custody is not written down: the next process finds all of it again.",
        "spill",
        ("L9",),
        (
            (SimulatedFolder, "append", _notes_no_removal),
            (SimulatedFolder, "replace", _notes_no_removal),
        ),
    ),
    Variant(
        "calls again at once",
        "Two routers call each other at one moment, each session replaces the other, and both call "
        "again, for ever. Ours, found by the scenarios kill_router and partition.",
        "kill_router",
        ("L4", "L9", "L10"),
        ((Redial, "succeeded", _calls_again_at_once),),
        _crossing,
        first_seed=15,
    ),
    Variant(
        "keeps the duplicate window in memory",
        "A restarted receiver takes a second copy for a new chunk.",
        "kill_host",
        ("L2",),
        ((Endpoint, "_remember", _remembers_nothing),),
    ),
    Variant(
        "suppresses before it delivers",
        "A chunk counts as taken when it arrives: killed before the application had it, the host "
        "suppresses every later copy and reports them as delivered.",
        "kill_host",
        ("L1",),
        ((EndpointCore, "_data_arrived", _suppresses_on_arrival),),
    ),
    Variant(
        "reports before the application",
        "The source is told when the chunk has arrived, not when somebody took it.",
        "slow_destination",
        ("L1",),
        ((EndpointCore, "_data_arrived", _reports_on_arrival),),
    ),
    Variant(
        "never sends again",
        "A source hands each chunk over once; what a killed router had is never heard of again.",
        "kill_router",
        ("L10",),
        ((OutstandingSends, "_hand", _hands_once),),
    ),
    Variant(
        "calls its router seldom",
        "A host that lost its router tries again every twelve seconds, while every chunk waits.",
        "kill_router",
        ("L10",),
        (
            (router_link, "RECONNECT_FIRST_S", _twelve_seconds),
            (router_link, "RECONNECT_CAP_S", _twelve_seconds),
        ),
    ),
    Variant(
        "ignores deadlines",
        "A send whose lifetime is over just waits on.",
        "partition",
        ("L1", "L5", "L9"),
        ((OutstandingSends, "_lifetime_over", _ends_never),),
    ),
)
