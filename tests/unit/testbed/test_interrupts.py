"""What ends with whoever began it: the ends of a transfer, the processes of a campaign."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.processes import STOP_GRACE_S, Children, wait_until
from packetcloud.testbed.simulation.campaign import _heirs_of_no_interrupt


def test_whoever_ends_early_waits_for_nothing_on_its_way() -> None:
    """Ctrl-C of `testbed link`: the ends are killed, not asked to drain for five seconds."""
    with Children() as children:
        ends = Ends(children, Load(1, 1), Timing(seconds=1, warmup=0, repeats=1))
        script = (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('{\"event\": 1}', flush=True); signal.pause()"
        )
        command = [sys.executable, "-c", script]
        ends.sender = children.start("sender", command)
        wait_until(lambda: bool(ends.sender and ends.sender.taken_events()), 10.0, "its start")
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt), ends.abandoned_on_error():
            raise KeyboardInterrupt
        assert not ends.sender.is_running
        assert time.monotonic() - began < STOP_GRACE_S


def test_processes_of_a_campaign_never_see_an_interrupt() -> None:
    """They inherit a blocked Ctrl-C, also while they still import; we do not keep it blocked."""
    with _heirs_of_no_interrupt():
        child = subprocess.run(
            [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(0, []))"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert "SIGINT" in child.stdout
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
