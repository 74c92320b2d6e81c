"""Files of `service benchmark`: read again, or refused by a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.services.benchmark import (
    FORMAT,
    MAX_CHUNKS_PER_S,
    MAX_TYPES_COUNT,
    Load,
    TypeMeasured,
    read_measured,
    report_of,
)
from packetcloud.services.errors import ServiceConfigError


def _written(folder: Path, measured: Any, format_: str = FORMAT) -> Path:
    file = folder / "measured.json"
    file.write_text(json.dumps({"format": format_, "measured": measured}))
    return file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Chunks per second by type; what else stands in the file is for people."""
    found = [TypeMeasured("small", 1200, 600, 0.5, 0.5, 1 << 20)]
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(report_of(Load("ids"), "ids", "1.0.0", found)))
    assert read_measured(file) == {"small": 1200}
    most = [{"vi_type": f"t{n}", "chunks_per_s": MAX_CHUNKS_PER_S} for n in range(MAX_TYPES_COUNT)]
    assert len(read_measured(_written(tmp_path, most))) == MAX_TYPES_COUNT


ONE = {"vi_type": "small", "chunks_per_s": 1}


@pytest.mark.parametrize(
    ("measured", "where"),
    [
        ([], "measured: allowed: 1 to 256"),
        ([ONE] * (MAX_TYPES_COUNT + 1), "measured: allowed: 1 to 256"),
        ({}, "measured: allowed"),
        ([ONE, ONE], r"measured\[1\].vi_type"),
        ([3], r"measured\[0\].vi_type"),
        ([{"vi_type": "a"}], "chunks_per_s"),
        ([ONE | {"chunks_per_s": -1}], "chunks_per_s"),
        ([ONE | {"chunks_per_s": 1.5}], "chunks_per_s"),
        ([ONE | {"chunks_per_s": True}], "chunks_per_s"),
        ([ONE | {"chunks_per_s": float("nan")}], "chunks_per_s"),
        ([ONE | {"chunks_per_s": MAX_CHUNKS_PER_S + 1}], "chunks_per_s"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    measured: Any, where: str, tmp_path: Path
) -> None:
    """The place, what is allowed, and how to get a right one."""
    with pytest.raises(ServiceConfigError, match=f"{where}.*service benchmark MANIFEST"):
        read_measured(_written(tmp_path, measured))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Not there, not JSON, of another format."""
    file = tmp_path / "measured.json"
    for text, what in ((None, "No such file"), ("{", "not JSON"), ("[]", "format")):
        if text is not None:
            file.write_text(text)
        with pytest.raises(ServiceConfigError, match=what):
            read_measured(file)
    with pytest.raises(ServiceConfigError, match="format: allowed"):
        read_measured(_written(tmp_path, [ONE], "packetcloud-bench-1"))
