"""The scenarios one after the other, and the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packetcloud.testbed.demo.payload import make_payload_file, sha256_of
from packetcloud.testbed.demo.result import ScenarioResult
from packetcloud.testbed.demo.scenario import (
    SCENARIOS,
    BackEnd,
    ChildProcesses,
    Scenario,
    run_scenario,
)
from packetcloud.testbed.errors import ChildError, TestbedError
from packetcloud.testbed.held_folder import hold_folder
from packetcloud.testbed.machine import describe_machine, describe_software

FORMAT = "packetcloud-demo-1"
DEFAULT_FOLDER = Path("build/demo")
DEFAULT_BYTES = 256 << 20
REPORT = "report.json"
_LOCK = "lock"
_COPIES_COUNT = 2
"""The file itself, if it is made here, and what host B receives."""

Tell = Callable[[str, int | None, int], None]
"""Told what happens now: words, bytes delivered (None: not known), bytes of the file."""


def show_demo(
    file: Path | None,
    size_bytes: int,
    folder: Path,
    tell: Tell,
    scenarios: Sequence[Scenario] = SCENARIOS,
    back_end: BackEnd | None = None,
) -> dict[str, Any]:
    """Run the scenarios; write `folder`/report.json and return it.

    Args:
        file: what to send; None: `size_bytes` of half compressible data made here.
        folder: for the report, and for keys, logs and data while it runs.
        back_end: where services run; None: in child processes.

    Raises:
        TestbedError: the folder is in use, there is no room, or the file cannot be read.
    """
    back_end = back_end or ChildProcesses()
    with _own_folder(folder) as scratch:
        _check_room(folder, file.stat().st_size if file is not None else size_bytes)
        source = file
        if source is None:
            tell("making the file", None, size_bytes)
            source = scratch / "half-compressible.bin"
            make_payload_file(source, size_bytes)
        size, sha256 = source.stat().st_size, sha256_of(source)
        results: list[ScenarioResult] = []
        errors: dict[str, str] = {}
        for number, scenario in enumerate(scenarios):
            place = scratch / f"scenario-{number}"
            place.mkdir(mode=0o700)
            tell(f"{scenario.name}: starting", None, size)

            def progress(delivered: int, name: str = scenario.name) -> None:
                tell(name, delivered, size)

            try:
                results.append(run_scenario(scenario, source, sha256, place, progress, back_end))
            except ChildError as error:
                errors[scenario.name] = str(error)
            shutil.rmtree(place / "received", ignore_errors=True)
        report = make_report(source, size, file is None, results, errors)
        report |= {"isolation": back_end.name, "protections": list(back_end.protections)}
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        if report["ok"]:
            shutil.rmtree(scratch)
    return report


def make_report(
    source: Path,
    size_bytes: int,
    is_made: bool,
    results: Sequence[ScenarioResult],
    errors: dict[str, str],
) -> dict[str, Any]:
    """Return the report as plain values; `ok` says whether all went as it must."""
    failed = [{"scenario": name, "ok": False, "problems": [text]} for name, text in errors.items()]
    return {
        "format": FORMAT,
        "ok": not errors and not any(result.problems for result in results),
        **describe_software(),
        "machine": describe_machine(),
        "file": {
            "name": source.name,
            "bytes": size_bytes,
            "sha256": results[0].sha256 if results else None,
            "made_here": is_made,
        },
        "scenarios": [*(result.to_document() for result in results), *failed],
    }


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Hold `folder` for ourselves; yield an empty scratch folder inside it."""
    in_use = f"another demo runs in {folder}; wait for it, or choose another with --dir"
    with hold_folder(folder, _LOCK, in_use):
        scratch = folder.resolve() / "run"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            yield scratch
        except KeyboardInterrupt:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _check_room(folder: Path, size_bytes: int) -> None:
    free, needed = shutil.disk_usage(folder).free, _COPIES_COUNT * size_bytes
    if free < needed:
        raise TestbedError(
            f"{folder} has {free >> 20} MiB free, the demo needs {needed >> 20} MiB; "
            "choose a smaller file with --bytes, or another place with --dir"
        )
