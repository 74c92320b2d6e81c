"""What the reports of all benchmarks have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packetcloud.testbed.bench.plot import plot_document
from packetcloud.testbed.bench.report import Document, write_document

HEAD = (
    "format",
    "benchmark",
    "kernel",
    "python",
    "packages",
    "commit",
    "time",
    "machine",
    "peers",
    "topology",
    "seconds",
    "repeats",
    "notes",
    "failures",
)


def check_head(document: Document, benchmark: str, folder: Path) -> Any:
    """Check what all reports have in common, through the file; return what the file holds."""
    file, picture = folder / "report.json", folder / "report.png"
    write_document(document, file)
    found = json.loads(file.read_text())
    assert set(HEAD) <= set(found)
    assert found["benchmark"] == benchmark
    assert found["failures"] == []
    assert {"cpu", "cores", "memory_bytes"} <= set(found["machine"])
    plot_document(document, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    return found
