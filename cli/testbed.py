"""`packetcloud testbed`: emulated networks, to try the real thing on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import EMULATOR, FiniteRange, RangedSizeType, group
from packetcloud.cli.simulate import simulate
from packetcloud.cli.testbed_run import COMMANDS as RUN_COMMANDS
from packetcloud.cli.testbed_topology import COMMANDS as TOPOLOGY_COMMANDS
from packetcloud.testbed.topology.units import parse_rate, parse_share, parse_time

_QUEUE_PACKETS = 125
"""Wait at most, where there is a rate and nothing else is said."""
_MOST_CHUNK_BYTES = 64 << 20
_OPTIONS = {
    "rate_bps": "--rate",
    "delay_s": "--delay",
    "jitter_s": "--jitter",
    "queue_packets": "--queue",
    "loss_burst": "--loss-burst",
    "reordering_s": "--reordering-time",
    "reordering": "--reordering",
    "corruption": "--corruption",
    "largest_bytes": "--largest",
    "up_s": "--up",
    "down_s": "--down",
}
"""By the name that a shape has for it."""


class QuantityType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A quantity with a unit, as topologies have it: 10mbit, 15ms, 2%."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_RATE = QuantityType("RATE", parse_rate)
_TIME = QuantityType("TIME", parse_time)
_SHARE = QuantityType("SHARE", parse_share)
_SHAPE = group(
    click.option("--rate", type=_RATE, default="50mbit", show_default=True, help="Of IP."),
    click.option("--delay", type=_TIME, default="15ms", show_default=True, help="One way."),
    click.option("--jitter", type=_TIME, default="0ms", help="Delay differs by so much."),
    click.option(
        "--queue",
        type=click.IntRange(1),
        show_default=str(_QUEUE_PACKETS),
        help="Packets that wait at most.",
    ),
    click.option("--loss", type=_SHARE, default="0%", help="Of packets lost."),
    click.option("--loss-burst", type=FiniteRange(1), default=1.0, help="Mean in a row."),
    click.option("--duplication", type=_SHARE, default="0%", help="Of packets doubled."),
    click.option("--reordering", type=_SHARE, default="0%", help="Of packets held back."),
    click.option("--reordering-time", type=_TIME, default="5ms", help="For how long."),
    click.option("--corruption", type=_SHARE, default="0%", help="Of packets altered."),
    click.option("--largest", type=click.IntRange(0), default=0, help="Larger packets vanish."),
    click.option("--up", type=_TIME, default="0s", help="With --down: carries so long,"),
    click.option("--down", type=_TIME, default="0s", help="then nothing for so long."),
)


@click.group()
def testbed() -> None:
    """Bring up networks, run experiments on them, emulate links, simulate."""


for _command in (simulate, *TOPOLOGY_COMMANDS, *RUN_COMMANDS):
    testbed.add_command(_command)


@testbed.command()
@_SHAPE
@click.option("--one-way", is_flag=True, help="Faults only where the chunks go, not on answers.")
@click.option("--seconds", type=click.IntRange(1, 600), default=5, show_default=True)
@click.option("--tick", type=FiniteRange(0.1), default=1.0, help="Seconds of one row.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of every chance.")
@EMULATOR
@click.option(
    "--chunk",
    type=RangedSizeType(1, _MOST_CHUNK_BYTES),
    default="1MiB",
    show_default=True,
    help="Payload.",
)
@click.option("--outstanding", type=click.IntRange(1), default=16, show_default=True)
@pass_output
def link(
    output: Output,
    /,
    one_way: bool,
    seconds: int,
    tick: float,
    seed: int,
    chunk: int,
    outstanding: int,
    emulator: str,
    **shape: Any,
) -> ExitCode:
    """Send chunks over one emulated link and show what happens, second by second (root)."""
    from packetcloud.testbed.bench.link_trial import LinkPlan, try_link
    from packetcloud.testbed.emulator.link import Emulator
    from packetcloud.testbed.emulator.netem import unfit

    if tick > seconds:
        raise click.UsageError(f"--tick is {tick:g} s, longer than --seconds {seconds}: no row")
    to_right, to_left = _shapes(shape, one_way)
    if emulator == Emulator.NETEM and (text := unfit(to_right, to_left)):
        raise click.UsageError(f"{_in_options(text)}; use --emulator tun")
    plan = LinkPlan(to_right, to_left, seconds, seed, chunk, outstanding, tick, Emulator(emulator))
    show = (lambda row: None) if output.is_json else (lambda row: output.note(_line(row)))
    output.note("  ".join(title.rjust(width) for _, title, width, _ in _COLUMNS))
    document = try_link(plan, show)
    rows = [row["goodput_mbps"] for row in document["rows"]]
    report = document["link"]
    sums = [
        ("goodput, Mbit/s", sum(rows) / len(rows)),
        ("packets lost, by reason", report["to_right"]["dropped"]),
        ("emulator", report["emulator"]),
    ]
    if report["lateness"] is not None:
        sums += [
            ("longest queue, packets", report["to_right"]["longest_queue_packets"]),
            ("emulator late, p99", f"{report['lateness']['p99_s'] * 1e3:.2f} ms"),
            ("emulator's cores", report["busy_cores"]),
        ]
    output.report(document, [Table(("", ""), sums)])
    for text in report["objections"]:
        output.warn(f"these figures say nothing about the link: {text}")
    return ExitCode.FINE if report["is_valid"] else ExitCode.NEGATIVE


_COLUMNS = (
    ("at_s", "s", 4, "{:.1f}"),
    ("goodput_mbps", "goodput Mbit/s", 14, "{:.2f}"),
    ("link_mbps", "link Mbit/s", 11, "{:.2f}"),
    ("rate_mbps", "believed", 8, "{:.2f}"),
    ("pace_mbps", "pace", 6, "{:.2f}"),
    ("retransmitted", "sent again", 10, "{}"),
    ("lost", "lost", 5, "{}"),
    ("queue_full", "queue full", 10, "{}"),
    ("mean_queue_ms", "queue ms", 8, "{:.1f}"),
    ("smoothed_rtt_ms", "RTT ms", 7, "{:.1f}"),
    ("minimum_rtt_ms", "least", 6, "{:.1f}"),
    ("window_bytes", "window", 8, "{:.0f}"),
    ("in_flight_bytes", "in flight", 9, "{}"),
    ("probes", "probes", 6, "{}"),
    ("mode", "mode", 10, "{}"),
)


def _line(row: dict[str, Any]) -> str:
    return "  ".join(shape.format(row[key]).rjust(width) for key, _, width, shape in _COLUMNS)


def _shapes(values: dict[str, Any], one_way: bool) -> tuple[Any, Any]:
    """Return what happens to the chunks, and what to the answers."""
    from packetcloud.testbed.emulator.shape import Shape
    from packetcloud.testbed.errors import TestbedError

    if bool(values["up"]) != bool(values["down"]):
        raise click.UsageError("--up and --down go together: for how long, and for how long not")
    queue_packets = values["queue"] or (_QUEUE_PACKETS if values["rate"] else 0)
    common = {
        "rate_bps": values["rate"],
        "delay_s": values["delay"],
        "jitter_s": values["jitter"],
        "queue_packets": queue_packets,
    }
    faults = {
        "loss": values["loss"],
        "loss_burst": values["loss_burst"],
        "duplication": values["duplication"],
        "reordering": values["reordering"],
        "reordering_s": values["reordering_time"] if values["reordering"] else 0.0,
        "corruption": values["corruption"],
        "largest_bytes": values["largest"],
        "up_s": values["up"],
        "down_s": values["down"],
    }
    try:
        faulty = Shape.from_json(common | faults)
        return faulty, Shape.from_json(common) if one_way else faulty
    except TestbedError as error:
        raise click.UsageError(_in_options(str(error))) from error


def _in_options(text: str) -> str:
    """Return a message with the names that were typed."""
    return re.sub("|".join(_OPTIONS), lambda found: _OPTIONS[found[0]], text)
