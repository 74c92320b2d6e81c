"""What the kernel holds a VI to that is a child process, read from the process while it runs.

What was asked for is not told: only what is in force says what a figure was measured under.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from packetcloud.testbed.processes import Child

PROGRAM = "packetcloud.services.child"
"""Of a VI that is a child process; see `services/child.py`."""
_PROC = Path("/proc")
_UNLIMITED = "unlimited"
_SECCOMP = {"0": "no system call filter", "1": "strict system calls", "2": "a system call filter"}


def protections_of(name: str, supervisor: Child, proc: Path = _PROC) -> list[str]:
    """Return a sentence for each kind of VI that runs under a supervisor."""
    found = [_sentence(proc / str(pid)) for pid in supervisor.family()]
    kinds = dict.fromkeys(text for text in found if text)
    if not kinds:
        return [f"{name}: no VI runs under its supervisor any more, so nothing can be told of it."]
    return [f"{name}: a child process {text}; no boundary against hostile code." for text in kinds]


def told_in(details: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the sentences in the details of several runs, each once."""
    found: dict[str, None] = {}
    for one in details:
        said = one.get("protections", [])
        assert isinstance(said, list)
        found |= dict.fromkeys(said)
    return list(found)


def _sentence(process: Path) -> str:
    """Return what is in force; empty: it is no VI, or one that is kept ready and has no service."""
    try:
        if PROGRAM not in (process / "cmdline").read_text():
            return ""
        status = dict(
            line.partition(":")[::2] for line in (process / "status").read_text().splitlines()
        )
        lines = (process / "limits").read_text().splitlines()[1:]
    except OSError:
        return ""  # it has ended meanwhile
    limits = {line[:26].strip(): line[26:47].strip() for line in lines}
    memory, files = limits["Max address space"], limits["Max open files"]
    if memory == _UNLIMITED:
        return ""
    user = status["Uid"].split()[0]
    return ", ".join(
        (
            f"of user {user}" + (" (root)" if user == "0" else ""),
            f"address space up to {int(memory) >> 20} MiB",
            f"{files} open files",
            "no new privileges" if status["NoNewPrivs"].strip() == "1" else "privileges to be had",
            _SECCOMP[status["Seccomp"].strip()],
            "no capabilities"
            if int(status["CapEff"].strip(), 16) == 0
            else f"capabilities {status['CapEff'].strip().lstrip('0')}",
        )
    )
