"""The caps of the router: what hosts, routers and VIs can make grow, and where it stops.

Source: docs/reference/router.md, "Caps", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.chunk.hop.api import Role
from packetcloud.chunk.names import GUID_ZERO, NA, SID_ZERO
from packetcloud.router.attachment import MAX_FLOWS_COUNT
from packetcloud.router.custody import MAX_DROPPING_NAMES_COUNT, MAX_HELD_COUNT
from packetcloud.router.flow import MAX_VISIT_COUNT
from packetcloud.router.late_rules import MAX_KINDS_COUNT
from packetcloud.router.metrics import PREFIX
from packetcloud.router.routes import MAX_DETACHED_HOSTS_COUNT
from packetcloud.router.rules.number_counts import MAX_PAGES_COUNT
from packetcloud.router.rules.segment import MAX_KEPT_COUNT
from packetcloud.router.rules.table import MAX_RANKED_COUNT
from packetcloud.router.service_table import MAX_UNLISTED_COUNT
from packetcloud.router.settings import RouterSettings, ServiceSettings, SpoolSettings
from packetcloud.router.spool import MAX_QUEUED_BYTES
from packetcloud.router.tap import MAX_CAPTURES_COUNT, MAX_RING_BYTES

_DEFAULTS = RouterSettings(GUID_ZERO, NA(1))
_SPOOL = SpoolSettings()
_SERVICE = ServiceSettings(SID_ZERO, "")
_STORE_FULL = f'{PREFIX}chunks_refused_at_door_total{{reason="store_full"}}'
_MISSES = f"{PREFIX}flow_cache_misses_total"
_WAITING = f"{PREFIX}service_waiting_chunks"
_NOT_ADMITTED = f'{PREFIX}attachments_refused_total{{role="service"}}'

CAPS = (
    Cap(
        "bytes in custody",
        _DEFAULTS.store_bytes,
        "bytes",
        "0.2 s of 10 Gbit/s",
        "refused `store_full` at the door",
        _STORE_FULL,
        ("custody:Custody.header", "service_pool:Service.waiting"),
        "store_bytes",
    ),
    Cap(
        "chunks in custody",
        MAX_HELD_COUNT,
        "chunks",
        "about 1.5 KiB each whatever their size: 400 MB",
        "refused `store_full` at the door",
        _STORE_FULL,
        (
            "custody:Custody.bucket",
            "deadlines:Timed.bucket",
            "deadlines:DeadlineWheel._buckets",
            "deadlines:DeadlineWheel._ticks",
            "reports:ReportBatch.pending",
            "reports:ReportBatch._waiting",
            "routes:NextHop.leaving",
            "service_pool:Service.waiting",
        ),
    ),
    Cap(
        "bytes that wait for one absent neighbour",
        _DEFAULTS.detached_hold_bytes,
        "bytes",
        "sixteen full chunks, so that no absent host takes the store",
        "refused `store_full` at the door",
        _STORE_FULL,
        (
            "lines:Line.entries",
            "lines:Line.in_memory",
            "lines:Lines.by_label",
            "waiting:WaitingRoom._memory_lines",
        ),
        "detached_hold_bytes",
    ),
    Cap(
        "bytes on disk",
        _SPOOL.max_bytes,
        "bytes",
        "8 s of 1 Gbit/s; the files take half as much again and 64 MiB at the most",
        "refused `store_full` at the door",
        f'{PREFIX}spool_refused_total{{reason="full"}}',
        (
            "chunk_log:ChunkLog._places",
            "chunk_log:ChunkLog._segments",
            "chunk_log:_Segment.live",
            "chunk_log:_Segment.dead",
            "chunk_log:ChunkLog._unsynced",
            "emission:Emissions._of",
            "restore:Restorer._found",
            "restore:Restorer._kinds",
            "restore:Restorer._by_name",
            "restore:Restorer._open",
            "restore:Restorer._last",
            "restore:_Kind.entries",
            "restore:_Kind.names",
            "spool:Spool._back",
            "spool:Spool._entries",
            "spool:Spool._reading",
            "waiting:WaitingRoom._short",
            "spool:Spool._flow_bytes",
            "storage:FolderStorage._open",
            "storage:FolderStorage._unsynced",
            "storage:FolderStorage._unsynced_names",
        ),
        "[spool] max_bytes",
    ),
    Cap(
        "bytes of one flow on disk",
        _SPOOL.max_flow_bytes,
        "bytes",
        "a quarter of the spool, so that no destination takes it all",
        "its chunks stay in the hop, which says BUSY; with durable custody: refused `store_full`",
        f'{PREFIX}spool_refused_total{{reason="flow_full"}}',
        ("spool:Spool._flow_bytes",),
        "[spool] max_flow_bytes",
    ),
    Cap(
        "bytes on their way to the disk",
        MAX_QUEUED_BYTES,
        "bytes",
        "a second of a slow disk",
        "they stay in memory; with durable custody: refused `store_full`",
        f'{PREFIX}spool_refused_total{{reason="queue_full"}}',
        ("disk_worker:DiskWorker._jobs",),
    ),
    Cap(
        "absent hosts",
        MAX_DETACHED_HOSTS_COUNT,
        "hosts",
        "about 2 MiB",
        "the one longest away is forgotten, with what waits for it",
        f"{PREFIX}hosts_forgotten_total",
        ("routes:Routes._hosts", "routes:Routes._detached"),
    ),
    Cap(
        "flows of one host",
        MAX_FLOWS_COUNT[Role.HOST],
        "flows",
        "about 400 bytes each",
        "the host's flows are forgotten and decided anew",
        _MISSES,
        ("attachment:Attachment.flows",),
    ),
    Cap(
        "flows of one router",
        MAX_FLOWS_COUNT[Role.ROUTER],
        "flows",
        "about 26 MB; a router carries the flows of many hosts",
        "the router's flows are forgotten and decided anew",
        _MISSES,
        ("attachment:Attachment.flows",),
    ),
    Cap(
        "tasks of one VI",
        _DEFAULTS.vi_window_count,
        "tasks",
        "what is with a VI is done twice after a crash",
        "the chunk waits here for whichever VI has room",
        _WAITING,
        ("service_pool:VI.tasks",),
        "vi_window_count",
    ),
    Cap(
        "bytes of tasks of one VI",
        _DEFAULTS.vi_window_bytes,
        "bytes",
        "8 chunks of 1 MiB keep the link to a VI busy",
        "the chunk waits here for whichever VI has room",
        _WAITING,
        ("service_pool:VI.tasks",),
        "vi_window_bytes",
    ),
    Cap(
        "VIs of one service",
        _SERVICE.max_replicas,
        "VIs",
        "an operator says how many a service may have",
        "not admitted",
        _NOT_ADMITTED,
        ("service_pool:Service.slots",),
        "max_replicas",
    ),
    Cap(
        "services that no list names",
        MAX_UNLISTED_COUNT,
        "services",
        "as many as neighbours, about 10 KiB each",
        "not admitted",
        _NOT_ADMITTED,
        ("service_table:ServiceTable.by_sid", "service_table:ServiceTable._without_vi"),
    ),
    Cap(
        "captures",
        MAX_CAPTURES_COUNT,
        "captures",
        "each looks at every chunk",
        "answered 503",
        f"{PREFIX}captures",
        ("tap:Tap.captures",),
    ),
    Cap(
        "bytes of one capture",
        MAX_RING_BYTES,
        "bytes",
        "a quarter of a second of 500 Mbit/s",
        "counted and told in the capture; chunks go on",
        f"{PREFIX}capture_lost_total",
        ("tap:Capture._sights",),
    ),
    Cap(
        "services of one visit",
        MAX_VISIT_COUNT,
        "services",
        "each takes its time, and the record of a chunk on disk names them",
        "refused `unsupported` at the door",
        f'{PREFIX}chunks_refused_at_door_total{{reason="unsupported"}}',
        ("flow:VisitPlan.steps",),
    ),
    Cap(
        "kinds of chunks of one flow",
        MAX_KINDS_COUNT,
        "kinds",
        "what a size and a payload can make of one flow, about 600 bytes each",
        "the memory is emptied, each kind is decided again",
        f"{PREFIX}late_flows_forgotten_total",
        ("late_rules:LateRules.flows",),
    ),
    Cap(
        "names of services in the count of drops",
        MAX_DROPPING_NAMES_COUNT,
        "names",
        "each is a label of a metric for ever",
        "counted together",
        f'{PREFIX}chunks_dropped_total{{service="other"}}',
        ("custody:CustodyBook.dropped",),
    ),
    Cap(
        "rules of long runs kept of one segment",
        MAX_KEPT_COUNT,
        "rules",
        "400 bytes each: 26 MB",
        "those of further keys are read for each flow that asks, 2 ms at the most",
        "`Segment.unkept_count`",
        ("rules.segment:Segment._kept",),
    ),
    Cap(
        "policies kept of one segment",
        MAX_KEPT_COUNT,
        "policies",
        "400 bytes each: 26 MB",
        "forgotten and read again, 5 µs each",
        "`Segment.forgotten_count`",
        ("rules.segment:Segment.effects",),
    ),
    Cap(
        "ranked rules kept of one version",
        MAX_RANKED_COUNT,
        "rules",
        "100 bytes each: 7 MB",
        "forgotten and ranked again, half a millisecond for a key at the most",
        "`Table.forgotten_count`",
        ("rules.table:Table._rankings",),
    ),
    Cap(
        "pages of rules that are counted by number",
        MAX_PAGES_COUNT,
        "pages",
        "256 rules each, 140 MB in all",
        "rules of further pages are not counted by number",
        f"{PREFIX}rule_decisions_uncounted_total",
        ("rules.number_counts:NumberCounts._pages",),
    ),
)

ROOM = Room(
    "router",
    "packetcloud.router",
    CAPS,
    {
        "core:RouterCore.door_refusals": "its keys are reasons",
        "core:RouterCore.refused_attachments": "its keys are roles",
        "core:RouterCore._attachments": "one for each session: the hop caps neighbours",
        "custody:CustodyBook.refused": "its keys are reasons",
        "custody:CustodyBook.expired": "its keys are reasons",
        "late_rules:LateAnswer._contests": "one for each contest of an answer",
        "late_rules:LateAnswer._shadow_contests": "one for each contest of an answer",
        "late_rules:_LateContest._by_pattern": "one item for each rule of an answer",
        "late_rules:_LateContest._others": "one item for each rule of an answer",
        "redial:Redial._targets": "the neighbours of the config",
        "routes:Routes._routers": "the neighbours of the config",
        "routes:Routes._by_na": "the routes of the config",
        "routes:Routes._names": "the names of the config",
        "offline_explanation": "what a command was given in files",
        "rules.explain": "what `rule explain` shows of one chunk, one item for each rule",
        "rules.explain_schemas": "answers of the management API, made for one request",
        "rules.judge": "what `rule explain` shows of one chunk, one item for each rule",
        "rules.ranking:Ranking._contests": "one for each service that the ranked rules name",
        "rules.segment:Segment.tuples": "the tuples of one file, 32 at the most",
        "rules.segment:Segment._flat": "the parts of one file",
        "rules.segment_entries": "what the keeper writes of rules that it has accepted",
        "rules.segment_file:Memory._views": "the parts of one file",
        "rules.table:Table._always_hits": "one for each segment",
        "rules.table:Table._terms": "the fields, and the ends exchanged: 7 at the most",
        "rules.table:Table._additions": "the tuples of its segments",
        "rules.table:Table._probes": "the tuples of its segments",
        "rules.trial:Trial.refused": "items of a document that its author tries",
        "schemas": "answers of the management API, made for one request",
        "service_pool:Service.verdicts": "its keys are verdict codes",
        "settings:RouterSettings.names": "the names of the config",
        "spool:Spool.refused": "its keys are reasons",
        "status": "answers of the management API, as its client sees them",
    },
)
