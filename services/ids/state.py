"""What one instance of the service hands to its successor: flows, marks, ends of chunks, counts.

Times travel as ages, so that the clocks of two nodes need not agree. The rules themselves do not
travel: the successor has its own file. Source: docs/reference/ids.md, "State".
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.ids.borders import Borders, Run
from packetcloud.services.ids.flows import MAX_MARKS_COUNT, Flow, FlowTable
from packetcloud.services.ids.rates import Rates

STATE_FORMAT = "packetcloud-ids-state-1"
MAX_STATE_BYTES = 256 << 20
"""Unpacked: four times what a service may hand over."""
MAX_ENDS_BYTES = 40 << 20
"""Of chunks, those of flows heard of last: packed, they fit what a service may hand over."""


def export_state(flows: FlowTable, rates: Rates, now: float) -> bytes:
    """Return everything that was seen."""
    items: list[object] = []
    left_bytes = MAX_ENDS_BYTES
    for key, flow in reversed(flows.items()):
        left_bytes -= flow.kept_bytes
        is_whole = left_bytes >= 0
        items.append(
            [
                key[0].hex(),
                key[1].hex(),
                flow.client.hex(),
                flow.is_answered,
                sorted(flow.marks),
                _borders(flow.to_server if is_whole else Borders(), now),
                _borders(flow.to_client if is_whole else Borders(), now),
                flow.has_lost or (flow.kept_bytes > 0 and not is_whole),
            ]
        )
    items.reverse()
    document = {"format": STATE_FORMAT, "flows": items, **rates.export(now)}
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)


def import_state(data: bytes, flows: FlowTable, rates: Rates, now: float) -> None:
    """Take over what `export_state` returned; what is over this instance's limits is left out.

    Raises:
        ServiceConfigError: damaged, or of another version.
    """
    if not data:
        return
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, MAX_STATE_BYTES)
        if not unpacker.eof:
            raise ValueError("too large, or cut")
        document = json.loads(text)
        if document["format"] != STATE_FORMAT:
            raise ValueError(f"format {document['format']!r}, expected {STATE_FORMAT}")
        for item in document["flows"]:
            first, second, client, is_answered, marks, to_server, to_client, *has_lost = item
            flow = Flow(
                bytes.fromhex(client),
                bool(is_answered),
                set(map(str, marks[:MAX_MARKS_COUNT])),
                _read_borders(to_server, flows.max_runs, now),
                _read_borders(to_client, flows.max_runs, now),
                any(has_lost),  # an older version did not say it
            )
            flows.put((bytes.fromhex(first), bytes.fromhex(second)), flow)
        rates.take_over(document, now)
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceConfigError(f"state of an ids service: {error}") from error


def _borders(borders: Borders, now: float) -> list[object]:
    runs = [
        [
            run.space.hex(),
            str(run.start),
            str(run.end),
            run.size_bytes,
            run.head.hex(),
            run.tail.hex(),
            round(now - run.grown_at, 3),
        ]
        for run in borders.runs
    ]
    return [runs, borders.last.hex()]


def _read_borders(value: Any, max_runs: int, now: float) -> Borders:
    runs, last = value
    found = [
        Run(
            bytes.fromhex(space),
            int(start),
            int(end),
            int(size_bytes),
            bytes.fromhex(head),
            bytes.fromhex(tail),
            grown_at=now - max(0.0, *map(float, age)) if age else now,
        )
        for space, start, end, size_bytes, head, tail, *age in runs[-max_runs:]
    ]
    return Borders(found, bytes.fromhex(last))
