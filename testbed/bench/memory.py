"""How much memory a router uses while a lot passes through it, and whether it grows."""

from __future__ import annotations

from statistics import median

from packetcloud.testbed.bench.ours import Load
from packetcloud.testbed.bench.path import attach_ends, check_conservation, router_on_centre
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.processes import Children

LIMIT_S = 300.0
"""A path so slow that the volume takes longer is measured over what it managed."""
_ALWAYS = Timing(seconds=10**6, warmup=0, repeats=1)
"""The window of time never closes here: the volume ends the run."""


def measure_router_memory(scene: Scene, gigabytes: float) -> Document:
    """Send `gigabytes` (10^9 bytes) of 1 MiB chunks; return what the router's RSS did meanwhile.

    Raises:
        ChildError: an end failed, or chunks were lost.
    """
    with Children() as children:
        router = router_on_centre(children, scene)
        before_bytes = router.child.rss_bytes()
        ends = attach_ends(
            children, scene, router, Load(volume_bytes=int(gigabytes * 1e9)), _ALWAYS
        )
        assert ends.receiver is not None
        with Meter([router.child]) as meter:
            try:
                ends.receiver.wait_event("volume", LIMIT_S)
            except ChildError:
                if not ends.receiver.is_running:
                    raise
        sent, received = ends.finish()
        check_conservation(sent, received, router)
        series = [rss_bytes for _, rss_bytes in meter.rss_series(router.child.name)]
    if len(series) < 4:
        raise ChildError("too little was sent to say anything about memory")
    quarter = len(series) // 4
    return {
        "payload_bytes": received["payload_bytes"],
        "rss_idle_bytes": before_bytes,
        "rss_max_bytes": max(series),
        "rss_second_quarter_bytes": median(series[quarter : 2 * quarter]),
        "rss_last_quarter_bytes": median(series[-quarter:]),
        "samples_bytes": series,
    }
