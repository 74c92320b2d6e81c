"""`packetcloud quote`: what a reservation would cost, or when it would fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.domain_client import (
    DomainAccess,
    domain_options,
    money_of,
    slot_options,
    time_of,
    wish_of,
)
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, TimeType

if TYPE_CHECKING:
    from packetcloud.domain_controller.api.answered import WaysInfo
    from packetcloud.domain_controller.client import DomainClient


@click.command()
@click.option("--vi-type", help="Which size; see: packetcloud vi-type list. Or --load.")
@click.option(
    "--count", type=click.IntRange(1), help="VIs at the same time. [default: 1; what --load needs]"
)
@click.option(
    "--load",
    "chunks_per_s",
    type=click.IntRange(1, 10**12),
    metavar="CHUNKS_PER_S",
    help="Take the cheapest VI type and number that carry this, by --measured.",
)
@click.option(
    "--measured",
    "measured_file",
    type=FILE,
    help="What a service's VIs process; see: packetcloud service benchmark",
)
@slot_options
@click.option(
    "--when", "until", type=TimeType(), metavar="UNTIL",
    help="Ask when it would fit, with a begin no later than this.",
)  # fmt: skip
@domain_options
@pass_output
def quote(
    output: Output,
    /,
    vi_type: str | None,
    count: int | None,
    chunks_per_s: int | None,
    measured_file: Path | None,
    until: float | None,
    access: DomainAccess,
    **wish: Any,
) -> ExitCode:
    """Say what a reservation would cost now, or when it would fit. Nothing is held by it.

    Exit code 1: there is no room, and the text says what is lacking.
    """
    from packetcloud.domain_controller.api.answered import QuoteInfo, WhenInfo

    if (vi_type is None) == (chunks_per_s is None):
        raise click.UsageError("give one of --vi-type and --load")
    if (chunks_per_s is None) != (measured_file is None) or (chunks_per_s and count):
        raise click.UsageError("--load needs --measured, and says --count itself")
    ways: WaysInfo | None = None
    with access.open() as client:
        if chunks_per_s is not None and measured_file is not None:
            ways = _ways(client, output, chunks_per_s, measured_file)
            vi_type, count = ways.ways[0].vi_type, ways.ways[0].count
        body = wish_of(vi_type=vi_type or "", count=count or 1, **wish)
        if until is None:
            info: Any = client.ask(QuoteInfo, "/v1/quotes", body)
            is_possible = info.is_possible
        else:
            asked = {"wish": body, "until_ms": int(until * 1000)}
            info = client.ask(WhenInfo, "/v1/calendar", asked)
            is_possible = info.begin_ms is not None
    facts: list[tuple[str, object]] = [("possible", is_possible), ("why not", info.why or None)]
    if until is not None:
        facts.append(("from", time_of(info.begin_ms)))
    tables = [Table(("", ""), facts)]
    if ways is not None:
        way_rows = [
            (one.vi_type, one.count, one.chunks_per_s, money_of(one.micros_per_hour, ways.currency))
            for one in ways.ways
        ]
        title = f"Ways to carry {chunks_per_s} chunks/s, the cheapest is quoted"
        tables.append(Table(("Type", "VIs", "Chunks/s", "An hour"), way_rows, title))
    if info.offer is not None:
        offer = info.offer
        facts.append(("total", money_of(offer.total_micros, offer.currency)))
        for unit, price in (("chunks", offer.chunk_price), ("bytes", offer.byte_price)):
            if price.micros:
                amount = money_of(price.micros, offer.currency)
                facts.append((f"{unit}, as used", f"{amount} for {price.units}"))
        facts.append(("price list", offer.price_list))
        columns = ("Cloudlet", "VIs", "Type", "Of base price", "Amount")
        rows = [
            (
                one.cloudlet,
                one.count,
                one.vi_type,
                f"{one.factor_permille / 10:g} %",
                money_of(one.amount_micros, ""),
            )
            for one in offer.lines
        ]
        tables.append(Table(columns, rows))
        others = [
            (one.vi_type, money_of(one.total_micros, offer.currency))
            for one in getattr(info, "others", [])
        ]
        if others:
            tables.append(Table(("Other type", "Total"), others))
    document = info.model_dump()
    if ways is not None:
        document["ways"] = [one.model_dump() for one in ways.ways]
    output.report(document, tables)
    return ExitCode.FINE if is_possible else ExitCode.NEGATIVE


def _ways(client: DomainClient, output: Output, chunks_per_s: int, file: Path) -> WaysInfo:
    """Return how the load can be carried.

    Raises:
        ServiceConfigError: the file, or what stands in it, cannot be used.
    """
    from packetcloud.domain_controller.api.answered import ViTypeList, WaysInfo
    from packetcloud.services.benchmark import read_measured
    from packetcloud.services.errors import ServiceConfigError

    measured = read_measured(file)
    known = {one.name for one in client.get(ViTypeList, "/v1/vi-types").vi_types}
    for name in sorted(measured.keys() - known):
        output.warn(f"{file}: VI type {name} is left out: the domain has no such type")
    some = [
        {"vi_type": name, "chunks_per_s": rate} for name, rate in measured.items() if name in known
    ]
    if not some:
        names = ", ".join(sorted(known)) or "none yet"
        raise ServiceConfigError(
            f"{file}: none of its VI types is the domain's, which has: {names}"
        )
    ways = client.ask(WaysInfo, "/v1/advice", {"chunks_per_s": chunks_per_s, "measured": some})
    if not ways.ways:
        raise ServiceConfigError(
            f"{file}: no VI type of it carries {chunks_per_s} chunks/s: each does none, has no "
            "price, or too many VIs were needed; ask for less, or measure other types"
        )
    return ways
