"""`packetcloud chunk capture|replay`: chunks out of a router, and into a service."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.chunk.names import GUID
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import ROUTER, SETTINGS, NameType, RangedSizeType, name_start

if TYPE_CHECKING:
    from packetcloud.chunk.captured import CapturedChunk
    from packetcloud.router.rules.schemas import RuleEntry
    from packetcloud.services.replay import ReplayedChunk, ReplayReport

_POINTS = ("taken", "task", "verdict", "left", "ended")
_MAX_SNAP_BYTES = 4 << 20
_QUESTION_LIMIT_S = 10.0
_MAX_SLASHES_COUNT = 16
"""At which a rule's SET/NAME is tried: a question to the router each."""


def _sample(context: click.Context, option: click.Parameter, text: str) -> int:
    """Read 1/N."""
    one, slash, number = text.partition("/")
    if one != "1" or not slash or not number.isdecimal() or not 1 <= int(number) <= 1 << 32:
        raise click.BadParameter(
            f"{text!r}: expected 1/N with N from 1 to 4294967296, like 1/100", context, option
        )
    return int(number)


@click.command()
@ROUTER
@click.option("--guid", metavar="HEX", callback=name_start, help="Only from or to this GUID.")
@click.option("--source", metavar="HEX", callback=name_start, help="Only from this GUID.")
@click.option("--destination", metavar="HEX", callback=name_start, help="Only to this GUID.")
@click.option(
    "--sid", metavar="HEX", callback=name_start, help="Only chunks that ask for this service."
)
@click.option(
    "--rule",
    metavar="SET/NAME",
    help="Only those for which this rule decided; if it is in shadow mode, would have.",
)
@click.option("--signer", type=NameType(GUID), help="Of the rule, where several have such a one.")
@click.option(
    "--point",
    "points",
    type=click.Choice(_POINTS),
    multiple=True,
    help="Where to look; several times for several points.  [default: all]",
)
@click.option("--only-failures", is_flag=True, help="Only what is not delivered: --point ended.")
@click.option(
    "--sample",
    metavar="1/N",
    default="1/1",
    show_default=True,
    callback=_sample,
    help="Only one of N chunks, the same ones at every router and point.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many looks at chunks.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option(
    "--snap",
    type=RangedSizeType(0, _MAX_SNAP_BYTES),
    default=64,
    show_default=True,
    metavar="BYTES",
    help="Of each payload; the header is always whole.",
)
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help='The pcapng file to write; "-": standard output.',
)
@pass_output
def capture(
    output: Output,
    url: str,
    guid: str | None,
    source: str | None,
    destination: str | None,
    sid: str | None,
    rule: str | None,
    signer: GUID | None,
    points: tuple[str, ...],
    only_failures: bool,
    sample: int,
    count: int | None,
    seconds: float | None,
    snap: int,
    file: Path,
) -> None:
    """Write chunks that pass through a running router to a pcapng file, until Ctrl-C.

    Each look at a chunk is a packet of the hop protocol with a comment that says where it was
    looked at, between whom it went, and why it was refused. `packetcloud chunk decode`, the scapy
    layers, tcpdump and Wireshark read it. What the router has no room for, since this command or
    the disk is too slow, is counted and told; chunks themselves are never held up.
    """
    from packetcloud.chunk.pcapng import BlockCounter
    from packetcloud.router.capture_client import stream_capture

    if only_failures and points:
        raise click.UsageError("--only-failures is --point ended: give one of the two")
    if signer is not None and rule is None:
        raise click.UsageError("--signer is for --rule")
    chosen = ("ended",) if only_failures else points or _POINTS
    wanted = {
        "point": chosen,
        "guid": guid,
        "source": source,
        "destination": destination,
        "sid": sid,
        "rule": _rule_number(url, rule, signer) if rule is not None else None,
        "sample": sample,
        "count": count,
        "seconds": seconds,
        "snap": snap,
    }
    query = {name: value for name, value in wanted.items() if value is not None}
    blocks = BlockCounter()
    size = 0
    parts = stream_capture(url, query)
    # A file that is there stays as it is unless the router answers.
    beginning = next(parts, b"")
    with click.open_file(str(file), "wb") as stream:
        try:
            output.note("capturing; Ctrl-C ends it")
            for part in chain([beginning], parts):
                size += stream.write(blocks.feed(part))
                stream.flush()
        except KeyboardInterrupt:
            parts.close()  # the router hears of the end
    if str(file) == "-":
        output.note(f"{blocks.commented_count} looks at chunks, {blocks.lost_count} lost")
        return
    output.record(
        {
            "file": str(file),
            "looks": blocks.commented_count,
            "lost": blocks.lost_count,
            "packets": blocks.packets_count,
            "bytes": size,
        }
    )


def _rule_number(url: str, text: str, signer: GUID | None) -> int:
    """Ask the router which number a rule has. Set and name may have slashes of their own."""
    from packetcloud.router.errors import RuleNotFoundError
    from packetcloud.router.rules.client import RuleClient

    places = [at for at, letter in enumerate(text) if letter == "/"]
    if not places:
        raise click.BadParameter(f"{text!r}: expected SET/NAME", param_hint="--rule")
    found: list[RuleEntry] = []
    absence: RuleNotFoundError | None = None
    with RuleClient(url, _QUESTION_LIMIT_S) as client:
        for at in places[:_MAX_SLASHES_COUNT]:
            try:
                named = text[:at], text[at + 1 :], signer.hex if signer is not None else None
                found.append(client.rule(*named).rule)
            except RuleNotFoundError as error:
                absence = absence or error
    if len(found) > 1:
        rules = ", ".join(f"{one.name!r} in the set {one.set!r}" for one in found)
        raise click.BadParameter(f"{text!r}: may be {rules}", param_hint="--rule")
    if not found:
        raise absence or RuleNotFoundError(text)
    return found[0].number


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--service",
    "manifest",
    required=True,
    metavar="DIR|MANIFEST",
    help="A manifest, its folder, or the name of a bundled service.",
)
@SETTINGS
@click.option("--guid", metavar="HEX", callback=name_start, help="Only from or to this GUID.")
@click.option(
    "--sid", metavar="HEX", callback=name_start, help="Only chunks that ask for this service."
)
@click.option(
    "--point",
    type=click.Choice(("taken", "task", "left", "ended")),
    default="taken",
    show_default=True,
    help="Which looks of a router's capture are used; other captures have none, and all is used.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    help="1: at the pace of the capture, 2: twice as fast.  [default: as fast as it goes]",
)
@click.option("--limit", type=click.IntRange(1), help="Stop after so many chunks.")
@pass_output
@click.pass_context
def replay(
    context: click.Context,
    output: Output,
    file: Path,
    manifest: str,
    settings: tuple[str, ...],
    guid: str | None,
    sid: str | None,
    point: str,
    speed: float | None,
    limit: int | None,
) -> None:
    """Give the chunks in FILE, a capture, to a service on this machine; show each verdict.

    The service runs as in `packetcloud service test`, without any network. A chunk whose payload
    the capture has cut off is skipped and told: capture with a larger --snap.

    Exit code 1: the service failed on a chunk, or not a single chunk was whole.
    """
    from packetcloud.services.catalogue import find_service
    from packetcloud.services.parameters import parse_settings
    from packetcloud.services.replay import run_replay

    found = find_service(manifest)
    values = parse_settings(settings)
    with click.open_file(str(file), "rb") as stream:
        chunks = _chunks(stream, str(file), guid, sid, point)
        report = run_replay(found, values, chunks, speed=speed, limit=limit)
    output.report(report.to_dict(), [_replay_table(report)])
    for text in _skipped_texts(report):
        output.warn(text)
    if report.failed_count or not report.chunks:
        context.exit(ExitCode.NEGATIVE)


def _chunks(
    stream: Any, name: str, guid: str | None, sid: str | None, point: str
) -> Iterator[CapturedChunk]:
    """Yield the chunks of a capture that were asked for."""
    from packetcloud.chunk.capture import read_packets
    from packetcloud.chunk.captured import captured_chunks
    from packetcloud.chunk.pcap import CaptureDecoder, Filter

    wanted = Filter(guid, sid)
    for chunk in captured_chunks(CaptureDecoder().decode(read_packets(stream, name))):
        if chunk.point in ("", point) and wanted.takes(chunk.header):
            yield chunk


def _replay_table(report: ReplayReport) -> Table:
    rows = [_replay_row(one) for one in report.chunks]
    columns = ("Packet", "Chunk", "From", "To", "Bytes", "Verdict", "Out", "ms", "What")
    return Table(columns, rows, f"Service {report.service}")


def _replay_row(one: ReplayedChunk) -> tuple[object, ...]:
    header = one.header
    return (
        one.packet,
        str(header.chunk_id),
        header.source.short,
        header.destination.short,
        header.payload_bytes,
        one.code.name.lower(),
        one.output_bytes,
        one.processing_ns / 1e6,
        one.what,
    )


def _skipped_texts(report: ReplayReport) -> Iterator[str]:
    if report.cut_off_count:
        yield (
            f"{report.cut_off_count} chunks skipped: the capture has only the beginning of their "
            "payload; capture with a larger --snap"
        )
    for why, count in report.refused.items():
        yield f"{count} chunks skipped: {why}"
    if not report.chunks:
        yield "no chunk was replayed; packetcloud chunk decode shows what the capture holds"
