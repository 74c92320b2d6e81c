"""The PNG of a benchmark: bars with their spread, and for `service` delay over goodput."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.testbed.bench.plot_vi import draw_vi
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.errors import MissingToolError

_DPI = 130
_OURS = "#d1495b"
_PEERS = ("#30638e", "#5b8e7d", "#8e9aaf", "#b08968", "#6d597a")


def plot_document(document: Document, path: Path) -> None:
    """Draw a report and write it to `path`.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingToolError(
            "plots need matplotlib; try: pip install 'packetcloud[bench]'"
        ) from None
    draw, panels = _DRAWINGS[document["benchmark"]]
    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    draw(document, figure.subplots(1, panels, squeeze=False)[0])
    figure.suptitle(_title(document), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _title(document: Document) -> str:
    machine = document["machine"]
    commit = (document["commit"] or "unknown commit")[:10]
    return (
        f"packetcloud bench {document['benchmark']}, medians of {document['repeats']} runs of "
        f"{document['seconds']} s, {document['topology']}\n"
        f"{machine['cores']} cores {machine['cpu']}, Linux {document['kernel']}, {commit}, "
        f"{document['time']}"
    )


def _draw_modes(document: Document, axes: Any) -> None:
    """Goodput of every contender, one group of bars per link mode."""
    (panel,) = axes
    modes = document["modes"]
    names = list(dict.fromkeys(name for mode in modes.values() for name in mode["runs"]))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        colour = _OURS if place == 0 else _PEERS[(place - 1) % len(_PEERS)]
        runs = [mode["runs"][name] for mode in modes.values()]
        heights, below, above = zip(*(_bar(run) for run in runs), strict=True)
        where = [group + (place - (len(names) - 1) / 2) * width for group in range(len(modes))]
        bars = panel.bar(
            where, heights, width, yerr=(below, above), label=name, color=colour, capsize=2
        )
        panel.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
    panel.set_xticks(range(len(modes)), list(modes))
    panel.set_ylabel("goodput, Gbit/s")
    panel.legend(fontsize=7)


def _bar(run: Document) -> tuple[float, float, float]:
    """Height, and how far the extremes lie below and above it."""
    if run["median_gbps"] is None:
        return 0.0, 0.0, 0.0
    median: float = run["median_gbps"]
    return median, median - run["min_gbps"], run["max_gbps"] - median


def _draw_translator(document: Document, axes: Any) -> None:
    """curl's goodput by each way, one group of bars per rate."""
    (panel,) = axes
    rates = document["rates"]
    for place, way in enumerate(("direct", "ours", "microsocks")):
        heights = [found["mbps"].get(way) or 0.0 for found in rates.values()]
        where = [group + (place - 1) * 0.27 for group in range(len(rates))]
        colour = _OURS if way == "ours" else _PEERS[place]
        bars = panel.bar(where, heights, 0.27, label=way, color=colour)
        panel.bar_label(bars, fmt="%.4g", fontsize=6, padding=1)
    panel.set_xticks(range(len(rates)), list(rates))
    panel.set_ylabel("goodput of curl, Mbit/s")
    panel.legend(fontsize=7)


def _draw_service(document: Document, axes: Any) -> None:
    """Where a chunk's delay goes by size, and how delay grows with goodput."""
    by_size, by_goodput = axes
    sizes = document["sizes"]
    labels = [f"{int(size) >> 10} KiB" for size in sizes]
    processing = [size["processing_p50_ms"] or 0.0 for size in sizes.values()]
    delivery = [size["delivery_p50_ms"] or 0.0 for size in sizes.values()]
    by_size.bar(labels, processing, label="processing", color=_PEERS[0])
    by_size.bar(labels, delivery, bottom=processing, label="delivery", color=_OURS)
    by_size.set_ylabel("delay penalty, ms (p50, steady rate)")
    by_size.legend(fontsize=7)
    for number, (size, figures) in enumerate(sizes.items()):
        steps = figures["steps"]
        if not steps:
            continue
        colour = (*_PEERS, _OURS)[number % (len(_PEERS) + 1)]
        goodput = [step["goodput_gbps"] for step in steps]
        label = f"{int(size) >> 10} KiB"
        by_goodput.plot(
            goodput, [s["delay_p50_ms"] for s in steps], "o-", color=colour, label=label
        )
        by_goodput.plot(goodput, [s["delay_p99_ms"] for s in steps], "o:", color=colour, alpha=0.6)
    by_goodput.set_xlabel("goodput, Gbit/s")
    by_goodput.set_ylabel("delay, ms (p50, dotted p99)")
    by_goodput.set_yscale("log")
    by_goodput.legend(fontsize=7)


def _draw_chunks(document: Document, axes: Any) -> None:
    """Chunks per second, and where the router's time goes."""
    rates, stages = axes
    sizes = document["sizes"]
    labels = [f"{int(size):,} B" for size in sizes]
    bars = rates.bar(labels, [size["chunks_per_s"] or 0.0 for size in sizes.values()], color=_OURS)
    rates.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    rates.set_ylabel("chunks per second")
    names = list(
        dict.fromkeys(name for size in sizes.values() for name in size["router_stages_us"])
    )
    bottom = [0.0] * len(labels)
    for number, name in enumerate(names):
        heights = [size["router_stages_us"].get(name, 0.0) for size in sizes.values()]
        stages.bar(labels, heights, bottom=bottom, label=name, color=f"C{number}")
        bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    stages.set_ylabel("router CPU per chunk, µs")
    if names:
        stages.legend(fontsize=6)


def _draw_loss(document: Document, axes: Any) -> None:
    """Goodput over loss beside what the loss leaves, and the shares."""
    goodput, shares = axes
    cells = list(document["cells"].values())
    losses = [cell["loss"] * 100 for cell in cells]
    left = [cell["left_gbps"] * 1000 for cell in cells]
    goodput.plot(losses, left, "k--", label="what the loss leaves", linewidth=1)
    for number, name in enumerate(("ours", "cubic", "bbr")):
        known = [cell for cell in cells if cell.get(f"{name}_gbps") is not None]
        where = [cell["loss"] * 100 for cell in known]
        colour = _OURS if name == "ours" else _PEERS[number - 1]
        heights = [cell[f"{name}_gbps"] * 1000 for cell in known]
        goodput.plot(where, heights, "o-", color=colour, label=name)
        shares.plot(where, [c[f"{name}_share"] for c in known], "o-", color=colour, label=name)
    goodput.set_ylabel("goodput, Mbit/s")
    shares.set_ylabel("share of what the loss leaves")
    shares.set_ylim(0, 1)
    for panel in axes:
        panel.set_xlabel("packets lost, each way, %")
        panel.legend(fontsize=7)


def _draw_fairness(document: Document, axes: Any) -> None:
    """Jain's index among flows of one kind, and our share beside one TCP flow."""
    own, beside = axes
    _grouped_bars(
        own,
        {
            f"{count} flows": {kind: found["jain"] for kind, found in cell["mixes"].items()}
            for count, cell in document.get("own_kind", {}).items()
        },
    )
    own.set_ylabel("Jain's index, each second")
    own.set_ylim(0, 1.1)
    _grouped_bars(
        beside,
        {
            buffer: {mix: found["fair_shares"].get("ours") for mix, found in cell["mixes"].items()}
            for buffer, cell in document.get("beside", {}).items()
        },
    )
    beside.axhline(1.0, color="black", linestyle="--", linewidth=1)
    beside.set_ylabel("our share (1: half)")


def _draw_attack(document: Document, axes: Any) -> None:
    """What the honest neighbour keeps of its goodput, and how far caps are used."""
    goodput, caps = axes
    kept = {
        part: {
            "with defences": found["goodput_kept"],
            "nothing shed": found.get("unshed", {}).get("goodput_kept"),
        }
        for part in ("guesses", "flood", "caps")
        if (found := document.get(part)) is not None
    }
    _grouped_bars(goodput, kept)
    goodput.set_ylabel("goodput of the honest neighbour, share of before")
    in_use = document.get("caps", {}).get("in_use", {})
    shares = [found["largest"] / found["limit"] for found in in_use.values()]
    caps.barh(list(in_use), shares, color=_OURS)
    caps.axvline(1.0, color="black", linestyle="--", linewidth=1)
    caps.tick_params(axis="y", labelsize=6)
    caps.set_xlabel("most that was used of each cap, under a hostile neighbour")


def _draw_rules(document: Document, axes: Any) -> None:
    """Lookups by number of rules, the pace of patterns, and how late the loop is."""
    lookups, patterns, stalls = axes
    sizes = document.get("lookups", {}).get("sizes", {})
    contenders = ("decision", "table", "nftables", "openvswitch")
    for number, name in enumerate(contenders):
        colour = (_OURS, *_PEERS)[number]
        for spread, style in (("even", "o-"), ("zipf", "o:")):
            known = {int(size): cell[spread].get(f"{name}_per_s") for size, cell in sizes.items()}
            points = [(size, rate) for size, rate in known.items() if rate]
            label = f"{name}, {spread}"
            if points:
                lookups.loglog(*zip(*points, strict=True), style, color=colour, label=label)
    lookups.set_xlabel("rules")
    lookups.set_ylabel("lookups per second of one core")
    counts = document.get("patterns", {}).get("counts", {})
    for number, kind in enumerate(("random", "text", "near_misses")):
        paces = [cell[f"{kind}_gbps"]["median"] for cell in counts.values()]
        colour = _PEERS[number]
        patterns.loglog([int(count) for count in counts], paces, "o-", color=colour, label=kind)
    patterns.set_xlabel("patterns")
    patterns.set_ylabel("payload inspection, Gbit/s of one core")
    phases = document.get("install", {}).get("phases", {})
    keys = {"stall_max_ms": "stall", "late_max_ms": "loop late", "delay_max_ms": "longest delay"}
    _grouped_bars(
        stalls,
        {
            name: {title: one.get(key) for key, title in keys.items()}
            for name, one in phases.items()
        },
    )
    stalls.axhline(5.0, color="black", linestyle="--", linewidth=1)
    stalls.set_ylabel("ms")
    for panel, is_drawn in ((lookups, sizes), (patterns, counts)):
        if is_drawn:
            panel.legend(fontsize=6)


def _grouped_bars(panel: Any, groups: dict[str, dict[str, float | None]]) -> None:
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    if not names:
        return
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        colour = _OURS if name == "ours" else _PEERS[place % len(_PEERS)]
        where = [number + (place - (len(names) - 1) / 2) * width for number in range(len(groups))]
        heights = [group.get(name) or 0.0 for group in groups.values()]
        bars = panel.bar(where, heights, width, label=name, color=colour)
        panel.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
    panel.set_xticks(range(len(groups)), list(groups))
    panel.legend(fontsize=7)


def _draw_domain(document: Document, axes: Any) -> None:
    """Reservations per second, and how long they take, on each database."""
    rates, delays = axes
    databases = document["databases"]
    known = {kind: found["rate"] for kind, found in databases.items() if "rate" in found}
    bars = rates.bar(list(known), [rate["per_s"] for rate in known.values()], color=_OURS)
    rates.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    rates.set_ylabel("reservations per second, signed HTTP")
    for number, figure in enumerate(("p50_ms", "p99_ms")):
        where = [place + 0.4 * (number - 0.5) for place in range(len(known))]
        heights = [rate[figure] for rate in known.values()]
        bars = delays.bar(where, heights, 0.4, label=figure[:3], color=_PEERS[number])
        delays.bar_label(bars, fmt="%.3g", fontsize=7)
    delays.set_xticks(range(len(known)), list(known))
    delays.set_ylabel("ms, 64 clients")
    delays.legend(fontsize=7)


_DRAWINGS: dict[str, tuple[Callable[[Document, Any], None], int]] = {
    "translator": (_draw_translator, 1),
    "hop": (_draw_modes, 1),
    "path": (_draw_modes, 1),
    "service": (_draw_service, 2),
    "chunks": (_draw_chunks, 2),
    "loss": (_draw_loss, 2),
    "fairness": (_draw_fairness, 2),
    "attack": (_draw_attack, 2),
    "rules": (_draw_rules, 3),
    "vi": (draw_vi, 4),
    "domain": (_draw_domain, 2),
}
