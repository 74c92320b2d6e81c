"""A cloudlet on real LXD, by its commands alone: a service serves, moves under load, survives."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.lxd_cloudlet import LxdCloudlet, Traffic, lxd_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]
LARGE_BYTES = (1 << 20) - 64
"""Of a chunk: with the count before it, 1 MiB at most."""
SETTLE_S = 0.5
"""Chunks run so long between two things that happen."""


def _owner(cloudlet: LxdCloudlet) -> dict[str, Any]:
    (vi,) = _owners(cloudlet)
    return vi


def _owners(cloudlet: LxdCloudlet) -> list[dict[str, Any]]:
    """Return whoever serves at this moment: when a VI takes another's place, that may be nobody."""
    return [one for one in cloudlet.vis() if one["role"] == "owner" and not one["is_leaving"]]


def _flowing(cloudlet: LxdCloudlet, traffic: Traffic) -> None:
    """Wait until chunks go through again."""
    before = len(traffic.received)
    cloudlet.until(lambda: len(traffic.received) > before + 20)
    time.sleep(SETTLE_S)


def _nothing_lost_or_doubled(traffic: Traffic) -> None:
    payloads = [payload for _, _, payload in traffic.received]
    assert traffic.failed == []
    assert len(payloads) == len(set(payloads)) == len(traffic.sent)
    counts = [count for _, count, _ in traffic.received]
    assert len(counts) == len(set(counts)), "two owners counted the same"


def _lent_both_ways(cloudlet: LxdCloudlet) -> bool:
    """Send a large chunk through the VI; tell whether it went there and back in shared memory."""
    before = _lent(cloudlet)
    cloudlet.exchange(LARGE_BYTES)
    return all(now > then for now, then in zip(_lent(cloudlet), before, strict=True))


def _lent(cloudlet: LxdCloudlet) -> tuple[int, int]:
    hop = cloudlet.router.get_json("/info")["hop"]
    return hop["lent_bodies"], hop["borrowed_bodies"]


def _shares_memory(cloudlet: LxdCloudlet, number: int) -> None:
    """Bodies go through shared memory, also at the next router; a VI that does not see the
    router's folder gets them in datagrams."""
    assert _lent_both_ways(cloudlet)
    cloudlet.restart_router()
    cloudlet.until_running()
    cloudlet.until(lambda: _lent_both_ways(cloudlet), "the new router lends")
    (daemon,) = cloudlet.daemons
    path = f"/1.0/instances/{_owner(cloudlet)['container']}?project=packetcloud"
    document = daemon.query(path)
    del document["devices"]["lanes"]
    daemon.query(path, "PUT", document)
    said = cloudlet.text("vi", "logs", number).count("bodies go in datagrams")
    cloudlet.restart_router()
    cloudlet.until(
        lambda: cloudlet.text("vi", "logs", number).count("bodies go in datagrams") > said
    )
    cloudlet.until_running()
    cloudlet.exchange(LARGE_BYTES)
    assert _lent(cloudlet) == (0, 0)
    vi = _owner(cloudlet)
    assert (vi["number"], vi["restarts"]) == (number, 0)


def test_a_service_runs_resizes_and_outlives_its_controller(tmp_path: Path) -> None:
    """Chunks pass from the first VI on; a controller that is killed is missed by nobody; what is
    taken down leaves neither container nor bridge nor filter."""
    with lxd_cloudlet(tmp_path) as cloudlet:
        cloudlet.until_running()
        traffic = cloudlet.traffic()
        traffic.start()
        _flowing(cloudlet, traffic)
        number = _owner(cloudlet)["number"]
        assert cloudlet.ask("vi", "resize", number, "medium")["state"] == "done"
        cloudlet.kill_controller()
        _flowing(cloudlet, traffic)
        cloudlet.start_controller()
        cloudlet.until_running()
        vi = _owner(cloudlet)
        assert (vi["number"], vi["vi_type"], vi["restarts"]) == (number, "medium", 0)
        (listed,) = cloudlet.ask("vi", "list")
        assert (listed["number"], listed["vi_type"]) == (number, "medium")
        assert "attached to router" in cloudlet.text("vi", "logs", number)
        _flowing(cloudlet, traffic)
        traffic.stop()
        _nothing_lost_or_doubled(traffic)
        counts = sorted(count for _, count, _ in traffic.received)
        assert counts == list(range(1, len(counts) + 1)), "one process served all the time"
        _shares_memory(cloudlet, number)
        cloudlet.stop_controller()
        assert cloudlet.down()["vis_removed"] == 1
        links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
        rules = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout
        assert cloudlet.tag not in links and cloudlet.tag not in rules


def test_migrations_under_load(tmp_path: Path) -> None:
    """To and fro between two LXD servers: every chunk once, and the count goes on without a gap."""
    with lxd_cloudlet(tmp_path, nodes_count=2) as cloudlet:
        cloudlet.until_running()
        traffic = cloudlet.traffic()
        traffic.start()
        _flowing(cloudlet, traffic)
        for _ in range(4):
            vi = _owner(cloudlet)
            assert cloudlet.ask("vi", "migrate", vi["number"])["state"] == "done"
            moved = _owner(cloudlet)
            assert moved["node"] != vi["node"]
            assert (moved["slot"], moved["owner_epoch"]) == (vi["slot"], vi["owner_epoch"] + 1)
            _flowing(cloudlet, traffic)
        assert cloudlet.ask("node", "evacuate", _owner(cloudlet)["node"])["state"] == "done"
        _flowing(cloudlet, traffic)
        traffic.stop()
        _nothing_lost_or_doubled(traffic)
        counts = sorted(count for _, count, _ in traffic.received)
        assert counts == list(range(1, len(counts) + 1))


def test_standbys_move_and_replace_what_serves(tmp_path: Path) -> None:
    """The twin of a migration, and who takes the place of a VI that crashed, were there before; a
    controller that was killed finds them again, and one that is not needed any more just ends."""
    with lxd_cloudlet(tmp_path, nodes_count=2, standbys=1) as cloudlet:
        cloudlet.until_running()
        standby = cloudlet.standby()
        assert standby["node"] != _owner(cloudlet)["node"]
        traffic = cloudlet.traffic()
        traffic.start()
        _flowing(cloudlet, traffic)
        number = _owner(cloudlet)["number"]
        assert cloudlet.ask("vi", "migrate", number)["state"] == "done"
        vi = _owner(cloudlet)
        assert vi["number"] == standby["number"]
        assert "started" not in vi["launch"]["took_s"]
        _flowing(cloudlet, traffic)
        traffic.stop()
        _nothing_lost_or_doubled(traffic)
        standby = cloudlet.standby()
        cloudlet.kill_controller()
        cloudlet.start_controller()
        cloudlet.until_running()
        assert cloudlet.standby()["number"] == standby["number"]
        (daemon,) = [
            one for one in cloudlet.daemons if vi["container"] in map(_name, _containers(one))
        ]
        path = f"/1.0/instances/{vi['container']}/state?project=packetcloud"
        os.kill(daemon.query(path)["pid"], signal.SIGKILL)
        cloudlet.until(lambda: [one["number"] for one in _owners(cloudlet)] == [standby["number"]])
        cloudlet.until_running()
        waiting = cloudlet.standby()
        assert cloudlet.ask("vi", "stop", waiting["number"])["state"] == "done"
        assert cloudlet.standby()["number"] > waiting["number"]


def test_a_vi_and_an_lxd_that_crash(tmp_path: Path) -> None:
    """A killed VI starts again; a killed LXD daemon is waited for while its VIs serve on."""
    with lxd_cloudlet(tmp_path) as cloudlet:
        cloudlet.until_running()
        traffic = cloudlet.traffic()
        traffic.start()
        _flowing(cloudlet, traffic)
        (daemon,) = cloudlet.daemons
        vi = _owner(cloudlet)
        path = f"/1.0/instances/{vi['container']}/state?project=packetcloud"
        os.kill(daemon.query(path)["pid"], signal.SIGKILL)
        cloudlet.until(lambda: [one["restarts"] for one in _owners(cloudlet)] == [1])
        cloudlet.until_running()
        _flowing(cloudlet, traffic)
        daemon.kill()
        cloudlet.until(lambda: cloudlet.ask("node", "list")[0]["state"] == "silent")
        _flowing(cloudlet, traffic)
        daemon.start()
        cloudlet.until(lambda: cloudlet.ask("node", "list")[0]["state"] == "ready")
        assert _owner(cloudlet)["restarts"] == 1
        traffic.stop()
        assert traffic.failed == []


def _name(path: str) -> str:
    return path.split("?")[0].rsplit("/", 1)[-1]


def _containers(daemon: Any) -> list[str]:
    return list(daemon.query("/1.0/instances?project=packetcloud") or [])
