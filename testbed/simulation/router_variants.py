"""The mistakes of a router that the bug museum shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from packetcloud.chunk.hop.api import Settlement
from packetcloud.router.chunk_log import REMOVED_NAME, ChunkLog
from packetcloud.router.core import RouterCore
from packetcloud.router.custody import Custody
from packetcloud.router.custody_book import CustodyBook
from packetcloud.router.forward import Forwarder
from packetcloud.router.redial import Redial
from packetcloud.router.spool import Spool
from packetcloud.testbed.simulation.disk import SimulatedFolder
from packetcloud.testbed.simulation.plan import Fault, Plan
from packetcloud.testbed.simulation.variant import Variant, links_with


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


def _writes_nothing_anew(original: Any) -> Any:
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
    """One router comes up while the other has been calling it for a while.

    Over a long way: each of the endless calls takes its time, and few of them have to be simulated.
    """
    until_s = 2.0 + plan.seed % 20 * 0.03
    faults = (Fault("kill", "R2", 2.0, 0.2), Fault("kill", "R1", 2.0, until_s))
    return replace(plan, links=links_with(plan, delay_s=0.4, loss=0.0), faults=faults)


def _knows_of_no_copies(original: Any) -> Any:
    def give_up(self: CustodyBook, entry: Any, *arguments: Any) -> None:
        entry.has_left_a_copy = False
        original(self, entry, *arguments)

    return give_up


ROUTER_VARIANTS = (
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
        "leaves a torn note of removals",
        "A removal that the full disk took half of is never written anew: the next process finds "
        "the chunks again.",
        "full_disk",
        ("L9",),
        ((ChunkLog, "_rewrite_removed", _writes_nothing_anew),),
        first_seed=5,
    ),
    Variant(
        "calls again at once",
        "Two routers call each other at one moment, each session replaces the other, and both call "
        "again, for ever. Ours, found by the scenarios kill_router and partition.",
        "kill_router",
        ("L4", "L9", "L10"),
        ((Redial, "succeeded", _calls_again_at_once),),
        _crossing,
        first_seed=20,
    ),
)
