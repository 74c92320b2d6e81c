"""The caps of a session of streams: what its other end can make grow.

Source: docs/protocol/stream.md, "Caps", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.chunk.streams.caller import MAX_STREAMS_COUNT
from packetcloud.chunk.streams.inbox import MAX_EARLY_COUNT
from packetcloud.chunk.streams.table import MAX_ENDED_COUNT, MAX_UNSAID_COUNT
from packetcloud.chunk.streams.wire import MAX_FRAMES_COUNT

CAPS = (
    Cap(
        "frames of one message",
        MAX_FRAMES_COUNT,
        "frames",
        "what a session with every stream open says of each of them, eight times",
        "the message is refused as malformed",
        "`Caller.foreign_count`",
    ),
    Cap(
        "streams of a host",
        MAX_STREAMS_COUNT,
        "streams",
        "as many as a translator allows one host by default; a translator opens some by calls",
        "reset as `too_many`",
        "`Caller.calls_refused_count`",
        ("table:StreamTable._streams", "table:StreamTable._owed", "table:StreamTable._ready"),
    ),
    Cap(
        "frames besides data that wait to be sent",
        MAX_UNSAID_COUNT,
        "frames",
        "every stream says a few; a peer that speaks of streams that are not makes us say more",
        "not said",
        "`StreamTable.unsaid_dropped_count`",
        ("table:StreamTable._unsaid",),
    ),
    Cap(
        "ended streams remembered",
        MAX_ENDED_COUNT,
        "streams",
        "half a second of 2000 connections/s; about 200 KiB",
        "the oldest is forgotten: a repeated frame is answered `unknown_stream`",
        "`StreamTable.forgotten_count`",
        ("table:StreamTable._ended",),
    ),
    Cap(
        "pieces of one stream that came early",
        MAX_EARLY_COUNT,
        "pieces",
        "their bytes fit the window; this bounds the objects",
        "the stream is reset as `protocol_error`",
        "`StreamTable.violations_count`",
        ("inbox:Inbox._early", "inbox:Inbox._starts"),
    ),
)

_WINDOW = "one window of its stream: bytes that were granted and not consumed"

ROOM = Room(
    "streams",
    "packetcloud.chunk.streams",
    CAPS,
    {
        "answerer:Answerer._held": "as many as its owner says; the oldest is answered",
        "caller:Caller._outstanding": "8 requests that are held and 16 others",
        "outbox:Outbox._pieces": "read from a socket while there is room: 8 MiB of a stream",
        "outbox:Outbox._starts": "one number for each piece of 16 KiB or more",
        "ports:WantedPorts._states": "ports that the user named",
        "table:StreamTable.events": "drained after each message: at most two for each frame",
        "tcp_end:TcpSocket._unwritten": _WINDOW,
    },
)
