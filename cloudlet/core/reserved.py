"""What the domain controller has this cloudlet hold and run, and what it was answered.

A directive is written down, with its answer, before it is answered; one that was seen already is
answered as it was before. So nothing depends on whether something was lost or came twice. While no
domain controller answers, what it said last stays so, until the slot is over.
Source: docs/protocol/channel.md; docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from packetcloud.cloudlet.core.commands import (
    Command,
    DropDomain,
    Note,
    SayAnswer,
    SayComplete,
    SayUsage,
)
from packetcloud.cloudlet.core.events import (
    CompleteTaken,
    Directed,
    DomainDown,
    DomainEvent,
    DomainUp,
    Metered,
    OrphanSaid,
    UsageTaken,
)
from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.inventory import Inventory
from packetcloud.cloudlet.core.metering import MAX_RECORDS_COUNT, Metering
from packetcloud.cloudlet.core.saved import Answered, Reserved, Saved
from packetcloud.cloudlet.core.traffic import Traffic
from packetcloud.cloudlet.core.values import NOTHING, CloudletSettings, Resources

MAX_RESERVED_COUNT = 4096
"""Reservations that one cloudlet holds."""
MAX_OCCURRENCES_COUNT = 65_536
"""Occurrences of all of them: each check of room goes through them."""
MAX_FORGOTTEN_COUNT = 4096
"""Answers that are remembered of reservations that it has not: the oldest goes first."""
RESEND_AFTER_MS = 5000
"""Usage that was not taken for so long is sent again."""
MAX_COMPLETE_COUNT = 100
"""Reservations of which one message says that there is no more usage."""
COMPLETE_EVERY_MS = 60_000
"""What was not answered is said again: seldom, as an older domain controller does not know it."""
_Demand = tuple[int, int, Resources]
"""Begin, end, how much."""


class Reservations:
    """The domain controller's part of one cloudlet."""

    def __init__(
        self,
        settings: CloudletSettings,
        saved: Saved,
        inventory: Inventory,
        metering: Metering,
        traffic: Traffic,
    ) -> None:
        self.settings = settings
        self.is_up = False
        """Whether a domain controller has the channel."""
        self.dropped: Counter[str] = Counter()
        """What it said and was not taken, by reason."""
        self._saved = saved
        self._inventory = inventory
        self._metering = metering
        self._traffic = traffic
        self._at_ms = 0
        """0: nobody said yet what time it is; what runs goes on, and nothing begins."""
        self._sent_ms: int | None = None
        """When the usage was sent that is not taken yet."""
        self._said_complete_ms: int | None = None
        """When it was said of reservations that there is no more usage, without an answer yet."""

    def take(self, event: DomainEvent) -> list[Command]:
        """Take what came over the channel, or what became of it."""
        match event:
            case DomainUp(epoch, at_ms):
                self._at_ms = at_ms
                return self._up(epoch)
            case DomainDown():
                self.is_up, self._sent_ms, self._said_complete_ms = False, None, None
                return []
            case Metered(at_ms):
                return self._metered(at_ms)
            case _ if not self.is_up or event.epoch != self._saved.domain_epoch:
                self.dropped["epoch"] += 1
                return []
            case Directed():
                self._at_ms = event.at_ms
                return self._directed(event)
            case UsageTaken():
                return self._taken(event)
            case CompleteTaken():
                self._complete_taken(event)
                return []
            case OrphanSaid(_, name, text):
                if self._saved.reserved.pop(name, None) is None:
                    return []
                return [Note(f"reservation {name} is given up: {text}", True)]

    def wanted(self) -> Mapping[str, int]:
        """Return how many VIs each reservation should have now."""
        if not self._at_ms:
            vis = self._saved.vis.values()
            return Counter(vi.reservation for vi in vis if vi.reservation and vi.counts)
        return {
            name: one.count if one.is_running and self._is_time(one) else 0
            for name, one in self._saved.reserved.items()
        }

    def running(self, name: str) -> list[Vi]:
        """Return the VIs that serve for a reservation."""
        return [
            vi
            for vi in self._saved.vis.values()
            if vi.reservation == name
            and vi.state is ViState.RUNNING
            and vi.role is Role.OWNER
            and not vi.is_leaving
        ]

    def _is_time(self, one: Reserved) -> bool:
        # Its end cannot have been put off without a word to us: we would have had to say yes.
        return self.is_up or any(begin <= self._at_ms < end for begin, end in one.occurrences)

    def _up(self, epoch: int) -> list[Command]:
        seen = self._saved.domain_epoch
        if epoch <= seen:
            self.dropped["epoch"] += 1
            return [DropDomain(f"its epoch is {epoch}, and {seen} was seen: it is not in charge")]
        self._saved.domain_epoch, self.is_up, self._sent_ms = epoch, True, None
        return self._send_usage()

    def _directed(self, event: Directed) -> list[Command]:
        saved, name = self._saved, event.reservation
        said = saved.answered.get(name)
        if said is not None and event.number < said.number:
            self.dropped["old"] += 1
            text = f"directive {said.number} was seen already"
            return [SayAnswer(event.epoch, name, event.number, False, text, said.number)]
        if said is None or event.number > said.number:
            if not event.is_gone and not self._inventory.is_known:
                return []  # what room there is shows in a moment; it is asked again
            said = self._obey(event)
            saved.answered[name] = said
            self._forget_old()
        return [SayAnswer(event.epoch, name, said.number, said.is_accepted, said.text)]

    def _obey(self, event: Directed) -> Answered:
        reserved, name = self._saved.reserved, event.reservation
        if event.is_gone:
            reserved.pop(name, None)
            return Answered(event.number, True, "", event.at_ms, is_complete_unsaid=True)
        why_not = self._why_not(event)
        if why_not:
            return Answered(event.number, False, why_not, event.at_ms)
        reserved[name] = Reserved(
            name,
            event.tenant,
            event.vi_type,
            event.count,
            event.service,
            event.terms,
            event.occurrences,
            event.is_running,
        )
        return Answered(event.number, True, "", event.at_ms)

    def _why_not(self, event: Directed) -> str:
        """Return why a directive is refused; empty: it is not."""
        known = self._saved.reserved.get(event.reservation)
        types = self.settings.vi_types
        if event.vi_type not in types:
            return f"no VI type {event.vi_type!r} here; types: {', '.join(sorted(types))}"
        size = types[event.vi_type]
        if _differ(size, event.resources):
            return f"VI type {event.vi_type!r} has another size here than was sold: {size}"
        if event.service is not None and (known is None or known.service != event.service):
            text = self._why_no_service(event)
            if text:
                return text
        others = [one for one in self._saved.reserved.values() if one is not known]
        if len(others) >= MAX_RESERVED_COUNT:
            return f"{MAX_RESERVED_COUNT} reservations are held here, as many as may"
        occurrences_count = sum(len(one.occurrences) for one in others) + len(event.occurrences)
        if occurrences_count > MAX_OCCURRENCES_COUNT:
            return f"{MAX_OCCURRENCES_COUNT} occurrences are held here, as many as may"
        if known is not None and not _grows(known, event):
            return ""
        return self._why_no_room(event, size, others)

    def _why_no_service(self, event: Directed) -> str:
        service = self.settings.services.get(event.service or "")
        if service is None:
            names = ", ".join(sorted(self.settings.services)) or "none"
            return f"no service {event.service!r} is declared here; services: {names}"
        if service.owner != event.tenant:
            return f"service {service.name!r} is declared here for somebody else"
        if service.sid != event.sid:
            return f"service {service.name!r} has another SID here"
        return ""

    def _why_no_room(self, event: Directed, size: Resources, others: list[Reserved]) -> str:
        """Look whether at each time all that is held fits; the laying out was the domain's."""
        is_third_party = event.tenant is not None
        share = 1 - self.settings.isp_share if is_third_party else 1.0
        nodes = [node for node in self._inventory.nodes.values() if node.is_usable]
        rooms = [(node.capacity or NOTHING).times(share) for node in nodes]
        if size.io_per_s and not any(room.io_per_s for room in rooms):
            return f"VI type {event.vi_type!r} needs I/O, and no [[node]] here declares io_per_s"
        if not any(not room.lacking_for(size) for room in rooms):
            return f"no node is large enough for a VI of type {event.vi_type!r}"
        whole = NOTHING
        for room in rooms:
            whole += room
        for vi in self._saved.vis.values():
            counts = not is_third_party or self._inventory.is_third_party(vi)
            if not vi.reservation and counts and vi.vi_type in self.settings.vi_types:
                whole -= self.settings.vi_types[vi.vi_type]
        mine = [(begin, end, size.times(event.count)) for begin, end in event.occurrences]
        demands = mine + [
            (begin, end, self.settings.vi_types[one.vi_type].times(one.count))
            for one in others
            if one.vi_type in self.settings.vi_types
            and (not is_third_party or one.tenant is not None)
            for begin, end in one.occurrences
        ]
        for peak in _peaks(demands):
            lacking = whole.lacking_for(peak)
            if lacking:
                return f"not enough {', '.join(lacking)} here for all that is held"
        return ""

    def _metered(self, at_ms: int) -> list[Command]:
        self._at_ms = at_ms
        running = {
            name: min(one.count, len(self.running(name)))
            for name, one in self._saved.reserved.items()
        }
        commands = self._metering.tick(at_ms, running, is_sent_soon=self.is_up)
        commands += self._traffic.tick(at_ms, is_sent_soon=self.is_up)
        return commands + self._send_usage() + self._say_complete()

    def _say_complete(self) -> list[Command]:
        """Say of which reservations nothing runs, is counted or waits to be taken any more."""
        saved = self._saved
        unsaid = {
            name: one.number for name, one in saved.answered.items() if one.is_complete_unsaid
        }
        if not unsaid or not self.is_up:
            return []
        said_ms = self._said_complete_ms
        if said_ms is not None and 0 <= self._at_ms - said_ms < COMPLETE_EVERY_MS:
            return []
        busy = {vi.reservation for vi in saved.vis.values()} | saved.meters.keys()
        busy |= {meter.reservation for meter in saved.traffic.values()}
        busy |= {record.reservation for record in saved.records.values()}
        some = sorted(unsaid.keys() - busy)[:MAX_COMPLETE_COUNT]
        if not some:
            return []
        self._said_complete_ms = self._at_ms
        return [SayComplete(saved.domain_epoch, tuple((name, unsaid[name]) for name in some))]

    def _complete_taken(self, event: CompleteTaken) -> None:
        for name, number in event.reservations:
            said = self._saved.answered.get(name)
            if said is not None and said.number == number:
                self._saved.answered[name] = replace(said, is_complete_unsaid=False)
        self._said_complete_ms = None

    def _send_usage(self) -> list[Command]:
        """Send what is not taken yet; one message at a time is under way."""
        records = self._saved.records
        if not self.is_up or not records:
            return []
        if self._sent_ms is not None and 0 <= self._at_ms - self._sent_ms < RESEND_AFTER_MS:
            return []
        self._sent_ms = self._at_ms
        some = sorted(records)[:MAX_RECORDS_COUNT]
        return [SayUsage(tuple(records[key] for key in some))]

    def _taken(self, event: UsageTaken) -> list[Command]:
        commands: list[Command] = []
        for meter, number, outcome in event.records:
            if self._saved.records.pop((meter, number), None) is None:
                continue
            if outcome in ("different", "refused"):
                text = f"usage record {number} of meter {meter} is not billed: {outcome}"
                commands.append(Note(text, True))
        self._sent_ms = None
        return commands + self._send_usage()

    def _forget_old(self) -> None:
        """Keep the answers of what is held, and so many of the newest others."""
        saved = self._saved
        others = [name for name in saved.answered if name not in saved.reserved]
        if len(others) > MAX_FORGOTTEN_COUNT:
            del saved.answered[min(others, key=lambda name: saved.answered[name].at_ms)]


def _differ(one: Resources, other: Resources) -> bool:
    return bool(one.lacking_for(other) or other.lacking_for(one))


def _grows(known: Reserved, event: Directed) -> bool:
    """Tell whether a directive asks for more than is held."""
    if event.count > known.count or event.vi_type != known.vi_type:
        return True
    return any(
        not any(begin <= at and end <= until for begin, until in known.occurrences)
        for at, end in event.occurrences
    )


def _peaks(demands: list[_Demand]) -> Iterator[Resources]:
    """Yield what is held together from each time on at which some of it begins or ends."""
    edges = [(begin, 1, amount) for begin, _, amount in demands]
    edges += [(end, 0, amount) for _, end, amount in demands]  # an end comes before a begin
    held = NOTHING
    for _, is_begin, amount in sorted(edges, key=lambda edge: edge[:2]):
        held = held + amount if is_begin else held - amount
        yield held
