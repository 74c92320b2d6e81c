"""The caps of a host: what those who send to it, or withhold reports from it, can grow.

Source: docs/reference/host.md, "Limits", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.host.chunk_ids import MAX_RUNS_COUNT
from packetcloud.host.duplicates import (
    MAX_PAGES_COUNT,
    MAX_PAGES_PER_SOURCE_COUNT,
    MAX_REFUSED_COUNT,
    MAX_REFUSED_PER_SOURCE_COUNT,
)
from packetcloud.host.endpoint_core import MAX_TEMPLATES_COUNT, EndpointLimits
from packetcloud.host.expose import MAX_CALLS_COUNT
from packetcloud.host.file_answers import MAX_PENDING_COUNT as MAX_ANSWERS_COUNT
from packetcloud.host.file_answers import MAX_PENDING_PER_SOURCE_COUNT
from packetcloud.host.file_receiver import (
    MAX_ACTIVE_COUNT,
    MAX_ACTIVE_PER_SOURCE_COUNT,
    MAX_TRANSFERS_PER_FILE_COUNT,
)
from packetcloud.host.inbox_folder import MAX_PARTS_COUNT, MAX_REMEMBERED_COUNT
from packetcloud.host.incoming import MAX_PIECES_COUNT
from packetcloud.host.outstanding import HEAP_SLACK_COUNT, RECENT_COUNT
from packetcloud.host.proxy import MAX_CLIENTS_COUNT, MAX_HEAD_BYTES
from packetcloud.host.reports import MAX_PENDING_COUNT as MAX_REPORTS_COUNT

_LIMITS = EndpointLimits()

CAPS = (
    Cap(
        "chunks outstanding",
        _LIMITS.sends.max_outstanding_count,
        "chunks",
        "200 000 small chunks/s times 80 ms, in half of it: one flow gets no more",
        "further sends wait; `writable()` says when there is room",
        "send_waiting_count",
        ("outstanding:OutstandingSends._sends",),
        "SendLimits.max_outstanding_count",
    ),
    Cap(
        "bytes outstanding",
        _LIMITS.sends.max_outstanding_bytes,
        "bytes",
        "10 Gbit/s times 50 ms, in half of it",
        "further sends wait; `writable()` says when there is room",
        "send_waiting_count",
        ("outstanding:OutstandingSends._sends",),
        "SendLimits.max_outstanding_bytes",
    ),
    Cap(
        "sends that wait",
        _LIMITS.sends.max_waiting_count,
        "sends",
        "an application that never awaits is told",
        "`send` raises `SendQueueFullError`",
        "send_rejected_total",
        (
            "outstanding:OutstandingSends._sends",
            "send_window:_Line.waiting",
            "send_window:SendWindow._lines",
            "send_window:SendWindow._turns",
            "outstanding:OutstandingSends._commands",
        ),
        "SendLimits.max_waiting_count",
    ),
    Cap(
        "ended sends remembered",
        RECENT_COUNT,
        "sends",
        "about 1 MiB, to tell a late report from one that nobody asked for",
        "the oldest is forgotten",
        "send_ended_forgotten_total",
        ("outstanding:OutstandingSends._recent",),
    ),
    Cap(
        "replaced wake-ups",
        HEAP_SLACK_COUNT,
        "wake-ups",
        "about 600 KiB; besides four for each send",
        "swept out",
        "send_wakes_swept_total",
        ("outstanding:OutstandingSends._wakes",),
    ),
    Cap(
        "received and unanswered chunks",
        _LIMITS.max_unanswered_count,
        "chunks",
        "the hop's credit bounds their bytes, this the objects of small ones",
        "refused `store_full`, which the source retries",
        "receive_hop_refused_store_full_unanswered_total",
        (
            "delivery:Delivery._inbox",
            "delivery:Delivery._unclaimed",
            "stream:ChunkStream._chunks",
            "file_transfer:FileTransfers._early",
            "file_receiver:_Active.pieces",
        ),
        "EndpointLimits.max_unanswered_count",
    ),
    Cap(
        "pages of ids seen of one source",
        MAX_PAGES_PER_SOURCE_COUNT,
        "pages",
        "4 million dense ids, 70 000 chunks/s at a lifetime of 60 s; about 4 MiB",
        "the source's oldest is forgotten",
        "window_forgotten_early_total",
        ("duplicates:_Source.pages",),
    ),
    Cap(
        "pages of ids seen of all sources",
        MAX_PAGES_COUNT,
        "pages",
        "about 32 MiB",
        "the source with the most pages forgets its oldest",
        "window_forgotten_early_total",
        ("duplicates:_Source.pages", "duplicates:DuplicateWindow._sources"),
    ),
    Cap(
        "refusals remembered of one source",
        MAX_REFUSED_PER_SOURCE_COUNT,
        "chunks",
        "about 500 KiB with the longest words",
        "the oldest is forgotten: a repeated copy of it gets no answer",
        "window_refused_forgotten_total",
        ("duplicates:_Source.refused",),
    ),
    Cap(
        "refusals remembered of all sources",
        MAX_REFUSED_COUNT,
        "chunks",
        "about 30 MiB with the longest words",
        "the source with the most forgets half of its own",
        "window_refused_forgotten_total",
        ("duplicates:_Source.refused",),
    ),
    Cap(
        "reports that wait for a router",
        MAX_REPORTS_COUNT,
        "reports",
        "about 8 MiB",
        "dropped; the source sends the chunk again and is answered then",
        "report_reports_dropped_total",
        ("reports:PendingReports._by_source",),
    ),
    Cap(
        "destinations with a run of chunk ids",
        MAX_RUNS_COUNT,
        "destinations",
        "about 8 MiB; sources of chunks that want reports are among them",
        "the one longest in no use gets a new random run",
        "ids_forgotten_total",
        ("chunk_ids:ChunkIds._next",),
    ),
    Cap(
        "encoded headers kept",
        MAX_TEMPLATES_COUNT,
        "headers",
        "under 1 MiB; sources of chunks that want reports are among them",
        "all are encoded anew",
        "receive_templates_forgotten_total",
        ("endpoint_core:EndpointCore._templates",),
    ),
    Cap(
        "files coming in",
        MAX_ACTIVE_COUNT,
        "files",
        "two descriptors each",
        "refused `busy`",
        "`FileReceiver.counters`: `refused_busy_total`",
        (
            "file_receiver:FileReceiver._all",
            "file_receiver:FileReceiver._by_key",
        ),
    ),
    Cap(
        "files coming in from one source",
        MAX_ACTIVE_PER_SOURCE_COUNT,
        "files",
        "so that nobody takes all places",
        "refused `busy`",
        "`FileReceiver.counters`: `refused_busy_total`",
        ("file_receiver:FileReceiver._all",),
    ),
    Cap(
        "transfers of one file coming in",
        MAX_TRANSFERS_PER_FILE_COUNT,
        "transfers",
        "each is a try of its sender to resume it",
        "refused `busy`",
        "`FileReceiver.counters`: `refused_busy_total`",
        (
            "file_receiver:FileReceiver._by_id",
            "incoming:Incoming.transfer_ids",
            "incoming:Incoming._questions",
        ),
    ),
    Cap(
        "separate pieces of one file coming in",
        MAX_PIECES_COUNT,
        "pieces",
        "1 MiB of memory; an honest sender makes as many as its window",
        "refused `bad_range`",
        "`FileReceiver.counters`: `refused_bad_range_total`",
        ("ranges:RangeSet._starts", "ranges:RangeSet._ends"),
    ),
    Cap(
        "answers about files on their way",
        MAX_ANSWERS_COUNT,
        "answers",
        "at most 40 MiB; they must not use up what this host may send",
        "not sent: whoever asked asks again",
        "`FileReceiver.counters`: `answers_not_sent_total`",
        ("file_answers:FileAnswers._pending", "file_answers:FileAnswers._pending_of"),
    ),
    Cap(
        "answers about files on their way to one source",
        MAX_PENDING_PER_SOURCE_COUNT,
        "answers",
        "four for each of its files",
        "not sent: whoever asked asks again",
        "`FileReceiver.counters`: `answers_not_sent_total`",
        ("file_answers:FileAnswers._pending",),
    ),
    Cap(
        "unfinished files on the disk",
        MAX_PARTS_COUNT,
        "files",
        "what a week of broken transfers may leave behind",
        "refused `busy`",
        "`FileReceiver.counters`: `refused_busy_total`",
        ("inbox_folder:InboxFolder._parts",),
    ),
    Cap(
        "completed files remembered",
        MAX_REMEMBERED_COUNT,
        "files",
        "about 1 MiB on the disk, rewritten at twice that",
        "the oldest is forgotten: a sender whose last answer was lost sends it again",
        "`InboxFolder.forgotten_count`",
        ("inbox_folder:InboxFolder._completed",),
    ),
    Cap(
        "clients of a proxy",
        MAX_CLIENTS_COUNT,
        "clients",
        "a translator takes 512 connections of one host by default",
        "closed",
        "`Proxy.counts`: `clients_refused`",
        ("proxy:Proxy._clients",),
        "Proxy.max_clients_count",
    ),
    Cap(
        "head of a request to a proxy",
        MAX_HEAD_BYTES,
        "bytes",
        "what servers allow at most",
        "refused with status 431",
        "`Proxy.counts`: `http_refused`",
    ),
    Cap(
        "calls to an exposed service",
        MAX_CALLS_COUNT,
        "calls",
        "as many as a translator gives one host by default",
        "reset as `too_many`",
        "`Exposure.counts`: `calls_refused`",
        ("expose:Exposure._calls",),
    ),
)

_COUNTERS = "its keys are words of ours"
_OWN = "what this host itself sends"
_PROGRAMS = "programs of the same user: 64, with 256 orders each"

ROOM = Room(
    "host",
    "packetcloud.host",
    CAPS,
    {
        "delivery:Delivery.counters": _COUNTERS,
        "duplicates:DuplicateWindow.counters": _COUNTERS,
        "endpoint:Endpoint._counters": _COUNTERS,
        "endpoint_core:EndpointCore.counters": _COUNTERS,
        "file_receiver:FileReceiver.counters": _COUNTERS,
        "file_transfer:FileTransfers.counters": _COUNTERS,
        "outstanding:OutstandingSends.counters": _COUNTERS,
        "reports:PendingReports.counters": _COUNTERS,
        "router_link:RouterLink.counters": _COUNTERS,
        "delivery:Delivery._callbacks": "one for each payload type",
        "delivery:Delivery._streams": "made by the application",
        "endpoint:Endpoint._children": "made by the application",
        "endpoint:Endpoint._room_waiters": "made by the application",
        "endpoint_core:EndpointCore._remembered": "taken out in the turn in which it was put in",
        "file_sender:FileSend._commands": _OWN,
        "file_sender:FileSend._in_flight": _OWN,
        "file_transfer:FileTransfers._outgoing": _OWN,
        "outgoing_file": _OWN,
        "expose:Exposure.counts": _COUNTERS,
        "expose:_ExposedCall._early": "one window of its stream",
        "proxy:Proxy.counts": _COUNTERS,
        "proxy_link:TranslatorLink._owners": "the streams of a host, which have a cap",
        "proxy_link:TranslatorLink._ports": "ports that the user named",
        "proxy_programs:ServedParts._parts": _PROGRAMS,
        "shared_session:SessionHolder._programs": _PROGRAMS,
        "shared_session:_Program._ends": _PROGRAMS,
        "promise:Promise._bridges": "made by whoever awaits it",
        "source_file:SourceFile._scratch": "of fixed size",
        "stream:ChunkStream._waiters": "made by the application",
    },
)
