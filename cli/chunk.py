"""`packetcloud chunk`: look at chunks on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.captures import capture, replay
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import name_start

if TYPE_CHECKING:
    from packetcloud.chunk.dissect import Body
    from packetcloud.chunk.header import ChunkHeader
    from packetcloud.chunk.pcap import Counts, Sighting

_COLUMNS = ("packet", "time s", "from", "to", "type", "bytes", "what")
Row = tuple[object, ...]


@click.group()
def chunk() -> None:
    """Look at chunks on the wire, capture them in a router, and try a service on them."""


chunk.add_command(capture)
chunk.add_command(replay)


@chunk.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--port", type=click.IntRange(1, 65535), help="Only this UDP port, and all of it.")
@click.option(
    "--guid", metavar="HEX", callback=name_start, help="Only chunks from or to this GUID."
)
@click.option(
    "--sid", metavar="HEX", callback=name_start, help="Only chunks that ask for this service."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Stop after so many datagrams.",
)
@pass_output
@click.pass_context
def decode(
    context: click.Context,
    output: Output,
    file: Path,
    port: int | None,
    guid: str | None,
    sid: str | None,
    limit: int,
) -> None:
    """Show the hop datagrams and chunks in FILE, a pcap or pcapng capture ("-": standard input).

    Without --port, every UDP datagram that begins like one of ours is shown. What cannot be read is
    shown as it is, with the reason. --guid and --sid take the first digits of a name, 4 or more.

    Exit code 1: the file ends in the middle or is damaged; what comes before is shown.
    """
    from packetcloud.chunk.capture import read_packets
    from packetcloud.chunk.errors import CaptureError
    from packetcloud.chunk.pcap import CaptureDecoder, Filter, as_json

    decoder = CaptureDecoder(port)
    wanted = Filter(guid, sid)
    sightings: list[Sighting] = []
    damage: CaptureError | None = None
    with click.open_file(str(file), "rb") as stream:
        try:
            for sighting in decoder.decode(read_packets(stream, str(file))):
                if wanted(sighting):
                    sightings.append(sighting)
                if len(sightings) == limit:
                    break
        except CaptureError as error:
            if not decoder.counts.packets:
                raise
            damage = error
    output.report(
        {"datagrams": [as_json(sighting) for sighting in sightings]},
        [Table(_COLUMNS, list(_rows(sightings)))],
    )
    output.note(_summary(decoder.counts, sightings))
    if len(sightings) == limit:
        output.note(f"Stopped after {limit} datagrams; more with --limit.")
    if damage is not None:
        output.warn(str(damage))
        context.exit(ExitCode.NEGATIVE)


def _summary(counts: Counts, sightings: list[Sighting]) -> str:
    bad = sum(
        sighting.datagram.error is not None or any(body.error for body in sighting.datagram.bodies)
        for sighting in sightings
    )
    text = (
        f"{counts.packets} packets read, {len(sightings)} hop datagrams shown, {bad} of them "
        f"malformed; not shown: {counts.other_packets} packets without UDP, "
        f"{counts.other_datagrams} other UDP datagrams"
    )
    if counts.lost_packets:
        text += f"; {counts.lost_packets} packets were lost while the capture was made"
    if counts.unknown_link_types:
        kinds = ", ".join(map(str, sorted(counts.unknown_link_types)))
        text += f"; link types that cannot be read: {kinds}"
    return text


def _rows(sightings: Iterable[Sighting]) -> Iterator[Row]:
    """Yield table rows: one for each datagram and body; segments in a row share one."""
    from packetcloud.chunk.pcap import place_text

    began_ns: int | None = None
    for run in _runs(sightings):
        first, last = run[0], run[-1]
        if began_ns is None:
            began_ns = first.time_ns
        time_ns = first.time_ns
        numbers = sorted({first.packet, last.packet})
        lines = list(_lines(run))
        yield (
            "-".join(map(str, numbers)),
            None if time_ns is None else f"{(time_ns - (began_ns or 0)) / 1e9:.6f}",
            place_text(first.source),
            place_text(first.destination),
            first.datagram.type,
            sum(sighting.datagram.datagram_bytes for sighting in run),
            lines[0],
        )
        for line in lines[1:]:
            yield ("", "", "", "", "", "", line)


def _runs(sightings: Iterable[Sighting]) -> Iterator[list[Sighting]]:
    """Group the datagrams that carry consecutive segments of one transfer."""
    run: list[Sighting] = []
    for sighting in sightings:
        if run and not _continues(run[-1], sighting):
            yield run
            run = []
        run.append(sighting)
    if run:
        yield run


def _continues(before: Sighting, after: Sighting) -> bool:
    first, second = before.datagram, after.datagram
    return (
        first.type == second.type == "data"
        and (first.session, before.source) == (second.session, after.source)
        and len(first.bodies) == len(second.bodies) == 1
        and first.bodies[0].transfer == second.bodies[0].transfer
        and first.bodies[0].segment + 1 == second.bodies[0].segment
    )


def _lines(run: list[Sighting]) -> Iterator[str]:
    """Yield what a run of datagrams says, a line for each body or frame."""
    first = run[0]
    datagram = first.datagram
    said = False
    for body, header in zip(datagram.bodies, first.headers, strict=True):
        segments = ""
        if datagram.type == "data" and not body.is_whole:
            last = run[-1].datagram.bodies[0].segment
            segments = f" segment{'s' if last != body.segment else ''} {body.segment}"
            segments += f"-{last}" if last != body.segment else ""
        yield f"{body.kind}, transfer {body.transfer}{segments}: {_body_text(body, header)}"
        said = True
    for frame in datagram.fields.get("frames", ()):
        yield _frame_text(frame)
        said = True
    if first.comment:
        yield f"# {_word(first.comment)}"
    if datagram.error is not None:
        yield f"! {datagram.error}: {datagram.fields.get('bytes', '')}"
    elif not said:
        hidden = ("burst", "counter", "frames", "records_count", "bytes")
        yield _words({k: v for k, v in datagram.fields.items() if k not in hidden})


def _body_text(body: Body, header: ChunkHeader | None) -> str:
    parts = []
    if "task" in body.fields:
        task = body.fields["task"]
        parts.append(f"task {task['task_id']} within {task['deadline_ms']} ms")
    if "verdict" in body.fields:
        parts.append(_words(body.fields["verdict"]))
    if header is not None:
        parts.append(_header_text(header))
    for report in body.fields.get("reports", ()):
        parts.append(_words(report))
    if body.error is not None:
        parts.append(f"! {body.error}: {body.fields.get('bytes', '')}")
    if "sealed" in body.fields:
        parts.append(f"sealed, {body.body_bytes} bytes")
    return "; ".join(parts) or f"part of {body.body_bytes} bytes whose beginning was not seen"


def _header_text(header: ChunkHeader) -> str:
    parts = [
        f"chunk {header.chunk_id} {header.source.short}->{header.destination.short}",
        f"{header.payload_bytes} B",
        f"hops {header.hop_limit}",
    ]
    if header.sequence is not None:
        sids = [sid.short for sid in header.sequence.sids]
        cursor = header.sequence.cursor
        parts.append(f"services {' '.join([*sids[:cursor], '|', *sids[cursor:]])}")
    elif not header.sid.is_zero:
        parts.append(f"service {header.sid.short}")
    if header.lifetime_ms is not None:
        parts.append(f"lifetime {header.lifetime_ms} ms")
    if header.wants_report:
        parts.append("report wanted")
    return ", ".join(parts)


def _frame_text(frame: dict[str, Any]) -> str:
    rest = {name: value for name, value in frame.items() if name != "frame"}
    return f"{frame['frame']} {_words(rest)}".rstrip()


def _words(values: dict[str, Any]) -> str:
    """Return `name value` pairs; empty ones are left out."""
    shown = []
    for name, value in values.items():
        if value in (None, "", False) or value == []:
            continue
        shown.append(name if value is True else f"{name} {_word(value)}")
    return ", ".join(shown)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "[" + "; ".join(_words(entry) for entry in value) + "]"
    # A neighbour's text could hold terminal control codes.
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(value))
