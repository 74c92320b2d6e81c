"""Where the time of a cold start goes, on real LXD: `python -m tests.system.cold_start`.

Launches a service that has no VI, a chunk for it waiting at the router, and prints for each stage
how long it took, and which processor seconds the container, LXD and the controller used until then.
No figure of a busy machine says anything.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from packetcloud.cloudlet.core.stages import Stage
from packetcloud.testbed.tally import NAME
from tests.system.lxd_cloudlet import LxdCloudlet, lxd_cloudlet

SAMPLE_S = 0.005
CGROUPS = Path("/sys/fs/cgroup")
LIMIT_S = 60.0
_TICKS = 100.0
"""Of /proc/PID/stat in a second, on every Linux."""


class Meter:
    """Samples processor seconds of containers, LXD and the controller on a thread of its own.

    Args:
        prefix: with which the containers' names begin.
        pids: processes by what they are called in the result.
    """

    def __init__(self, prefix: str, pids: dict[str, int]) -> None:
        self._prefix = prefix
        self._pids = pids
        self._ends = threading.Event()
        self.samples: list[tuple[float, dict[str, float]]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def at(self, when: float) -> dict[str, float]:
        """Return what was used from the first sample to `when`."""
        first = self.samples[0][1]
        found = next((s for at, s in self.samples if at >= when), self.samples[-1][1])
        return {name: value - first.get(name, 0.0) for name, value in found.items()}

    def _run(self) -> None:
        while not self._ends.wait(SAMPLE_S):
            used = {name: _process_cpu_s(pid) for name, pid in self._pids.items()}
            used["containers"] = _containers_cpu_s(self._prefix)
            self.samples.append((time.monotonic(), used))


def _process_cpu_s(pid: int) -> float:
    """Return what a process and the children that it waited for have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _containers_cpu_s(prefix: str) -> float:
    total = 0.0
    with contextlib.suppress(OSError):  # one ended just now
        for path in CGROUPS.glob(f"cpuacct/lxc.payload.*{prefix}*/cpuacct.usage"):
            total += int(path.read_text()) / 1e9
        for path in CGROUPS.glob(f"lxc.payload.*{prefix}*/cpu.stat"):
            total += int(path.read_text().split()[1]) / 1e6
    return total


def words_of_groups(prefix: str) -> str:
    """Return what each container read from its disk, the most memory that it had, and how often the
    limit of that was in the way; of cgroups of version 1."""
    words = []
    for group in sorted(CGROUPS.glob(f"memory/lxc.payload.*{prefix}*")):
        blocks = CGROUPS / "blkio" / group.name / "blkio.throttle.io_service_bytes"
        read = sum(
            int(line.split()[2]) for line in blocks.read_text().splitlines() if " Read " in line
        )
        most = int((group / "memory.max_usage_in_bytes").read_text())
        full = (group / "memory.failcnt").read_text().strip()
        words.append(f"{read >> 20} MiB, {most >> 20} MiB ({full} times full)")
    return "; ".join(words)


def launch_once(cloudlet: LxdCloudlet, client: httpx.Client) -> tuple[dict[str, float], str]:
    """Launch the service's VI and stop it; return seconds by stage and the words about them."""
    traffic = cloudlet.traffic(interval_s=3600.0, senders=1)
    traffic.start()
    time.sleep(0.5)  # the chunk waits at the router by now
    (daemon,) = cloudlet.daemons
    pids = {"lxd": daemon.pid, "controller": cloudlet.controller.pid}
    prefix = f"{client.get('/v1/status').json()['name']}-"
    with Meter(prefix, pids) as meter:
        began_at = time.monotonic()
        operation = client.post("/v1/vis", json={"service": NAME}).json()["operation"]
        end = began_at + LIMIT_S
        while not traffic.received:
            assert time.monotonic() < end, cloudlet.logs()
            time.sleep(SAMPLE_S / 5)
        arrived_at = traffic.received[0][0]
        answer = client.get(f"/v1/operations/{operation}", params={"wait_s": 30}).json()
        assert answer["state"] == "done", answer
        vis = [one for one in client.get("/v1/vis").json() if one["role"] == "owner"]
        shown: dict[str, Any] = vis[0]
    traffic.stop()
    launch = shown["launch"]
    stages = {name: launch["began_at"] - began_at + s for name, s in launch["took_s"].items()}
    stages["chunk back"] = arrived_at - began_at
    lines = []
    for name, took_s in sorted(stages.items(), key=lambda one: one[1]):
        used = meter.at(began_at + took_s)
        words = "  ".join(f"{who} {spent:.2f}" for who, spent in sorted(used.items()))
        lines.append(f"  {name:<12} {took_s:6.3f} s   cpu s: {words}")
    lines.append(f"  read and held: {words_of_groups(prefix)}")
    operation = client.post(f"/v1/vis/{shown['number']}/stop", json={}).json()["operation"]
    while (
        client.get(f"/v1/operations/{operation}", params={"wait_s": 30}).json()["state"] != "done"
    ):
        assert time.monotonic() < end + LIMIT_S, cloudlet.logs()
    return stages, "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--standbys", type=int, default=0)
    parser.add_argument("--boot-vcpu", type=float, default=1.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        lxd_cloudlet(
            Path(folder),
            replicas=(0, 1),
            standbys=options.standbys,
            boot_vcpu=options.boot_vcpu,
        ) as cloudlet,
        httpx.Client(base_url=cloudlet.url, timeout=LIMIT_S) as client,
    ):
        _until_standbys(client, options.standbys)
        every: list[dict[str, float]] = []
        for number in range(options.launches):
            stages, words = launch_once(cloudlet, client)
            print(f"launch {number + 1}\n{words}", flush=True)
            every.append(stages)
            _until_standbys(client, options.standbys)
    for name in [*(stage.value for stage in Stage), "chunk back"]:
        values = sorted(one[name] for one in every if name in one)
        if values:
            print(f"{name:<12} median {statistics.median(values):.3f}  most {values[-1]:.3f}")


def _until_standbys(client: httpx.Client, count: int) -> None:
    end = time.monotonic() + LIMIT_S
    while True:
        (service,) = client.get("/v1/services").json()
        (node,) = client.get("/v1/nodes").json()
        if node["state"] == "ready" and service["standbys"] == count:
            return
        assert time.monotonic() < end, "the standbys do not come"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
