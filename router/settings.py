"""What the core is told to do: frozen values, made from a config file by `config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from packetcloud.chunk.header import DEFAULT_MAX_PAYLOAD_BYTES
from packetcloud.chunk.names import GUID, NA, SID

MIB = 1 << 20


class FailPolicy(StrEnum):
    """What becomes of a chunk when no VI of a service gives a verdict."""

    OPEN = "open"
    """The chunk goes on without the service."""
    CLOSED = "closed"
    """The chunk is refused, reason `service_failed`."""


class RulesFrom(StrEnum):
    """Whose rules may lead chunks to a service that did not ask for it."""

    ISP = "isp"
    """The ISP's own, and those of others to whom the service's key granted it."""
    ANYONE = "anyone"
    """Also those of everybody, for what each has proven to own."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service of this router's cloudlet."""

    sid: SID
    name: str
    priority: int = 0
    """The larger runs first."""
    fail_policy: FailPolicy = FailPolicy.CLOSED
    deadline_ms: int = 10_000
    """How long a VI may take over one task, from the moment the router starts to send it."""
    grace_s: float = 10.0
    """How long chunks wait for a VI to come back when none is attached."""
    max_replicas: int = 16
    max_attempts: int = 5
    """VIs that may fail over one chunk (an error, a missed deadline, a crash while it was the
    oldest task) before the fail policy applies: a chunk that kills VIs must not kill them all."""
    rules_from: RulesFrom = RulesFrom.ISP
    keeps_flows: bool = False
    """A flow stays with its VI also while that has no room: its chunks wait. For services whose VIs
    remember what they had of a flow."""

    def for_unlisted(self, sid: SID) -> Self:
        """Return these settings for a service that the config does not list."""
        return replace(self, sid=sid, name=sid.short)


@dataclass(frozen=True, slots=True)
class RouterNeighbour:
    """Another router, and the network addresses that are reached through it."""

    guid: GUID
    name: str
    na: NA
    routes: tuple[NA, ...] = ()
    """Further NAs behind it, besides its own."""
    address: tuple[str, int] | None = None
    """Where to call it; None: it calls us."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """What may lie on disk, and whether custody waits for the disk."""

    max_bytes: int = 1 << 30
    """Chunks on disk. Above it: refused, `store_full`."""
    max_flow_bytes: int = 256 * MIB
    """Of one flow; above it its chunks stay in the hop, which says BUSY to their sender."""
    memory_bytes: int = 64 * MIB
    """Chunks that wait in memory; above it the oldest of the largest flow go to disk."""
    reserve_bytes: int = 1 * MIB
    """A file that is given up on a full disk, so that removals can be noted."""
    is_durable: bool = False
    """Acknowledge a chunk only when it survives a power cut."""


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Whose rules are taken, and how many.

    A rule counts as its entries: once for each combination of the names and types that it lists.
    """

    isp_signers: frozenset[GUID] = frozenset()
    """Whose sets are the ISP's own."""
    max_rules: int = 16_000_000
    """In all; the ISP's own may take them all."""
    max_third_party_rules: int = 2_000_000
    """Of all others together, so that they leave room for the ISP's."""
    max_signer_rules: int = 100_000
    """Of one other."""
    max_patterns: int = 10_000
    """Different ones, in all."""
    max_third_party_patterns: int = 5_000
    """Of all others together, added up."""
    max_signer_patterns: int = 200
    """Of one other."""
    max_third_party_scan_ns: int = 1_000
    """What patterns of all others may cost a scan, for each byte of payload."""
    max_signer_scan_ns: int = 200
    """Those of one other: 20 ms for 100 KB in the worst case."""
    max_document_bytes: int = 1 << 30
    """One signed file."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Everything that the core needs to know about its place in the network."""

    guid: GUID
    na: NA
    name: str = "router"
    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES
    """Largest payload taken from a host; services may make a chunk a little larger than this."""
    store_bytes: int = 256 * MIB
    """Cap on all chunks in custody. Above it: refused, `store_full`."""
    hold_limit_s: float = 120.0
    """No chunk stays longer than this, whatever its lifetime says."""
    detached_hold_s: float = 30.0
    """How long a host or router that went away stays known and chunks wait for it."""
    detached_hold_bytes: int = 16 * MIB
    """Chunks that wait for one absent neighbour; above it: refused, `store_full`."""
    vi_window_bytes: int = 8 * MIB
    """Tasks that one VI has at a time; more wait here, for whichever VI is free first. 8 chunks of
    1 MiB keep the link to a VI busy; what waits here instead of there is not run twice after a
    crash."""
    vi_window_count: int = 512
    hosts: frozenset[GUID] | None = None
    """Hosts that may attach; None: any."""
    services: tuple[ServiceSettings, ...] = ()
    unlisted_services: ServiceSettings | None = None
    """Settings for services that are not listed; None: they may not attach."""
    has_table: bool = False
    """The cloudlet controller may list further services, and their VIs."""
    spool: SpoolSettings | None = None
    """None: nothing is written to disk."""
    neighbours: tuple[RouterNeighbour, ...] = ()
    names: Mapping[GUID, NA] = field(default_factory=dict)
    """The static name table: GUID or SID -> NA."""
