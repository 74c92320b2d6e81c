"""The caps of the hop protocol: what a neighbour, or anybody who can send to the port, can grow.

Source: docs/protocol/hop.md, "Caps", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.address_rate import ADDRESSES_COUNT
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.batch import ADDRESSES_KEPT_COUNT
from packetcloud.chunk.hop.buffers import KEPT_FREE_BYTES, READY_BYTES
from packetcloud.chunk.hop.core import HopCore
from packetcloud.chunk.hop.flow_credit import MAX_FLOWS_COUNT
from packetcloud.chunk.hop.handshake import HALF_OPEN_COUNT
from packetcloud.chunk.hop.incoming_transfers import MAX_PARTIALS_COUNT
from packetcloud.chunk.hop.lane import MAX_LANES_COUNT
from packetcloud.chunk.hop.lane_door import GUESTS_COUNT
from packetcloud.chunk.hop.outlet import FAILURES_LOGGED_COUNT
from packetcloud.chunk.hop.repair import DIGESTS_PAUSE_S
from packetcloud.chunk.hop.replies import MAX_REPLIES_COUNT
from packetcloud.chunk.hop.resets import RESETS_PER_S
from packetcloud.chunk.hop.stamps import PEERS_COUNT
from packetcloud.chunk.hop.timers import TIMER_SLACK_COUNT
from packetcloud.chunk.hop.train_headers import MAX_TRAIN_ROWS

_DEFAULTS = HopConfig()


def _dropped(reason: str) -> str:
    return f'packetcloud_hop_datagrams_dropped_total{{reason="{reason}"}}'


CAPS = (
    Cap(
        "neighbours",
        _DEFAULTS.max_neighbours_count,
        "sessions",
        "about 20 KiB each, and up to 0.5 MiB to lay bursts out once bodies went there; every "
        "instance of a key counts",
        "CLOSE with the reason",
        _dropped("neighbours_full"),
        ("core:HopCore.sessions", "core:HopCore._by_remote", "core:HopCore._active"),
        "max_neighbours_count",
    ),
    Cap(
        "half-open handshakes",
        HALF_OPEN_COUNT,
        "handshakes",
        "about 3 KiB each; half a second of handshakes at the rate that one core can sign",
        "the oldest makes room",
        "packetcloud_hop_half_open_forgotten_total",
        ("handshake:ServerHandshakes._by_remote", "handshake:ServerHandshakes._by_local"),
    ),
    Cap(
        "addresses that began handshakes",
        ADDRESSES_COUNT,
        "addresses",
        "800 KiB; one address, or IPv6 network of 64 bits, begins 5 handshakes at once and 20 a "
        "second (`handshake_rate`)",
        "the one unseen for longest makes room; its bucket is full by then",
        "packetcloud_hop_addresses_forgotten_total",
        ("address_rate:AddressRate._buckets",),
    ),
    Cap(
        "stamps of handshakes",
        PEERS_COUNT,
        "neighbours",
        "1.6 MiB; eight times as many as may be neighbours at once",
        "the one unseen for longest makes room: a recorded HELLO of it is answered again",
        "packetcloud_hop_stamps_forgotten_total",
        ("stamps:Stamps._newest",),
    ),
    Cap(
        "answers waiting for a full socket",
        MAX_REPLIES_COUNT,
        "datagrams",
        "1.2 MiB; whoever wants one asks again",
        "dropped",
        _dropped("replies_full"),
        ("replies:Replies._waiting",),
    ),
    Cap(
        "answers to datagrams of unknown sessions",
        RESETS_PER_S,
        "a second",
        "a signature each, 2 % of a core; 5 of them to one address, 50 to one network (/24, /64)",
        "silence",
        _dropped("resets_full"),
        ("resets:Resets._told", "resets:Resets._told_networks"),
    ),
    Cap(
        "answers to DIGESTS_WANTED",
        round(1 / DIGESTS_PAUSE_S),
        "a second",
        "2 ms each, 40 % of a core at the most; of all neighbours together, each that asked within "
        "a second its share",
        "silence; whoever asks asks again",
        _dropped("digests_rate"),
        ("repair:DigestBudget._asked_at",),
    ),
    Cap(
        "replaced timers",
        TIMER_SLACK_COUNT,
        "timers",
        "400 KiB; a timer that was replaced by an earlier one lies in the heap until its time",
        "taken out before their time",
        "packetcloud_hop_dead_timers_total",
        ("timers:Timers._heap", "timers:Timers._deadline_of"),
    ),
    Cap(
        "body",
        _DEFAULTS.max_body_bytes,
        "bytes",
        "1 MiB of payload and its headers",
        "refused unread, nothing stored",
        "packetcloud_hop_refused_too_large_total",
        ("outgoing:Outgoing.sends", "outgoing:Outgoing.lost"),
        "max_body_bytes",
    ),
    Cap(
        "bodies held for one neighbour",
        _DEFAULTS.credit_bytes,
        "bytes",
        "10 Gbit/s times 20 ms",
        "dropped, and BUSY is said",
        _dropped("over_credit"),
        ("incoming_transfers:IncomingTransfers.transfers",),
        "credit_bytes",
    ),
    Cap(
        "bodies held for one flow of a neighbour",
        _DEFAULTS.flow_credit_bytes,
        "bytes",
        "two thirds of the neighbour's credit; less while little of that is free",
        'refused as "not now" and BUSY is said; its sender keeps the body and sends other flows',
        "packetcloud_hop_refused_not_now_total",
        (
            "flow_credit:FlowCredit.held",
            "flow_credit:FlowCredit.busy",
            "flow_credit:FlowCredit._waits",
            "flow_credit:FlowCredit._wait_of",
        ),
        "flow_credit_bytes",
    ),
    Cap(
        "flows of one neighbour that hold something",
        MAX_FLOWS_COUNT,
        "flows",
        "up to 330 bytes each; a third of the credit in bodies of 1 KiB",
        "a body of one more is refused `store_full`, nothing stored",
        "packetcloud_hop_refused_store_full_total",
        (
            "flow_credit:FlowCredit.held",
            "flow_credit:FlowCredit.busy",
            "flow_credit:FlowCredit._waits",
            "flow_credit:FlowCredit._wait_of",
        ),
    ),
    Cap(
        "flows in a BUSY list",
        wire.MAX_BUSY_COUNT,
        "flows",
        "it fits beside every ACK",
        "a 0 says that there are more; the sender tries those by a timer",
        "packetcloud_hop_busy_unlisted_total",
        ("flow_queues:FlowQueues.parked", "parking:Parking._unlisted"),
    ),
    Cap(
        "bodies held for all neighbours",
        _DEFAULTS.max_held_bytes,
        "bytes",
        "43 neighbours that use up their credit",
        "refused `store_full`, nothing stored",
        "packetcloud_hop_refused_store_full_total",
        ("incoming_transfers:IncomingTransfers.transfers",),
        "max_held_bytes",
    ),
    Cap(
        "open transfers of one neighbour",
        wire.TRANSFER_WINDOW_COUNT,
        "transfers",
        "a bitmap of 512 bytes in every ACK; 10 Gbit/s of 1500-byte bodies times 5 ms",
        "dropped",
        _dropped("beyond_window"),
        (
            "incoming_transfers:IncomingTransfers.transfers",
            "outcomes:Outcomes._done",
            "outcomes:Outcomes.refused",
            "outcomes:Outcomes._undecided",
            "outcomes:Outcomes._transfer_of",
        ),
    ),
    Cap(
        "unfinished transfers of one neighbour",
        MAX_PARTIALS_COUNT,
        "transfers",
        "1 Gbit/s times 100 ms of small bodies of which a quarter lost a datagram",
        "a slow one (5 s old, below 16 KiB/s) is refused `store_full`; none is: dropped",
        _dropped("partials_full"),
        ("incoming_transfers:IncomingTransfers.transfers",),
    ),
    Cap(
        "open transfers to one neighbour",
        wire.TRANSFER_WINDOW_COUNT,
        "transfers",
        "the same window, seen by the sender: a neighbour that settles nothing gets no more",
        "the next body waits",
        "packetcloud_hop_window_full_total",
        (
            "open_transfers:OpenTransfers.outstanding",
            "departures:Departures._resend",
            "departures:Departures._resend_small",
            "departures:Departures._resend_waiting",
            "open_transfers:OpenTransfers.forgotten",
            "open_transfers:OpenTransfers._forget",
            "open_transfers:OpenTransfers.whole",
        ),
    ),
    Cap(
        "time without any ACK",
        int(_DEFAULTS.idle_timeout_s),
        "seconds",
        "bursts and probes on their way are remembered until an ACK passes them",
        "the session ends",
        "packetcloud_hop_withheld_acks_total",
        ("flight:Flight._bursts", "flight:Flight._history"),
        "idle_timeout_s",
    ),
    Cap(
        "free buffers kept",
        KEPT_FREE_BYTES,
        "bytes",
        "what a core's cache and a few chunks in hand need; more would only be memory",
        "those longest in no use go back to the system",
        "packetcloud_hop_buffers_freed_total",
        ("buffers:BufferPool._free",),
    ),
    Cap(
        "buffers ready for the next body",
        READY_BYTES,
        "bytes",
        "42 neighbours that send the largest bodies at one time, up to 1.5 MiB each",
        "none is made ready; the next body is copied into its place",
        "packetcloud_hop_buffers_unready_total",
    ),
    Cap(
        "lanes",
        MAX_LANES_COUNT,
        "lanes",
        "8 MiB that this node writes for each, and 8 MiB that a service writes",
        "its bodies go in datagrams",
        "packetcloud_hop_lanes_refused_total",
    ),
    Cap(
        "connections at the door of lanes",
        GUESTS_COUNT,
        "connections",
        "a service is there for a millisecond; who says nothing for 5 s at the longest",
        "the oldest makes room; a service that was turned away asks again",
        "packetcloud_hop_guests_turned_away_total",
        ("lane_door:LaneDoor._guests",),
    ),
    Cap(
        "datagrams looked at in one piece",
        MAX_TRAIN_ROWS,
        "datagrams",
        "the trains of one turn, joined",
        "dropped",
        _dropped("short_segment"),
        ("buffers:FlatBuffer.header_rows",),
    ),
    Cap(
        "CONTROL datagram",
        wire.MAX_CONTROL_BYTES,
        "bytes",
        "every path carries it in one piece",
        "dropped",
        _dropped("long_control"),
    ),
    Cap(
        "addresses decoded",
        ADDRESSES_KEPT_COUNT,
        "addresses",
        "as many as neighbours; decoding one anew costs a microsecond",
        "all are forgotten",
        "`BatchReceiver.forgotten_count`",
        ("batch:BatchReceiver._addresses",),
    ),
    Cap(
        "failures to send in the log",
        FAILURES_LOGGED_COUNT,
        "lines",
        "enough to see what is wrong",
        "counted and not logged",
        _dropped("send_failed"),
        ("outlet:Outlet._logged",),
    ),
)

ROOM = Room(
    "hop",
    "packetcloud.chunk.hop",
    CAPS,
    {
        "keys:KeyRing._receive": "one for each of 16 epochs at most",
        "repair:Repairs.transfers": "unfinished transfers that were whole and altered",
        "repair:Repair._altered": "segments of one body",
        "stride_change:StrideChange._wanted": "open transfers of one session",
        "repair:DigestAnswers._frames": "the answer to one question: 8 frames",
        "core:HopCore.dropped": "its keys are reasons of ours",
        "session:Surroundings.dropped": "the same",
        "core:HopCore._ended": "its keys are names of counters",
        "door:Door._calls": "handshakes that this node began: its config says with whom",
        "flow_queues:FlowQueues._lines": "bodies of the layer above, which has caps of its own",
        "flow_queues:FlowQueues._turns": "flows of those bodies",
        "flow_queues:FlowQueues._left_bytes": "flows of those bodies, or that have to pay a turn",
        "flow_queues:FlowQueues._can_wait": "bodies of the layer above, which has caps of its own",
        "sender:Sender._by_token": "the queue and the open transfers together",
        "custody:Custody.refused_unread": "its keys are reasons",
        "lane:Shelf._free": "places between the bodies of open transfers",
        "open_transfers:OpenTransfers._loans": "bodies of open transfers",
        "vigil:Vigil._open": "tasks that this node gave: the 64 newest",
    },
)


def in_use(core: HopCore) -> dict[str, int]:
    """Return how far the caps of a node are used now, by name; the largest of its sessions' each.

    Cost: O(sessions). What a session or a call has for itself alone is not among them.
    """
    sessions = core.sessions.values()
    receivers = [session.receiver for session in sessions]
    transfers = [session.sender.transfers for session in sessions]
    return {
        "neighbours": len(core.sessions),
        "half-open handshakes": core._door.half_open_count,
        "answers waiting for a full socket": len(core._replies),
        "replaced timers": core._timers.replaced_count,
        "bodies held for one neighbour": max(
            (one.credit.held_bytes for one in receivers), default=0
        ),
        "flows of one neighbour that hold something": max(
            (len(one.credit.flows.held) for one in receivers), default=0
        ),
        "bodies held for all neighbours": core.pool.held_bytes,
        "open transfers of one neighbour": max(
            (len(one.incoming.transfers) + one.outcomes.open_count for one in receivers),
            default=0,
        ),
        "unfinished transfers of one neighbour": max(
            (len(one.incoming.transfers) for one in receivers), default=0
        ),
        "open transfers to one neighbour": max(
            (one.next_transfer - one.done_below for one in transfers), default=0
        ),
        "lanes": sum(session.has_lane for session in core.sessions.values()),
        "free buffers kept": core.pool.free_bytes,
        "buffers ready for the next body": core.pool.ready_bytes,
    }
