"""`bench vi` in miniature on real LXD: every key is there, what is broken is seen, nothing is left.

What the figures are is not looked at: this machine may be doing anything else meanwhile.
"""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.testbed.bench.vi import QUICK, QUICK_TIMING, bench_vi
from packetcloud.testbed.lxd_remains import (
    NETWORK_PREFIX,
    PARENT,
    PREFIX,
    sweep_stale_lxd,
    sweep_stale_networks,
)
from packetcloud.testbed.processes import packetcloud_command
from tests.system.bench_report import check_head
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S, STORE

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]
PLAN = replace(QUICK, images=STORE.folder)
END_S = 60.0


def _quiet(_: str) -> None:
    pass


def test_bench_vi_has_every_key(tmp_path: Path) -> None:
    """Launches, resizes, moves under load, both back-ends, idle VIs; none lost, none doubled."""
    found = check_head(bench_vi(PLAN, QUICK_TIMING, _quiet), "vi", tmp_path)
    for key in (
        "penalty_ratio_lxd",
        "cold_start_p50_s",
        "cold_start_p95_s",
        "standby_start_p50_s",
        "standby_start_p95_s",
        "resize_p95_s",
        "migration_pause_p50_s",
        "migration_pause_p95_s",
    ):
        assert found[key] > 0
    assert found["idle_core_share"] >= 0
    assert (found["migration_lost"], found["migration_doubled"]) == (0, 0)
    assert found["migration"]["problems"] == []
    assert found["migration"]["chunks"] > 100
    for part in ("cold", "standby"):
        assert len(found[part]["start"]["samples_s"]) == QUICK.launches
        assert {"begun", "launched", "first_chunk"} <= set(found[part]["stages_p50_s"])
    assert len(found["migration"]["pause"]["samples_s"]) == QUICK.migrations
    assert found["idle"]["vis"] == QUICK.vis


def test_a_state_that_is_thrown_away_is_seen_by_the_judge() -> None:
    """The control: a VI that says it took over the state, and did not, makes the run fail."""
    plan = replace(PLAN, parts=("migration",), migrations=1, forgets=True)
    document = bench_vi(plan, QUICK_TIMING, _quiet)
    assert document["migration_lost"] == 0
    assert document["migration_doubled"] > 0
    assert any("written twice by the service" in text for text in document["failures"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_bench_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C removes containers, servers and bridges; what a killed one left, the next removes."""
    command = packetcloud_command(
        *("bench", "vi", "--part", "cold", "--launches", 1000, "--images", STORE.folder)
    )
    bench = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    bridge = Path(f"/sys/class/net/{NETWORK_PREFIX}{bench.pid:x}d")
    try:
        deadline = time.monotonic() + 2 * END_S
        while not (bridge / "brif").is_dir() or not list((bridge / "brif").iterdir()):
            assert bench.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        bench.send_signal(number)
        assert bench.wait(END_S) == (130 if number is signal.SIGINT else -number)
    finally:
        bench.kill()
        bench.wait()
    if number is signal.SIGKILL:
        assert bridge.name.removesuffix("d") in sweep_stale_networks()
        assert [path.name.split("-")[1] for path in sweep_stale_lxd()] == [str(bench.pid)]
    assert not bridge.exists()
    assert list(PARENT.glob(f"{PREFIX}-{bench.pid}-*")) == []
