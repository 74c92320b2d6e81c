"""The vectors of chunk format 1: headers, tasks, verdicts, reports, names; good and bad ones.

`python -m tests.vectors.chunk_v1` tells whether chunk-v1.json is what the code encodes (exit code 1
if not); with `--write` it writes the file anew. Do that only when the format changes on purpose.
Source: docs/protocol/chunk.md, docs/protocol/hop.md ("Bodies").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from packetcloud.chunk.header import (
    decode_chunk,
    decode_header,
)
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import (
    TaskHeader,
    VerdictHeader,
    decode_reports,
    encode_reports,
)
from tests.vectors.chunk_v1_invalid import bad_bytes
from tests.vectors.chunk_v1_valid import good_headers, good_reports, good_tasks, good_verdicts
from tests.vectors.fields import Fields, header_fields, report_fields, task_fields, verdict_fields
from tests.vectors.file import VectorFile


def build() -> Fields:
    """Return the vectors as the code encodes them now."""
    return {
        "protocol": "packetcloud chunk",
        "version": 1,
        "names": [_name_vector(number) for number in (0, 1)],
        "headers": [
            {"name": name, "bytes": header.to_bytes().hex(), "fields": header_fields(header)}
            for name, header in good_headers().items()
        ],
        "tasks": [
            {"name": name, "bytes": task.to_bytes().hex(), "fields": task_fields(task)}
            for name, task in good_tasks().items()
        ],
        "verdicts": [
            {"name": name, "bytes": verdict.to_bytes().hex(), "fields": verdict_fields(verdict)}
            for name, verdict in good_verdicts().items()
        ],
        "reports": [
            {
                "name": name,
                "bytes": encode_reports(entries).hex(),
                "fields": [report_fields(entry) for entry in entries],
            }
            for name, entries in good_reports().items()
        ],
        "invalid": [
            {"name": name, "kind": kind, "bytes": data.hex(), "reason": reason}
            for kind, table in bad_bytes().items()
            for name, (data, reason) in table.items()
        ],
    }


DECODERS: Mapping[str, Callable[[bytes | memoryview], object]] = {
    "header": decode_header,
    "chunk": decode_chunk,
    "task": TaskHeader.from_bytes,
    "verdict": VerdictHeader.from_bytes,
    "reports": decode_reports,
}
"""The decoder for each `kind` of invalid vector."""


def _name_vector(number: int) -> Fields:
    """A seed, the key and the name that follow from it, and one signature."""
    identity = Identity(bytes([number]) * 32)
    return {
        "seed": identity.seed.hex(),
        "public_key": identity.public_key.hex(),
        "guid": identity.guid.hex,
        "domain": "vector",
        "message": b"a message".hex(),
        "signature": identity.sign(b"vector", b"a message").hex(),
    }


FILE = VectorFile(Path(__file__).with_name("chunk-v1.json"), build)

if __name__ == "__main__":
    sys.exit(FILE.main(sys.argv[1:]))
