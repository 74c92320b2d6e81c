"""`service benchmark`: how many chunks a second one VI of each type processes.

A child runs the service on made-up chunks as fast as it can; it gets as much of a processor as the
VI type has, by stopping and continuing it many times a second, as a container's quota does. A VI
has one core, so a type with more processors is no faster by itself. What it says is of this
machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import IO

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.trial import GeneratedKind

FORMAT = "packetcloud-service-benchmark-1"
PERIOD_S = 0.1
"""As of a container's quota."""
_LOOK_EVERY_S = 0.002
START_WITHIN_S = 60.0
MAX_FILE_BYTES = 1 << 20
MARK = "packetcloud-benchmark "
"""Before what the child says; what else is printed is the service's own."""
MAX_LINES_COUNT = 64
"""Of what a child says, the last of them."""
MAX_TYPES_COUNT = 256
MAX_CHUNKS_PER_S = 10**12


@dataclass(frozen=True, slots=True)
class TypeSize:
    """What a VI type gives to one VI."""

    name: str
    vcpu: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What the service is given."""

    manifest: str
    settings: Sequence[str] = ()
    """KEY=VALUE."""
    generate: GeneratedKind = GeneratedKind.MIXED
    chunk_bytes: int = 1 << 16
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class TypeMeasured:
    """What one VI of a type did."""

    vi_type: str
    chunks_per_s: int
    chunks_count: int
    seconds: float
    cores: float
    """Of a processor that it used; less than the type has: it was not given it."""
    peak_bytes: int
    """Resident memory."""
    note: str = ""
    """Why it does no chunk."""


def measure_types(
    load: Load, sizes: Iterable[TypeSize], progress: Callable[[str], None]
) -> list[TypeMeasured]:
    """Measure one VI of each type, one after the other.

    Raises:
        ServiceConfigError: the service cannot start, or fails on a chunk.
    """
    found = []
    for size in sizes:
        progress(size.name)
        found.append(_measure(load, size))
    return found


def report_of(
    load: Load, service: str, version: str, found: Sequence[TypeMeasured]
) -> dict[str, object]:
    """Return what is written into a file, for `packetcloud quote --measured`."""
    return {
        "format": FORMAT,
        "service": service,
        "version": version,
        "isolation": "process",
        "chunk_bytes": load.chunk_bytes,
        "payload": load.generate.value,
        "measured": [asdict(one) for one in found],
    }


def read_measured(path: Path) -> dict[str, int]:
    """Return chunks per second by VI type, as `service benchmark` wrote them.

    Raises:
        ServiceConfigError: the file cannot be read, or is something else.
    """
    again = "write it with: packetcloud service benchmark MANIFEST --json FILE"
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(MAX_FILE_BYTES))
    except OSError as error:
        raise ServiceConfigError(f"{path}: {error.strerror}; {again}") from None
    except (ValueError, RecursionError):
        raise ServiceConfigError(f"{path}: not JSON; {again}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ServiceConfigError(f"{path}: format: allowed: {FORMAT!r}; {again}")
    entries = document.get("measured")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_TYPES_COUNT:
        raise ServiceConfigError(
            f"{path}: measured: allowed: 1 to {MAX_TYPES_COUNT} types; {again}"
        )
    measured: dict[str, int] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: measured[{number}]"
        name = entry.get("vi_type") if isinstance(entry, Mapping) else None
        rate = entry.get("chunks_per_s") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or name in measured:
            raise ServiceConfigError(f"{where}.vi_type: allowed: a name, once; {again}")
        if type(rate) is not int or not 0 <= rate <= MAX_CHUNKS_PER_S:
            allowed = f"an integer from 0 to {MAX_CHUNKS_PER_S}"
            raise ServiceConfigError(f"{where}.chunks_per_s: allowed: {allowed}; {again}")
        measured[name] = rate
    return measured


def _measure(load: Load, size: TypeSize) -> TypeMeasured:
    words = [load.manifest, load.generate.value, str(load.chunk_bytes), str(load.seconds)]
    command = [sys.executable, "-m", "packetcloud.services.benchmark_child", *words]
    with subprocess.Popen(
        [*command, *load.settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as child:
        try:
            lines, errors, threads = _readers(child)
            _await_ready(child, lines)
            began_s, began_cpu_s = monotonic(), _cpu_s(child.pid)
            cpu_s = _throttle(child, size.vcpu, lines) - began_cpu_s
            length_s = monotonic() - began_s
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for thread in threads:
            thread.join()
    if len(lines) < 2:
        last = errors[-1].strip() if errors else f"exit code {child.returncode}"
        raise ServiceConfigError(f"service {load.manifest} with VI type {size.name}: {last}")
    said = json.loads(lines[1])
    rate, note = int(said["chunks"] / said["seconds"]), ""
    if said["peak_bytes"] > size.memory_bytes:
        rate, note = 0, f"it needs {said['peak_bytes'] >> 20} MiB of memory"
    return TypeMeasured(
        size.name,
        rate,
        said["chunks"],
        round(said["seconds"], 3),
        round(cpu_s / length_s, 3),
        said["peak_bytes"],
        note,
    )


def _readers(child: subprocess.Popen[str]) -> tuple[list[str], list[str], list[Thread]]:
    """Return the lines of standard output and standard error as they come."""
    said: list[str] = []
    errors: list[str] = []
    threads = []
    for stream, lines, mark in ((child.stdout, said, MARK), (child.stderr, errors, "")):
        assert stream is not None
        threads.append(Thread(target=_read, args=(stream, lines, mark), daemon=True))
    for thread in threads:
        thread.start()
    return said, errors, threads


def _read(stream: IO[str], lines: list[str], mark: str) -> None:
    for line in stream:
        if line.startswith(mark):
            lines.append(line.removeprefix(mark))
            del lines[:-MAX_LINES_COUNT]


def _await_ready(child: subprocess.Popen[str], lines: Sequence[str]) -> None:
    end_s = monotonic() + START_WITHIN_S
    while not lines and child.poll() is None and monotonic() < end_s:
        sleep(_LOOK_EVERY_S)


def _throttle(child: subprocess.Popen[str], vcpu: float, lines: Sequence[str]) -> float:
    """Give the child so much of a processor until it said what it did; return its CPU time."""
    used_s = _cpu_s(child.pid)
    quota_s = vcpu * PERIOD_S
    while child.poll() is None and len(lines) < 2:
        period_s, end_s = monotonic() + PERIOD_S, used_s + quota_s
        if vcpu < 1:
            os.kill(child.pid, signal.SIGCONT)
        while monotonic() < period_s and used_s < end_s:
            sleep(_LOOK_EVERY_S)
            used_s = max(used_s, _cpu_s(child.pid))
        if vcpu < 1 and child.poll() is None:
            os.kill(child.pid, signal.SIGSTOP)
        sleep(max(0.0, period_s - monotonic()))
        # What it took too much, it gets less of in the next period.
        quota_s = vcpu * PERIOD_S - max(0.0, used_s - end_s)
    return used_s


def _cpu_s(pid: int) -> float:
    """Return the time for which the process's threads ran."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            total_ns += int(task.read_text().split()[0])
    return total_ns / 1e9
