"""`bench vi`, idle: what controller and router cost while many VIs of a node have nothing to do."""

from __future__ import annotations

import os
import time

from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.vi_place import Workplace, done
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import LIMIT_S, CloudletPlan, LxdCloudlet
from packetcloud.testbed.meter import WHOLE_MACHINE, Meter

SERVICE_NAME = "encrypt"
_FIRST_TYPE, _IDLE_TYPE = "starts", "idles"
_SHARE_OF_NODE = 0.7
_DISK_MIB = 512
_MEMORY_MIB = 128
_TYPES = """\
catalogue = 1
[[vi_type]]
name = "{first}"
vcpu = 0.5
memory_mib = {memory}
disk_mib = {disk}
price_tier = 1
[[vi_type]]
name = "{idle}"
vcpu = {vcpu:.2f}
memory_mib = {memory}
disk_mib = {disk}
price_tier = 1
"""


def measure_idle(place: Workplace) -> Document:
    """Launch VIs on one node, wait, and see what is used.

    Raises:
        ChildError: one did not start, or something ended meanwhile.
    """
    vis = place.plan.vis
    vcpu = idle_vcpu(vis, os.cpu_count() or 1)
    service = place.sealing_service(
        SERVICE_NAME, replicas_min=0, replicas_max=vis, vi_type=_FIRST_TYPE
    )
    types = _TYPES.format(
        first=_FIRST_TYPE, idle=_IDLE_TYPE, vcpu=vcpu, memory=_MEMORY_MIB, disk=_DISK_MIB
    )
    plan = CloudletPlan([service], pool_mib=2048 + vis * _DISK_MIB, vi_types=types)
    with place.cloudlet(plan) as cloudlet:
        for number in range(1, vis + 1):
            place.tell(f"VI {number} of {vis}")
            _launch(cloudlet, number)
        place.tell("letting it come to rest")
        time.sleep(place.plan.settle_s)
        seconds = max(place.plan.idle_s, float(place.timing.seconds))
        place.tell(f"{vis} idle VIs for {seconds:g} s")
        with Meter([cloudlet.controller, cloudlet.router.child], interval_s=1.0) as meter:
            begin_s = time.monotonic()
            time.sleep(seconds)
            end_s = time.monotonic()
        used = meter.cpu_seconds(begin_s, end_s)
        cloudlet.until_running(vis)
        names = cloudlet.controller.name, cloudlet.router.child.name, WHOLE_MACHINE
    controller, router, machine = (used[name] / (end_s - begin_s) for name in names)
    return {
        "vis": vis,
        "seconds": seconds,
        "vcpu_each": vcpu,
        "controller_core_share": controller,
        "router_core_share": router,
        "whole_machine_cores": machine,
    }


def idle_vcpu(vis: int, cores: int) -> float:
    """Return the share of a core that each VI gets, so that all fit a node and one may start.

    Raises:
        ChildError: they do not.
    """
    hundredths = int(100 * min(0.25, _SHARE_OF_NODE * cores / vis))
    if hundredths < 1:
        raise ChildError(f"{vis} VIs do not fit {cores} cores, with 0.01 of a core each")
    return hundredths / 100


def _launch(cloudlet: LxdCloudlet, number: int) -> None:
    """Launch a VI with enough for its start, and take that from it when it runs."""
    known = {one.number for one in cloudlet.list_vis()}
    with cloudlet.client() as client:
        done(cloudlet, f"launch {number}", client.launch(SERVICE_NAME, None, None))
        cloudlet.until_running(number, LIMIT_S)
        (made,) = [one for one in cloudlet.list_vis() if one.number not in known]
        done(cloudlet, f"resize {number}", client.resize(made.number, _IDLE_TYPE))
