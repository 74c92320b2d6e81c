"""The program inside a VI: `python -P -m packetcloud.services.child PARENT_PID`.

Reads one launch line from standard input, runs that service, and writes what it has to report as
lines of JSON to what was its standard output. Everything slow to import is imported before the
line is read, so that a supervisor can keep one such process ready. It must therefore import little:
no FastAPI, pydantic, click, rich or scapy (a test looks).
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from packetcloud.services.launch import MAX_SPEC_BYTES, LaunchSpec, ResourceLimits

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_STANDARD_INPUT = 0
_STANDARD_OUTPUT = 1
_STANDARD_ERROR = 2


def main(arguments: list[str]) -> int:
    """Run the service that standard input describes and return the exit code."""
    die_with(int(arguments[0]))
    report = _take_over_standard_output()
    import_early()
    line = sys.stdin.buffer.readline(MAX_SPEC_BYTES)
    if not line:
        return 0  # a process kept ready that was not needed
    spec = LaunchSpec.from_json(line)
    logging.basicConfig(
        level=spec.log_level,
        stream=sys.stderr,
        format=f"%(asctime)s %(name)s[{os.getpid()}] %(levelname)s %(message)s",
    )
    apply_limits(spec.limits)
    from packetcloud.services.hosting import host_service

    return host_service(spec, report)


def die_with(parent_pid: int) -> None:
    """Make the kernel kill this process when its parent ends, and give up gaining privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    forbid_new_privileges()
    if os.getppid() != parent_pid:  # it ended before the kernel knew our wish
        os._exit(1)


def forbid_new_privileges() -> None:
    """No program that this process starts can gain privileges, whatever its file says."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def apply_limits(limits: ResourceLimits, *, with_memory: bool = True) -> None:
    """Set what the kernel can limit for one process: memory, open files, no core file.

    Args:
        with_memory: False in a container, whose own limit can change while the service runs.

    `memory_mib` is what the service may add to the interpreter and the libraries loaded so far,
    whose address space (some 400 MiB, mostly untouched) says nothing about memory in use.
    """
    loaded_pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = loaded_pages * resource.getpagesize() + (limits.memory_mib << 20)
    wanted_memory = ((resource.RLIMIT_AS, memory),) if with_memory else ()
    for kind, wanted in (
        *wanted_memory,
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),  # a core file would hold the service's keys
    ):
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(kind, (wanted, wanted))


def import_early() -> None:
    """Load what every service needs, before the limits count: numpy alone maps 100 MiB.

    Not the reactor: that is installed with its loop later.
    """
    for name in (
        "packetcloud.chunk.hop.udp",
        "packetcloud.services.hosting",
        "packetcloud.services.runtime",
        "twisted.internet.asyncioreactor",
    ):
        importlib.import_module(name)


def _take_over_standard_output() -> Any:
    """Return the function that reports; what a service prints goes to standard error instead."""
    pipe = os.dup(_STANDARD_OUTPUT)
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    os.set_blocking(pipe, False)

    def report(message: dict[str, Any]) -> None:
        try:
            os.write(pipe, json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError:
            # The supervisor is busy or gone; a beat that it misses is made good by the next.
            return

    return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
