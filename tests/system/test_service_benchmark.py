"""`service benchmark` with its processes: VI types get their share, and refusals are sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.cli.main import main
from packetcloud.services.benchmark import FORMAT, read_measured

CATALOGUE = """
catalogue = 1
[[vi_type]]
name = "tiny"
vcpu = 0.1
memory_mib = 4096
disk_mib = 64
price_tier = 1
[[vi_type]]
name = "whole"
vcpu = 1.0
memory_mib = 4096
disk_mib = 64
price_tier = 2
[[vi_type]]
name = "narrow"
vcpu = 1.0
memory_mib = 64
disk_mib = 64
price_tier = 2
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "types.toml"
    file.write_text(CATALOGUE)
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Return exit code, JSON and standard error."""
    code = main(["--format", "json", "service", "benchmark", *words])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else None, printed.err


def test_a_type_gets_its_share_of_a_processor(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of a processor never uses more, and every type did chunks; the file is read again."""
    file = tmp_path / "out" / "measured.json"
    words = ("wan-optimizer", "--set", "direction=compress", "--catalogue", str(catalogue))
    types = ("--vi-type", "tiny", "--vi-type", "whole")
    code, found, _ = run(
        capsys, *words, *types, "--seconds", "0.5", "--chunk-bytes", "4096", "--json", str(file)
    )
    assert code == 0
    tiny, whole = found["measured"]
    assert (tiny["vi_type"], whole["vi_type"]) == ("tiny", "whole")
    assert 0 < tiny["cores"] < 0.2
    assert tiny["chunks_per_s"] > 0 and whole["chunks_per_s"] > 0
    assert tiny["note"] == whole["note"] == ""
    assert found["format"] == FORMAT and found["service"] == "wan-optimizer"
    assert read_measured(file) == {one["vi_type"]: one["chunks_per_s"] for one in found["measured"]}


def test_a_type_with_less_memory_than_the_service_needs_does_no_chunk(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how much is needed."""
    words = ("wan-optimizer", "--set", "direction=compress", "--catalogue", str(catalogue))
    # zstandard of chunks of a mebibyte, and Python itself, are more than 64 MiB together.
    code, found, _ = run(
        capsys, *words, "--vi-type", "narrow", "--seconds", "0.1", "--chunk-bytes", "1048576"
    )
    assert code == 0
    (narrow,) = found["measured"]
    assert narrow["chunks_per_s"] == 0 and narrow["chunks_count"] > 0
    assert "MiB of memory" in narrow["note"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nothing-like-it",), "wan-optimizer"),
        (("wan-optimizer",), "parameter 'direction' is required"),
        (("wan-optimizer", "--set", "direction=sideways"), "compress"),
        (("wan-optimizer", "--set", "direction=compress", "--vi-type", "vast"), "tiny, whole"),
        # A file that only the process looks for.
        (("secure-communication", "--set", "direction=encrypt", "--set", "key_file=/nowhere"),
         "/nowhere"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    words: tuple[str, ...], text: str, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one sentence, before anything runs or from the process that ran."""
    code, found, error = run(capsys, *words, "--catalogue", str(catalogue), "--seconds", "0.1")
    assert (code, found) == (2, None)
    assert text in error and "Traceback" not in error
