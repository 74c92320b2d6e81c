"""`packetcloud bench`: measure us and our peers in the same run."""

from __future__ import annotations

from typing import Any

import click

from packetcloud.cli.bench_domain import domain
from packetcloud.cli.bench_ids import ids
from packetcloud.cli.bench_run import MODE, finish, measuring, running, shared_options
from packetcloud.cli.bench_translator import translator
from packetcloud.cli.bench_vi import vi
from packetcloud.cli.bench_wan import wan
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import EMULATOR, FiniteRange


@click.group()
def bench() -> None:
    """Measure hop, path, service, small chunks, bad links, rules, VIs, a domain, services.

    Root: network namespaces and veth pairs of our own, removed afterwards. Without root: loopback.
    """


bench.add_command(domain)
bench.add_command(ids)
bench.add_command(wan)
bench.add_command(translator)


@bench.command()
@shared_options(5, 5, MODE)
@pass_output
def hop(output: Output, /, **options: Any) -> ExitCode:
    """One hop against one TCP flow (CUBIC, BBR), in all three link modes."""
    from packetcloud.testbed.bench.hop import bench_hop

    with measuring(output, options) as (modes, timing, progress):
        document = bench_hop(modes, timing, progress)
    columns = ("mode", "ours Gbit/s", "sealed", "CUBIC", "BBR", "ratio", "sealed over open")
    keys = (
        "goodput_gbps", "sealed_gbps", "cubic_gbps", "bbr_gbps", "ratio", "sealed_over_open",
    )  # fmt: skip
    rows = [[mode, *(found[key] for key in keys)] for mode, found in document["modes"].items()]
    return finish(output, options, document, [Table(columns, rows)])


@bench.command()
@shared_options(5, 5, MODE)
@click.option(
    "--memory-gb",
    type=FiniteRange(0, 10_000),
    default=10.0,
    show_default=True,
    help="Volume over which the router's memory is watched; 0 leaves that out.",
)
@pass_output
def path(output: Output, /, memory_gb: float, **options: Any) -> ExitCode:
    """A -> R -> B against IP forwarding, socat and HAProxy, in all three link modes."""
    from packetcloud.testbed.bench.path import bench_path

    with measuring(output, options) as (modes, timing, progress):
        document = bench_path(modes, timing, memory_gb, progress)
    peers = ("ip_forwarding", "socat", "haproxy", "haproxy_tuned")
    titles = ("IP forwarding", "socat", "HAProxy", "HAProxy tuned")
    found = document["modes"]
    goodput = [
        [
            mode,
            figures["goodput_gbps"],
            figures["sealed_gbps"],
            *(figures[f"{peer}_gbps"] for peer in peers),
        ]
        for mode, figures in found.items()
    ]
    ratios = [
        [mode, *(figures[f"ratio_{peer}"] for peer in peers)] for mode, figures in found.items()
    ]
    cpu = [
        [mode, contender, process, seconds]
        for mode, figures in found.items()
        for contender, processes in figures["cpu_s_per_gb"].items()
        for process, seconds in processes.items()
    ]
    tables = [
        Table(("mode", "ours", "sealed", *titles), goodput, "Goodput, Gbit/s"),
        Table(("mode", *titles), ratios, "Ours over the peer's"),
        Table(("mode", "contender", "process", "seconds"), cpu, "CPU seconds per GB"),
    ]
    memory = document["memory"]
    if memory:
        rows = [(name, memory[f"rss_{name}_bytes"] / (1 << 20)) for name in _MEMORY]
        title = f"Router memory over {memory['payload_bytes'] / 1e9:.1f} GB"
        tables.append(Table(("RSS", "MiB"), rows, title))
    return finish(output, options, document, tables)


@bench.command()
@shared_options(3, 3, MODE)
@pass_output
def service(output: Output, /, **options: Any) -> ExitCode:
    """R -> VI -> R with AES-128-CBC against HTTP and gRPC doing the same.

    All sizes and the knee in mode wire (or the first one given), 1 MiB in the others.
    """
    from packetcloud.testbed.bench.service import bench_service

    with measuring(output, options) as (modes, timing, progress):
        document = bench_service(modes, timing, progress)
    measured = [
        (mode, f"{int(size) >> 10} KiB", figures)
        for mode, found in document["modes"].items()
        for size, figures in found["sizes"].items()
    ]
    tables = [
        Table(
            ("mode", "chunk", *titles),
            [(mode, size, *(figures[key] for key in keys)) for mode, size, figures in measured],
            title,
        )
        for title, titles, keys in _SERVICE_TABLES
    ]
    return finish(output, options, document, tables)


@bench.command()
@shared_options(5, 3, MODE)
@pass_output
def chunks(output: Output, /, **options: Any) -> ExitCode:
    """Small chunks per second through one router process, and its CPU by stage."""
    from packetcloud.testbed.bench.chunks import bench_chunks

    with measuring(output, options) as (modes, timing, progress):
        document = bench_chunks(modes, timing, progress)
    rates, stages = [], []
    for mode, found in document["modes"].items():
        for size, figures in found["sizes"].items():
            cpu = figures.get("cpu_us_per_chunk", {})
            used = [cpu.get(name) for name in ("sender", "router", "receiver")]
            rates.append((mode, size, figures["chunks_per_s"], *used, figures.get("limit")))
            stages += [(mode, size, *stage) for stage in figures["router_stages_us"].items()]
    tables = [
        Table(
            ("mode", "bytes", "chunks/s", "sender µs", "router µs", "receiver µs", "limit"),
            rates,
            "Chunks per second, and CPU per chunk",
        ),
        Table(("mode", "bytes", "stage", "µs"), stages, "Router CPU per chunk by stage"),
    ]
    return finish(output, options, document, tables)


@bench.command()
@shared_options(10, 3, EMULATOR)
@click.option(
    "--cells",
    "losses_percent",
    type=FiniteRange(0, 50),
    multiple=True,
    help="Loss in per cent; may be given more than once. [default: 0 1 2 5 10 20 30]",
)
@click.option(
    "--only",
    "contenders",
    type=click.Choice(("ours", "cubic", "bbr")),
    multiple=True,
    help="Contender; may be given more than once. [default: all three]",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(("cells", "interop", "router", "handshakes", "outages", "changes")),
    multiple=True,
    help="What to measure; may be given more than once. [default: all but router]",
)
@pass_output
def loss(
    output: Output,
    /,
    losses_percent: tuple[float, ...],
    contenders: tuple[str, ...],
    parts: tuple[str, ...],
    **options: Any,
) -> ExitCode:
    """Links that lose packets: ours against TCP CUBIC and BBR (root)."""
    from packetcloud.testbed.bench.loss import (
        CONTENDERS,
        DEFAULT_PARTS,
        LOSSES_PERCENT,
        LossPlan,
        bench_loss,
    )
    from packetcloud.testbed.emulator.link import Emulator

    plan = LossPlan(
        losses_percent or LOSSES_PERCENT,
        contenders or CONTENDERS,
        parts or DEFAULT_PARTS,
        emulator=Emulator(options["emulator"]),
    )
    with running(output, options, warmup=2) as (timing, progress):
        document = bench_loss(plan, timing, progress)
    cells = [(f"{percent} %", cell) for percent, cell in document["cells"].items()]
    cells += [("interop", document["interop"])] if "interop" in document else []
    through = document.get("through_router", {})
    cells += [(f"{percent} %, router", cell) for percent, cell in through.items()]
    columns = ("loss", "left Mbit/s", "ours", "CUBIC", "BBR", "share", "times CUBIC", "times BBR")
    keys = ("left_gbps", "ours_gbps", "cubic_gbps", "bbr_gbps")
    rows = [
        [
            name,
            *(_mbps(cell.get(key)) for key in keys),
            *(cell.get(key) for key in ("ours_share", "times_cubic", "times_bbr")),
        ]
        for name, cell in cells
    ]
    title = "Goodput, Mbit/s, and our share of what the loss leaves"
    tables = [Table(columns, rows, title)] if rows else []
    if "handshakes" in document:
        found = document["handshakes"]
        title = f"Handshakes of {found['count']}, at 30 % each way"
        keys = ("succeeded", "seconds", "median_s", "longest_s")
        rows = [[kind, *(one[key] for key in keys)] for kind, one in found["kinds"].items()]
        tables.append(Table(("fault", "succeeded", "s", "median s", "longest s"), rows, title))
    if "outages" in document:
        keys = ("is_delivered", "seconds", "ideal_s", "seconds_after_healing")
        outages = document["outages"]["outages"]
        rows = [[name, *(one[key] for key in keys)] for name, one in outages.items()]
        titles = ("outage", "delivered", "s", "at least s", "s after healing")
        tables.append(Table(titles, rows, "10 MB through links that go dark"))
    if "changes" in document:
        keys = ("before_mbps", "after_mbps", "recovered_after_s", "retransmitted_segments")
        rows = [
            [name, *(one.get(key) for key in keys)] for name, one in document["changes"].items()
        ]
        titles = ("change", "before Mbit/s", "after", "recovered after s", "sent again")
        tables.append(Table(titles, rows, "Links that change under a transfer"))
    return finish(output, options, document, tables)


@bench.command()
@shared_options(20, 3, EMULATOR)
@click.option(
    "--flows",
    type=click.IntRange(2, 64),
    multiple=True,
    help="Flows of one kind at once; may be given more than once. [default: 2 4 16]",
)
@click.option(
    "--only",
    "peers",
    type=click.Choice(("ours", "cubic", "bbr")),
    multiple=True,
    help="Peers beside ours; may be given more than once. [default: cubic bbr]",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(("own_kind", "beside", "background", "dark")),
    multiple=True,
    help="What to measure; may be given more than once. [default: all]",
)
@pass_output
def fairness(
    output: Output,
    /,
    flows: tuple[int, ...],
    peers: tuple[str, ...],
    parts: tuple[str, ...],
    **options: Any,
) -> ExitCode:
    """Who gets how much of one bottleneck, among our own kind and beside TCP (root)."""
    from packetcloud.testbed.bench.fairness import FLOWS, PARTS, FairnessPlan, bench_fairness
    from packetcloud.testbed.bench.shared import TCP
    from packetcloud.testbed.emulator.link import Emulator

    others = tuple(name for name in TCP if name in (peers or TCP))
    plan = FairnessPlan(
        flows or FLOWS,
        parts=parts or PARTS,
        peers=others,
        emulator=Emulator(options["emulator"]),
    )
    with running(output, options, warmup=6) as (timing, progress):
        document = bench_fairness(plan, timing, progress)
    rows = [
        (f"{count} flows", kind, found["jain"], found["jain_of_means"], found["link_share"])
        for count, cell in document.get("own_kind", {}).items()
        for kind, found in cell["mixes"].items()
    ]
    tables = []
    if rows:
        titles = ("flows", "kind", "Jain", "of means", "link used")
        tables.append(Table(titles, rows, "Among one kind"))
    shares = [
        (buffer, mix, found["fair_shares"].get("ours"), found["link_share"])
        for buffer, cell in document.get("beside", {}).items()
        for mix, found in cell["mixes"].items()
    ]
    if shares:
        title = "Our share beside one TCP flow (1: half)"
        tables.append(Table(("buffer", "", "share", "link used"), shares, title))
    if "background" in document:
        yielding = [
            (mix, " ".join(f"{kind} {mbps:.2f}" for kind, mbps in found["mbps"].items()))
            for mix, found in document["background"]["mixes"].items()
        ]
        tables.append(Table(("flows", "Mbit/s"), yielding, "The class that yields"))
    if "dark" in document:
        dark = document["dark"]
        keys = ("seconds", "datagrams", "timeouts", "datagrams_per_timeout")
        tables.append(Table(keys, [[dark[key] for key in keys]], "While everything is lost"))
    return finish(output, options, document, tables)


@bench.command()
@shared_options(5, 1)
@click.option(
    "--part",
    "parts",
    type=click.Choice(("handshakes", "guesses", "flood", "amplification", "caps", "dark")),
    multiple=True,
    help="What to do; may be given more than once. [default: all]",
)
@click.option(
    "--guesses",
    type=click.IntRange(1000, 1_000_000_000),
    default=1_000_000,
    show_default=True,
    help="Guesses at a live session.",
)
@click.option(
    "--flood",
    "flood_per_s",
    type=click.IntRange(100, 10_000_000),
    default=50_000,
    show_default=True,
    help="HELLOs per second of the flood, at most.",
)
@pass_output
def attack(
    output: Output,
    /,
    parts: tuple[str, ...],
    guesses: int,
    flood_per_s: int,
    **options: Any,
) -> ExitCode:
    """Strangers and a hostile neighbour against a node, with and without its defences (root)."""
    from packetcloud.testbed.bench.attack import PARTS, AttackPlan, bench_attack, controls

    plan = AttackPlan(parts or PARTS, guesses, flood_per_s)
    with running(output, options) as (timing, progress):
        document = bench_attack(plan, timing, progress)
    columns = ("defence", "figure", "with it", "without it", "control")
    rows = [
        (*row[:-1], "failed, as it must" if row[-1] else "PROVES NOTHING")
        for row in controls(document)
    ]
    tables = [Table(columns, rows, "Each attack with a defence and without it")]
    names: tuple[str, ...] = ("guesses", "flood", "caps")
    attacks = {part: document[part] for part in names if part in document}
    for part in ("guesses", "flood"):
        if part in attacks:
            attacks[f"{part}, nothing shed"] = attacks[part]["unshed"]
    kept = [(name, *(found[key] for key in _UNDER_ATTACK)) for name, found in attacks.items()]
    titles = ("attack", "before Gbit/s", "during", "kept", "cores of the node")
    tables.append(Table(titles, kept, "The honest neighbour meanwhile"))
    if "amplification" in document:
        answered = [
            (name, found["sent"], found["answers"], found["ratio"])
            for name, found in document["amplification"]["types"].items()
            if found["answers"]
        ]
        heads = ("message", "sent", "answered", "answer/question")
        title = "What a third party gets of what is sent in its name"
        tables.append(Table(heads, answered, title))
    if "caps" in document:
        used = [
            (name, found["largest"], found["limit"])
            for name, found in document["caps"]["in_use"].items()
        ]
        tables.append(Table(("cap", "most", "limit"), used, "Caps under a hostile neighbour"))
    return finish(output, options, document, tables)


@bench.command()
@shared_options(4, 5)
@click.option(
    "--part",
    "parts",
    type=click.Choice(("lookups", "patterns", "install", "path")),
    multiple=True,
    help="What to measure; may be given more than once. [default: all]",
)
@click.option(
    "--rules",
    "sizes",
    type=click.IntRange(100, 10_000_000),
    multiple=True,
    help="Header rules to look up; may be given more than once. [default: 100 to 10 million]",
)
@click.option(
    "--patterns",
    "patterns",
    type=click.IntRange(10, 10_000),
    multiple=True,
    help="Payload patterns; may be given more than once. [default: 10 100 1000 10000]",
)
@click.option(
    "--installed",
    type=click.IntRange(100, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="Header rules to install, and of the path.",
)
@pass_output
def rules(
    output: Output,
    /,
    parts: tuple[str, ...],
    sizes: tuple[int, ...],
    patterns: tuple[int, ...],
    installed: int,
    **options: Any,
) -> ExitCode:
    """Header rules by the million against nftables and Open vSwitch, patterns, changes."""
    from packetcloud.cli.bench_rules import rules_tables
    from packetcloud.testbed.bench.rule_lookups import SIZES
    from packetcloud.testbed.bench.rule_patterns import COUNTS
    from packetcloud.testbed.bench.rules import PARTS, RulesPlan, bench_rules

    plan = RulesPlan(parts or PARTS, sizes or SIZES, patterns or COUNTS, installed)
    with running(output, options) as (timing, progress):
        document = bench_rules(plan, timing, progress)
    return finish(output, options, document, rules_tables(document))


bench.add_command(vi)
_UNDER_ATTACK = ("goodput_before_gbps", "goodput_during_gbps", "goodput_kept", "target_cores")


def _mbps(gbps: float | None) -> float | None:
    return None if gbps is None else gbps * 1000


_MEMORY = ("idle", "max", "second_quarter", "last_quarter")
_SERVICE_TABLES = (
    (
        "At a steady rate, a quarter of the full one, ms",
        ("penalty p50", "p99", "processing", "delivery", "ratio", "A to B", "HTTP", "gRPC"),
        (
            "delay_penalty_p50_ms",
            "delay_penalty_p99_ms",
            "processing_p50_ms",
            "delivery_p50_ms",
            "delivery_over_processing",
            "delay_p50_ms",
            "http_delay_p50_ms",
            "grpc_delay_p50_ms",
        ),
    ),
    (
        "At full rate, Gbit/s",
        ("ours", "AES alone", "ratio", "HTTP", "speedup", "gRPC", "speedup ", "knee"),
        (
            "node_goodput_gbps",
            "aes_limit_gbps",
            "ratio_aes_limit",
            "http_gbps",
            "speedup_http",
            "grpc_gbps",
            "speedup_grpc",
            "knee_gbps",
        ),
    ),
)
