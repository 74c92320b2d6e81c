"""What a shell of a test has started ends with the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.system.kept_shell import run_kept

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0
LEAVES_THREE = """
sleep 600 & echo $! > .background && mv .background background
setsid bash -c 'echo $$ > .session; mv .session session; exec sleep 600' &
bash -c '(trap "" TERM HUP; echo $BASHPID > .orphan; mv .orphan orphan; exec sleep 600) &'
"""
"""A background job, one in a session of its own, and one whose parent is gone and that is deaf."""
NAMES = ("background", "session", "orphan")
TEST = """
import os, sys
from pathlib import Path
from tests.system.kept_shell import run_kept
run_kept(sys.argv[1], Path(sys.argv[2]), os.environ, 600)
"""


def _started(folder: Path) -> list[psutil.Process]:
    """Return the processes that the script has started, all of them."""
    deadline = time.monotonic() + LIMIT_S
    while not all((folder / name).exists() for name in NAMES):
        assert time.monotonic() < deadline, "the script does not go on"
        time.sleep(0.02)
    return [psutil.Process(int((folder / name).read_text())) for name in NAMES]


def _assert_all_end(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=LIMIT_S)
    assert not left


def test_all_ends_with_a_test_that_is_killed(tmp_path: Path) -> None:
    """No signal, trap or session keeps anything running."""
    test = subprocess.Popen(
        [sys.executable, "-c", TEST, LEAVES_THREE + "sleep 600", tmp_path], cwd=ROOT
    )
    try:
        started = _started(tmp_path)
    finally:
        test.send_signal(signal.SIGKILL)
        test.wait()
    _assert_all_end(started)


def test_all_ends_with_the_script(tmp_path: Path) -> None:
    """Its exit code is returned when nothing of it runs any more."""
    script = LEAVES_THREE + f"until [ {' -a '.join(f'-e {one}' for one in NAMES)} ]; do :; done\n"
    assert run_kept(script + "exit 7", tmp_path, os.environ, LIMIT_S) == 7
    pids = [int((tmp_path / name).read_text()) for name in NAMES]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_script_that_takes_too_long(tmp_path: Path) -> None:
    """It is ended, and so is what it started."""
    assert run_kept(LEAVES_THREE + "sleep 600", tmp_path, os.environ, 2.0) == -signal.SIGKILL
    pids = [int((tmp_path / name).read_text()) for name in NAMES if (tmp_path / name).exists()]
    assert not any(psutil.pid_exists(pid) for pid in pids)
