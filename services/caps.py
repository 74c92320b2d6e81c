"""The caps of a service's runtime: what routers, and the service itself, can make grow.

Source: docs/reference/service-manifest.md, "Caps", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.services.buffers import DEFAULT_KEPT_BYTES
from packetcloud.services.execution import MAX_FAILURE_KINDS
from packetcloud.services.ids.borders import MAX_RUNS_COUNT
from packetcloud.services.ids.flows import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_FLOWS_COUNT,
    MAX_MARKS_COUNT,
)
from packetcloud.services.ids.inspection import MAX_ALERTS_COUNT
from packetcloud.services.ids.outlet import MAX_QUEUED_BYTES
from packetcloud.services.ids.rates import DEFAULT_MAX_COUNT
from packetcloud.services.isolation import MAX_REPORT_BYTES
from packetcloud.services.tasks import (
    MAX_DROP_KINDS,
    MAX_EMIT_COUNT,
    MAX_UNSETTLED_BYTES,
    MAX_WAITING_COUNT,
)
from packetcloud.services.translator.connector import MAX_RESOLVING_COUNT
from packetcloud.services.translator.sessions import (
    MAX_BUFFERED_PER_SOURCE_BYTES,
    MAX_SESSIONS_COUNT,
    MAX_SESSIONS_PER_SOURCE_COUNT,
)

CAPS = (
    Cap(
        "tasks that wait",
        MAX_WAITING_COUNT,
        "tasks",
        "the hop's credit bounds their bytes, this the objects of small ones",
        "refused `store_full`: the router gives the chunk to another VI",
        "`TaskQueue.refused`",
        ("tasks:TaskQueue._waiting",),
    ),
    Cap(
        "bytes of verdicts that the router has not taken",
        MAX_UNSETTLED_BYTES,
        "bytes",
        "what two thirds of a neighbour's credit hold",
        "no further task is started",
        "`TaskQueue.held_up_count`",
        ("tasks:TaskQueue._in_hand", "sdk:ChunkContext._lent", "sdk:ChunkContext._views"),
    ),
    Cap(
        "chunks of one EMIT verdict",
        MAX_EMIT_COUNT,
        "chunks",
        "each costs the router a header to decode",
        "the verdict becomes a failure that says so",
        "`TaskQueue.answered`, `FAILED`",
    ),
    Cap(
        "idle output buffers",
        DEFAULT_KEPT_BYTES,
        "bytes",
        "what the unsettled verdicts of one router use, rounded up",
        "freed",
        "`BufferPool.freed_count`",
        ("buffers:BufferPool._idle",),
    ),
    Cap(
        "kinds of failure told apart",
        MAX_FAILURE_KINDS,
        "kinds",
        "a service can make up any number of them",
        "counted together",
        "`ProcessCalls.failures`, `other`",
        ("execution:ProcessCalls.failures",),
    ),
    Cap(
        "reasons of drops told apart",
        MAX_DROP_KINDS,
        "reasons",
        "a service can make up any number of them; every status tells them",
        "counted together",
        "`TaskQueue.drops`, `other`",
        ("tasks:TaskQueue.drops",),
    ),
    Cap(
        "report of a VI to its supervisor",
        MAX_REPORT_BYTES,
        "bytes",
        "a status is under 1 KiB; what a service writes there itself is no report",
        "thrown away",
        "`reports_dropped_count`",
        ("isolation:_Child._unread", "supervisor:Replica.status", "supervisor:ReplicaBeat.status"),
    ),
    Cap(
        "sessions of a translator",
        MAX_SESSIONS_COUNT,
        "sessions",
        "each may hold a request, and a router gives a VI 512 at a time",
        "answered `busy`",
        "`sessions_refused` in its log",
        ("translator.sessions:Sessions._by_source",),
    ),
    Cap(
        "sessions of one host at a translator",
        MAX_SESSIONS_PER_SOURCE_COUNT,
        "sessions",
        "programs of one host, or tries of one that is restarted",
        "the one heard of longest ago ends",
        "`sessions_displaced` in its log",
        ("translator.sessions:Sessions._by_source",),
    ),
    Cap(
        "bytes that one host lets a translator keep",
        MAX_BUFFERED_PER_SOURCE_BYTES,
        "bytes",
        "1 Gbit/s over 128 ms; of all hosts together 128 MiB, each taking half of what is free",
        "nothing more is read from its servers",
        "`reads_held_up` in its log",
        ("translator.sessions:Sessions._buffered",),
    ),
    Cap(
        "names that a translator looks up",
        MAX_RESOLVING_COUNT,
        "names",
        "name servers that do not answer hold each for seconds",
        "refused `too_many`",
        "`names_refused` in its log",
    ),
    Cap(
        "flows that an ids service knows",
        DEFAULT_MAX_FLOWS_COUNT,
        "flows",
        "each costs 1 KiB, and what is kept of its chunks",
        "the one heard of least lately is forgotten",
        "`flows_forgotten`",
        ("ids.flows:FlowTable._flows",),
        "max_flows",
    ),
    Cap(
        "ends of chunks that an ids service keeps",
        DEFAULT_MAX_BYTES,
        "bytes",
        "5000 flows with one run of chunks each",
        "those of flows heard of least lately are forgotten",
        "`borders_forgotten`",
        setting="border_mib",
    ),
    Cap(
        "runs of one flow that an ids service follows",
        MAX_RUNS_COUNT,
        "runs",
        "as many streams, or gaps, at once",
        "the one that did not grow for longest is forgotten",
        "`borders_forgotten`",
        ("ids.borders:Borders.runs",),
    ),
    Cap(
        "marks of one flow",
        MAX_MARKS_COUNT,
        "marks",
        "rules of one kind of traffic use a handful",
        "not set",
        "`marks_refused`",
        ("ids.flows:Flow.marks",),
    ),
    Cap(
        "windows and buckets of an ids service",
        DEFAULT_MAX_COUNT,
        "of each",
        "one for each rule and source; 300 bytes each",
        "the one used least lately is forgotten",
        "`counted_forgotten`",
        ("ids.rates:Rates._tallies", "ids.rates:Rates._buckets"),
        "max_counted",
    ),
    Cap(
        "alerts of one chunk",
        MAX_ALERTS_COUNT,
        "alerts",
        "Suricata tells 15 of a packet",
        "counted; their rules act all the same",
        "`alerts_of_one_chunk_dropped`",
        ("ids.inspection:_Asking.alerts",),
    ),
    Cap(
        "lines that wait for a collector",
        MAX_QUEUED_BYTES,
        "bytes",
        "a thousand alerts, while all chunks are dropped",
        "not sent; the file has them",
        "`lines_not_collected`",
        ("ids.outlet:Outlet._queue",),
    ),
)

_CONFIG = "what the manifest and the operator say"
_CONNECTIONS = "the translator's `max_connections_per_host`; further ones are reset as `too_many`"
_RULES = "what the operator's rule file says: 16 MiB, 20 000 rules of 8 KiB"

ROOM = Room(
    "services",
    "packetcloud.services",
    CAPS,
    {
        "control_frames:FrameReader._unread": "one frame, refused by its length: 1 MiB",
        "execution:CoroutineExecution._running": "the manifest's `concurrency`",
        "execution:ThreadExecution._given": "two tasks at once",
        "ids.hyperscan_scanner:HyperscanScanner._around": _RULES,
        "ids.hyperscan_scanner:_Hits.places": "`MAX_HITS_COUNT`; then the scan ends",
        "ids.inspection:Inspection.counts": "its keys are `COUNTED`",
        "ids.options:Options._given": _RULES,
        "ids.options:Options.bits": _RULES,
        "ids.options:Options.metadata": _RULES,
        "ids.options:Options.notes": _RULES,
        "ids.outlet:Outlet.counts": "its keys are three",
        "ids.payload_options:PayloadOptions._parts": _RULES,
        "ids.reader:_Line.starts": _RULES,
        "ids.reader:_Reading._classes": _RULES,
        "ids.reader:_Reading._lists": _RULES,
        "ids.reader:_Reading.notes": _RULES,
        "ids.reader:_Reading.refusals": _RULES,
        "ids.reader:_Reading.rules": _RULES,
        "launch:LaunchSpec.parameters": _CONFIG,
        "manifest:Manifest.parameters": _CONFIG,
        "parameters:Parameters._values": _CONFIG,
        "secure_communication.key_ring:KeyRing._made": "the keys of one file",
        "state_transfer:StateIntake._pieces": "as announced, at most 64 MiB",
        "supervision:Supervision._instances": _CONFIG,
        "supervisor:Replica.crashes": "as many as make a quarantine",
        "supervisor:Supervisor.replicas": _CONFIG,
        "tasks:TaskQueue.answered": "its keys are verdict codes",
        "tasks:TaskQueue.refused": "its keys are reasons",
        "translator.hosted:HostedSession._connections": _CONNECTIONS,
        "translator.hosted:HostedSession._opening": _CONNECTIONS,
        "translator.hosted:HostedSession._starved": _CONNECTIONS,
        "translator.listeners:Listeners._open": _CONFIG,
        "translator.listeners:Listeners._owners": _CONFIG,
        "translator.service:Translator._counts": "its keys are in the code",
        "translator.service:Translator._logged": "its keys are in the code",
        "replay": "one replay of an operator's own capture",
        "testing": "a harness for authors' tests",
        "trial": "one trial on an author's own files",
    },
)
