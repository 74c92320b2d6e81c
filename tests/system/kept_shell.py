"""Runs a shell for a test, and ends whatever it started: also when the test is killed.

    python kept_shell.py SCRIPT

Between the test and its shell stands a process that orphans come to. Its standard input is a pipe
whose other end the test alone holds: once that is closed nobody waits any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36


def run_kept(script: str, folder: Path, environment: Mapping[str, str], timeout_s: float) -> int:
    """Run a script of bash in `folder`; return its exit code, that of SIGKILL if it takes longer.

    When this returns, and when this process ends, nothing runs that the script has started.
    """
    keeper = subprocess.Popen(
        [sys.executable, __file__, script],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    try:
        return keeper.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        keeper.stdin.close()
        keeper.wait()


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shell = subprocess.Popen(["bash", "-c", sys.argv[1]], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_the_test, daemon=True).start()
    status = shell.wait()
    _end_all()
    # A signal ends this process as it ended the shell, but for the test to see it as a number.
    os._exit(status if status >= 0 else 128 - status)


def _end_with_the_test() -> None:
    os.read(sys.stdin.fileno(), 1)
    _end_all()
    os._exit(1)


def _end_all() -> None:
    """Kill descendants until there are none: children of a killed one come here and are next."""
    while found := psutil.Process().children(recursive=True):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)


if __name__ == "__main__":
    main()
