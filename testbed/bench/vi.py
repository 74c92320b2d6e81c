"""`packetcloud bench vi`: what it costs that services run in containers that a controller moves.

Source: docs/reference/bench.md, "vi".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from packetcloud.cloudlet.errors import CloudletError
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.bench.vi_cold import measure_cold_start
from packetcloud.testbed.bench.vi_idle import measure_idle
from packetcloud.testbed.bench.vi_migration import measure_migrations
from packetcloud.testbed.bench.vi_penalty import measure_penalty
from packetcloud.testbed.bench.vi_place import Servers, ViPlan, Workplace, workplace
from packetcloud.testbed.bench.vi_resize import measure_resize
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_daemon import check_lxd

QUICK = ViPlan(
    launches=1, resizes=2, migrations=2, vis=2, settle_s=0.0, idle_s=1.0, sizes=(64 << 10,)
)
"""To see that everything works: too few of each for figures."""
QUICK_TIMING = Timing(seconds=1, repeats=1)

_MEASURES: dict[str, Callable[[Workplace], Document]] = {
    "penalty": measure_penalty,
    "cold": measure_cold_start,
    "standby": partial(measure_cold_start, standbys=1),
    "resize": measure_resize,
    "migration": measure_migrations,
    "idle": measure_idle,
}
_TOP: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "penalty": (("penalty_ratio_lxd", ("ratio",)),),
    "cold": (
        ("cold_start_p50_s", ("start", "p50_s")),
        ("cold_start_p95_s", ("start", "p95_s")),
    ),
    "standby": (
        ("standby_start_p50_s", ("start", "p50_s")),
        ("standby_start_p95_s", ("start", "p95_s")),
    ),
    "resize": (("resize_p95_s", ("resize", "p95_s")),),
    "migration": (
        ("migration_lost", ("lost",)),
        ("migration_doubled", ("doubled",)),
        ("migration_pause_p50_s", ("pause", "p50_s")),
        ("migration_pause_p95_s", ("pause", "p95_s")),
    ),
    "idle": (("idle_core_share", ("controller_core_share",)),),
}
"""Key at the top of the report -> where the figure stands in its part."""


def bench_vi(plan: ViPlan, timing: Timing, progress: Progress) -> Document:
    """Measure the parts of the plan, each on a cloudlet of its own; they share private LXD servers.

    Raises:
        TestbedError: no LXD can run here.
    """
    check_lxd()
    document = begin_document("vi", timing, False, ("lxd",))
    document["topology"] = "private LXD servers"
    document["failures"] = []
    with Servers() as servers:
        for part in plan.parts:
            with workplace(plan, timing, partial(_tell, progress, part), servers) as place:
                try:
                    document[part] = _MEASURES[part](place)
                except (ChildError, CloudletError) as error:
                    place.failures.append(str(error))
            document["failures"] += [f"{part}: {text}" for text in place.failures]
    return document | top_figures(document)


def _tell(progress: Progress, part: str, text: str) -> None:
    progress(f"{part}: {text}")


def top_figures(document: Document) -> Document:
    """Return the figures that stand at the top, those of parts that were measured."""
    figures: Document = {}
    for part, keys in _TOP.items():
        if part not in document:
            continue
        for key, path in keys:
            value = document[part]
            for name in path:
                value = value[name]
            figures[key] = value
    return figures
