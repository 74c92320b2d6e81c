"""The picture of `bench vi`: how long things take, and where the delay penalty goes."""

from __future__ import annotations

from typing import Any

from packetcloud.testbed.bench.report import Document

_COLOURS = {"processing": "#30638e", "delivery": "#d1495b"}


def draw_vi(document: Document, axes: Any) -> None:
    """Draw four panels: times, where those of a start go, delay penalty, cores in use when idle."""
    times, stages, penalty, idle = axes
    _draw_times(document, times)
    _draw_stages(document, stages)
    _draw_penalty(document.get("penalty", {}).get("sizes", {}), penalty)
    _draw_idle(document.get("idle"), idle)


def _draw_times(document: Document, panel: Any) -> None:
    """What share of launches, resizes and migrations took at most so long."""
    series = {
        "cold start": document.get("cold", {}).get("start"),
        "start of a standby": document.get("standby", {}).get("start"),
        "resize": document.get("resize", {}).get("resize"),
        "pause of a migration": document.get("migration", {}).get("pause"),
    }
    known = {name: found["samples_s"] for name, found in series.items() if found}
    for name, samples in known.items():
        shares = [(number + 1) / len(samples) for number in range(len(samples))]
        panel.step(sorted(samples), shares, where="post", label=name)
    panel.set_xlabel("s")
    panel.set_ylabel("share that took at most so long")
    panel.set_ylim(0, 1.02)
    panel.set_xlim(left=0)
    if known:
        panel.legend(fontsize=7)


def _draw_stages(document: Document, panel: Any) -> None:
    """Medians of the stages of a start, without and with a standby."""
    parts = {"cold": "no standby", "standby": "a standby"}
    found = {
        title: document[part]["stages_p50_s"]
        for part, title in parts.items()
        if "stages_p50_s" in document.get(part, {})
    }
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    bottom = [0.0] * len(found)
    for number, name in enumerate(names):
        heights = [one.get(name, 0.0) for one in found.values()]
        panel.bar(list(found), heights, bottom=bottom, label=name, color=f"C{number}")
        bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    panel.set_ylabel("s to the first chunk, medians of the stages")
    if names:
        panel.legend(fontsize=7)


def _draw_penalty(sizes: dict[str, Any], panel: Any) -> None:
    """Processing and delivery of both back-ends, by size."""
    labels: list[str] = []
    heights: dict[str, list[float]] = {name: [] for name in _COLOURS}
    for size, figures in sizes.items():
        for back_end in ("process", "lxd"):
            found = {name: figures[f"{back_end}_{name}_p50_ms"] for name in heights}
            if None in found.values():
                continue  # none of its runs succeeded
            labels.append(f"{back_end}\n{int(size) >> 10} KiB")
            for name, values in heights.items():
                values.append(found[name])
    bottom = [0.0] * len(labels)
    for name, values in heights.items():
        panel.bar(labels, values, bottom=bottom, label=name, color=_COLOURS[name])
        bottom = [low + high for low, high in zip(bottom, values, strict=True)]
    panel.set_ylabel("delay penalty, ms (p50, steady rate)")
    if labels:
        panel.legend(fontsize=7)


def _draw_idle(idle: Document | None, panel: Any) -> None:
    """Shares of a core."""
    if idle is not None:
        names = ("controller", "router")
        bars = panel.bar(names, [100 * idle[f"{name}_core_share"] for name in names])
        panel.bar_label(bars, fmt="%.2g %%", fontsize=7)
        panel.set_title(f"{idle['vis']} idle VIs", fontsize=8)
    panel.axhline(5.0, color="black", linestyle="--", linewidth=1)
    panel.set_ylabel("share of a core, %")
