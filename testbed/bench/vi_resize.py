"""`bench vi`, resize: from the wish until LXD and the kernel both have the new limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.cloudlet.vi_types import load_catalogue
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.vi_place import Workplace, done, owner, spread
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, LxdCloudlet

TYPES = ("small", "medium")
READ_BACK_LIMIT_S = 10.0
LOOK_S = 0.002
_GROUPS = Path("/sys/fs/cgroup")
_MIB = 1 << 20


def measure_resize(place: Workplace) -> Document:
    """Give a VI that runs two sizes by turns; return how long it took to be so.

    Raises:
        ChildError: it was refused, or LXD or the kernel have other limits afterwards.
    """
    service = place.sealing_service("encrypt", vi_type=TYPES[0])
    limits = load_catalogue().types
    resizes = place.plan.resizes
    with place.cloudlet(CloudletPlan([service])) as cloudlet:
        cloudlet.until_running()
        vi = owner(cloudlet)
        path = f"/1.0/instances/{vi.container}?project={PROJECT}"
        state = cloudlet.daemons[0].query(path.replace("?", "/state?"))
        groups = ControlGroups.of(state["pid"])
        times_s, done_s = [], []
        for number in range(1, resizes + 1):
            vi_type = TYPES[number % len(TYPES)]
            place.tell(f"resize {number} of {resizes}")
            asked_s = time.monotonic()
            with cloudlet.client() as client:
                done(cloudlet, "resize", client.resize(vi.number, vi_type))
            done_s.append(time.monotonic() - asked_s)
            wanted = limits[vi_type].limits
            _await_groups(groups, wanted)
            _check_lxd(cloudlet, path, wanted)
            times_s.append(time.monotonic() - asked_s)
    return {"resizes": resizes, "resize": spread(times_s), "told_done": spread(done_s)}


def _await_groups(groups: ControlGroups, wanted: Limits) -> None:
    deadline = time.monotonic() + READ_BACK_LIMIT_S
    while groups.limits() != (wanted.memory_mib * _MIB, wanted.vcpu):
        if time.monotonic() > deadline:
            raise ChildError(f"the kernel has {groups.limits()}, wanted {wanted}")
        time.sleep(LOOK_S)


def _check_lxd(cloudlet: LxdCloudlet, path: str, wanted: Limits) -> None:
    server = str(cloudlet.daemons[0].socket)
    with httpx.Client(transport=httpx.HTTPTransport(uds=server), base_url="http://lxd") as client:
        answer: dict[str, Any] = client.get(path).raise_for_status().json()
    config = answer["metadata"]["expanded_config"]
    found = config.get("limits.memory"), config.get("limits.cpu.allowance")
    if found != (f"{wanted.memory_mib}MiB", f"{round(wanted.vcpu * 100)}ms/100ms"):
        raise ChildError(f"LXD has {found}, wanted {wanted}")


class ControlGroups:
    """The control groups of a process, of either version."""

    def __init__(self, memory: Path, cpu: Path) -> None:
        self._memory = memory
        self._cpu = cpu

    @classmethod
    def of(cls, pid: int, groups: Path = _GROUPS, processes: Path = Path("/proc")) -> ControlGroups:
        """Find those of a process.

        Raises:
            ChildError: it has none of memory or processor time.
        """
        found: dict[str, Path] = {}
        for line in (processes / str(pid) / "cgroup").read_text().splitlines():
            number, names, path = line.split(":", 2)
            if number == "0":
                roots = [groups, groups / "unified"]
                known = {"memory": "memory.max", "cpu": "cpu.max"}
            else:
                roots = [groups / names, *(groups / name for name in names.split(","))]
                known = {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us"}
            for controller, file in known.items():
                for root in roots:
                    if (group := root / path.lstrip("/") / file).is_file():
                        found.setdefault(controller, group)
        if set(found) != {"memory", "cpu"}:
            raise ChildError(f"no control groups of process {pid} in {groups}: found {found}")
        return cls(found["memory"], found["cpu"])

    def limits(self) -> tuple[int | None, float | None]:
        """Return bytes of memory and shares of a core's time that are in force; None: no limit."""
        memory = self._memory.read_text().strip()
        words = self._cpu.read_text().split()
        if len(words) == 1:
            words.append(self._cpu.with_name("cpu.cfs_period_us").read_text().strip())
        quota, period = words
        vcpu = None if quota in ("max", "-1") else int(quota) / int(period)
        return (None if memory == "max" else int(memory)), vcpu
