"""Alerts and statistics as lines of JSON, like those of Suricata's EVE log.

Source: Suricata user guide, "EVE JSON Format"; docs/reference/ids.md, "Alerts".
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Mapping

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import SID
from packetcloud.services.ids.flows import flow_id, key_of
from packetcloud.services.ids.inspection import Alert
from packetcloud.services.ids.rule import Side

MAX_LINE_BYTES = 16 << 10
"""A longer one goes without what of a payload it would carry."""


def alert_line(
    alert: Alert,
    header: ChunkHeader,
    side: Side,
    sid: SID,
    wall_s: float,
    excerpt: bytes = b"",
    suppressed_count: int = 0,
) -> bytes:
    """Return one alert, without an end of line.

    Args:
        sid: of the service that says so.
        wall_s: seconds since 1970, UTC.
        excerpt: the begin of the payload; empty: nothing of it is told.
        suppressed_count: of the same signature and source, not told since the last one.
    """
    rule = alert.rule
    details: dict[str, object] = {
        "action": "blocked" if alert.is_blocked else "allowed",
        "gid": rule.gid,
        "signature_id": rule.sid,
        "rev": rule.rev,
        "signature": rule.msg,
        "category": rule.category,
        "severity": rule.priority,
    }
    if rule.metadata:
        collected: dict[str, list[str]] = {}
        for key, value in rule.metadata:
            collected.setdefault(key, []).append(value)
        details["metadata"] = collected
    document = _head("alert", sid, wall_s) | _chunk_keys(header, side) | {"alert": details}
    if alert.is_over_border:
        document["over_border"] = True
    if suppressed_count:
        document["suppressed"] = suppressed_count
    if excerpt:
        document["payload"] = base64.b64encode(excerpt).decode("ascii")
    line = encode_line(document)
    if len(line) > MAX_LINE_BYTES:
        document.pop("payload", None)
        details.pop("metadata", None)
        line = encode_line(document)
    return line


def anomaly_line(
    event: str,
    header: ChunkHeader,
    side: Side,
    sid: SID,
    wall_s: float,
    suppressed_count: int = 0,
) -> bytes:
    """Return a line about a chunk that is not what it should be."""
    document = _head("anomaly", sid, wall_s) | _chunk_keys(header, side)
    if suppressed_count:
        document["suppressed"] = suppressed_count
    return encode_line(document | {"anomaly": {"type": "detect", "event": event}})


def stats_line(sid: SID, wall_s: float, stats: Mapping[str, object]) -> bytes:
    """Return a line of counters."""
    return encode_line(_head("stats", sid, wall_s) | {"stats": {"ids": dict(stats)}})


def encode_line(document: Mapping[str, object]) -> bytes:
    """Return a document on one line."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _head(event_type: str, sid: SID, wall_s: float) -> dict[str, object]:
    moment = datetime.datetime.fromtimestamp(wall_s, datetime.UTC)
    return {
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
        "event_type": event_type,
        "host": sid.hex,
    }


def _chunk_keys(header: ChunkHeader, side: Side) -> dict[str, object]:
    key = key_of(header.source.value, header.destination.value)
    return {
        "flow_id": flow_id(key),
        "src_guid": header.source.hex,
        "dest_guid": header.destination.hex,
        "proto": "CHUNK",
        "direction": side.value,
        "chunk_id": str(header.chunk_id.value),
        "payload_type": int(header.payload_type),
        "payload_bytes": header.payload_bytes,
    }
