"""Protections in force are read from processes that run, not taken from what was asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from packetcloud.testbed.experiments.sealing import protections_of_nodes
from packetcloud.testbed.lxd_cloudlet import LxdCloudlet
from packetcloud.testbed.processes import Child
from packetcloud.testbed.protections import PROGRAM, protections_of, told_in

_STATUS = """\
Name:\tpython
Uid:\t0\t0\t0\t0
CapEff:\t{capabilities}
NoNewPrivs:\t{no_new_privs}
Seccomp:\t{seccomp}
"""
_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max open files            256                  256                  files
Max address space         {memory:<20} {memory:<20} bytes
"""


def _process(
    proc: Path,
    pid: int,
    memory: str,
    program: str = PROGRAM,
    capabilities: str = "000001ffffffffff",
    no_new_privs: int = 1,
    seccomp: int = 0,
) -> int:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_text(f"python\0-m\0{program}\0")
    words = {"capabilities": capabilities, "no_new_privs": no_new_privs, "seccomp": seccomp}
    (folder / "status").write_text(_STATUS.format(**words))
    (folder / "limits").write_text(_LIMITS.format(memory=memory))
    return pid


def _supervisor(*pids: int) -> Child:
    return cast(Child, SimpleNamespace(family=lambda: list(pids)))


def test_what_is_in_force_is_said(tmp_path: Path) -> None:
    """Of VIs with a service: not of their supervisor, nor of a process that is kept ready."""
    supervisor = _process(tmp_path, 1, "unlimited", "packetcloud.cli")
    vi, same, ready = (
        _process(tmp_path, pid, memory)
        for pid, memory in ((2, str(300 << 20)), (3, str(300 << 20)), (4, "unlimited"))
    )
    (said,) = protections_of("process", _supervisor(supervisor, vi, same, ready), tmp_path)
    for words in (
        *("process: ", "user 0 (root)", "300 MiB", "256 open files", "no new privileges"),
        *("no system call filter", "capabilities 1ffffffffff", "no boundary"),
    ):
        assert words in said


def test_what_is_not_in_force_is_not_said(tmp_path: Path) -> None:
    """Another process, another sentence; a VI that has gone is told of as that."""
    pid = _process(tmp_path, 1, str(1 << 30), capabilities="0", no_new_privs=0, seccomp=2)
    (said,) = protections_of("process", _supervisor(pid), tmp_path)
    assert "no capabilities" in said and "a system call filter" in said
    assert "no new privileges" not in said
    (gone,) = protections_of("process", _supervisor(99), tmp_path)
    assert "nothing can be told" in gone


def test_what_several_runs_told_is_told_once() -> None:
    """In the order in which it came; runs that told nothing are none."""
    assert told_in([{"protections": ["a", "b"]}, {}, {"protections": ["b", "c"]}]) == [
        "a",
        "b",
        "c",
    ]


def test_a_node_that_lacks_a_protection_says_so() -> None:
    """With what that costs, in the words of the controller that found it out."""
    protections = [
        SimpleNamespace(name="system call filter", is_active=True, cost=""),
        SimpleNamespace(name="AppArmor", is_active=False, cost="no profile behind the namespace"),
    ]
    nodes = [SimpleNamespace(name="c1", protections=protections)]
    client = contextlib.nullcontext(SimpleNamespace(nodes=lambda: nodes))
    cloudlet = cast(LxdCloudlet, SimpleNamespace(client=lambda: client))
    assert protections_of_nodes(cloudlet) == [
        "lxd, node c1: in force are system call filter.",
        "lxd, node c1: not in force is AppArmor: no profile behind the namespace.",
    ]
