"""Others' share of a machine: who is counted, and who is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.testbed.others import OthersWatch
from packetcloud.testbed.processes import TICK_S

_BOOTED_S = 1000.0


class _Machine:
    """Processes in a folder that looks like /proc."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder
        self.now_s = 0.0
        self._pass(0.0)

    def put(
        self, pid: int, parent: int, cpu_s: float, waited_s: float = 0.0, group: str = "0::/x"
    ) -> None:
        folder = self.proc / str(pid)
        if not folder.exists():
            folder.mkdir()
            (folder / "began").write_text(str(_BOOTED_S + self.now_s))
        began_s = float((folder / "began").read_text())
        fields = ["S", str(parent), *["0"] * 9, *(str(round(s / TICK_S)) for s in (cpu_s, 0))]
        fields += [str(round(waited_s / TICK_S)), *["0"] * 5, str(round(began_s / TICK_S))]
        (folder / "stat").write_text(f"{pid} (a ) name) {' '.join(fields)} 0 0")
        (folder / "cgroup").write_text(group)

    def end(self, pid: int) -> None:
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()
        (self.proc / str(pid)).rmdir()

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        (self.proc / "uptime").write_text(f"{_BOOTED_S + self.now_s} 0")

    def watch(self) -> OthersWatch:
        found = OthersWatch(self.proc, 100, lambda: self.now_s)
        self._pass(10.0)
        return found


@pytest.fixture
def machine(tmp_path: Path) -> _Machine:
    found = _Machine(tmp_path)
    found.put(1, 0, 5.0)
    found.put(2, 0, 0.0)
    found.put(3, 2, 7.0)
    found.put(100, 1, 1.0)
    return found


def test_we_and_the_kernel_are_no_others(machine: _Machine) -> None:
    """What we started works for us, as the kernel's threads do; new containers too."""
    watch = machine.watch()
    machine.put(3, 2, 9.0)
    machine.put(100, 1, 3.0)
    machine.put(101, 100, 8.0)
    machine.put(102, 101, 8.0)
    machine.put(500, 1, 6.0, group="0::/lxc.payload.vi-1")
    assert watch.cores() == 0.0


def test_others_are_counted(machine: _Machine) -> None:
    """Those that were there, new ones, those that ended and were waited for; and containers that
    were there before."""
    machine.put(200, 1, 100.0)
    machine.put(201, 200, 50.0)
    machine.put(300, 1, 20.0, group="0::/lxc.payload.other")
    watch = machine.watch()
    machine.put(200, 1, 101.0, waited_s=52.0)  # of which 201 had used 50 before
    machine.end(201)
    machine.put(300, 1, 23.0, group="0::/lxc.payload.other")
    machine.put(400, 1, 4.0)
    assert watch.cores() == pytest.approx((1 + 2 + 3 + 4) / 10)


def test_who_ended_and_was_not_waited_for_does_not_make_it_less_than_nothing(
    machine: _Machine,
) -> None:
    """What he had used is gone from the sum."""
    machine.put(200, 1, 100.0)
    watch = machine.watch()
    machine.end(200)
    assert watch.cores() == 0.0


def test_this_machine_can_be_watched() -> None:
    """With its real /proc."""
    assert OthersWatch().cores() >= 0.0


def test_a_container_of_ours_that_ends_is_not_init_s_own_work(machine: _Machine) -> None:
    """Its monitor is nobody's child, so init waits for it and has its time from then on."""
    machine.put(600, 1, 2.0)
    watch = machine.watch()
    machine.put(500, 1, 30.0, group="0::/lxc.payload.vi-1")
    machine.end(500)
    machine.end(600)
    machine.put(1, 0, 6.0, waited_s=32.0)
    assert watch.cores() == pytest.approx(0.1)


def test_what_ended_takes_nothing_from_others(machine: _Machine) -> None:
    """What a process had used before it ended is subtracted from whoever waited for it alone."""
    machine.put(200, 1, 100.0)
    machine.put(300, 1, 20.0)
    watch = machine.watch()
    machine.end(200)
    machine.put(300, 1, 24.0)
    assert watch.cores() == pytest.approx(0.4)
