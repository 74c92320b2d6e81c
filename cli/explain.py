"""`packetcloud rule explain`: what becomes of a chunk, and why."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packetcloud.chunk.names import GUID, SID
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, ROUTER, NameType, PublicKeyType, RangedSizeType, TimeType

if TYPE_CHECKING:
    from packetcloud.chunk.captured import CapturedChunk
    from packetcloud.router.explanation import AskedChunk
    from packetcloud.router.rules.explain_schemas import Explanation, RuleFinding

_STYLES = {"decides": "green", "would decide": "cyan", "missed": "dim", "outranked": "yellow"}
_LIVE_SNAP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Fields:
    """A chunk as it is typed."""

    source: GUID | None
    destination: GUID | None
    sids: tuple[SID, ...]
    payload_type: int
    size: int | None
    payload_file: Path | None


@click.command()
@click.option("--source", type=NameType(GUID), help="GUID of the source.")
@click.option("--destination", type=NameType(GUID), help="GUID of the destination.")
@click.option(
    "--sid", "sids", type=NameType(SID), multiple=True, help="A service that it asks for; in order."
)
@click.option("--payload-type", type=click.IntRange(0, 255), default=0, show_default=True)
@click.option("--ingress", type=NameType(GUID), help="The neighbour that it comes from.  [source]")
@click.option(
    "--size",
    type=RangedSizeType(0, 0xFFFF_FFFF),
    help="Bytes of the payload.  [default: those of the file]",
)
@click.option("--payload-file", type=FILE, help="The payload, for rules with patterns.")
@click.option("--capture", "capture_file", type=FILE, help="A chunk of this capture.")
@click.option(
    "--packet", type=click.IntRange(1), help="Which, by its packet.  [default: the first]"
)
@click.option(
    "--live",
    type=(NameType(GUID), NameType(GUID)),
    metavar="SOURCE DESTINATION",
    help="The next chunk between these two that the router gets.",
)
@click.option(
    "--rules",
    "rule_files",
    type=FILE,
    multiple=True,
    help="Ask the rules in this document instead of a router; several times for several.",
)
@click.option("--config", type=FILE, help="With --rules: services and priorities of this router.")
@click.option(
    "--router-key",
    "own_keys",
    type=PublicKeyType(),
    multiple=True,
    help="With --rules: a key of the ISP; documents signed by others are third parties'.",
)
@click.option("--at", "at_s", type=TimeType(), help="With --rules: as if it were then.  [now]")
@ROUTER
@pass_output
@click.pass_context
def explain(
    context: click.Context,
    output: Output,
    source: GUID | None,
    destination: GUID | None,
    sids: tuple[SID, ...],
    payload_type: int,
    ingress: GUID | None,
    size: int | None,
    payload_file: Path | None,
    capture_file: Path | None,
    packet: int | None,
    live: tuple[GUID, GUID] | None,
    rule_files: tuple[Path, ...],
    config: Path | None,
    own_keys: tuple[bytes, ...],
    at_s: float | None,
    url: str,
) -> None:
    """Say what becomes of a chunk, and why: which rules decide, which services it visits, where.

    The chunk is typed (--source, --destination and so on), out of a capture (--capture), or the
    next one that a router gets (--live). A running router is asked, or with --rules the rules in
    files. Nothing changes by asking.

    Exit code 1: it would be refused.
    """
    is_typed = source is not None or destination is not None
    if is_typed + (capture_file is not None) + (live is not None) != 1:
        raise click.UsageError("give one of --source with --destination, --capture, or --live")
    if not rule_files and (config or own_keys or at_s is not None):
        raise click.UsageError("--config, --router-key and --at are for --rules")
    if live is not None and rule_files:
        raise click.UsageError("--live asks a router: it does not go with --rules")
    if capture_file is not None:
        asked = _asked_of(_chunk_in(capture_file, packet), ingress)
    elif live is not None:
        asked = _asked_of(_next_chunk(output, url, *live), ingress)
    else:
        typed = _Fields(source, destination, sids, payload_type, size, payload_file)
        asked = _typed(typed, ingress)
    if rule_files:
        told = _offline(asked, rule_files, config, own_keys, at_s)
    else:
        from packetcloud.router.rules.explain_client import ask_router

        told = ask_router(url, asked.head, asked.payload, asked.ingress)
    output.report(told.model_dump(), _tables(told))
    if told.refused is not None:
        context.exit(ExitCode.NEGATIVE)


def _typed(fields: _Fields, ingress: GUID | None) -> AskedChunk:
    from packetcloud.chunk.header import ChunkHeader, ServiceSequence
    from packetcloud.chunk.names import SID_SEQUENCE, SID_ZERO, ChunkId
    from packetcloud.router.explanation import AskedChunk

    if fields.source is None or fields.destination is None:
        raise click.UsageError("--source and --destination go together")
    payload = fields.payload_file.read_bytes() if fields.payload_file is not None else None
    size = fields.size if fields.size is not None else len(payload or b"")
    if payload is not None and len(payload) != size:
        raise click.UsageError(f"--size {size}, and the payload has {len(payload)} bytes")
    if payload is None and size == 0:
        payload = b""
    sids = fields.sids
    header = ChunkHeader(
        fields.source,
        fields.destination,
        ChunkId(1),
        size,
        sid=sids[0] if len(sids) == 1 else SID_SEQUENCE if sids else SID_ZERO,
        sequence=ServiceSequence(sids) if len(sids) > 1 else None,
        payload_type=fields.payload_type,
    )
    return AskedChunk(header.to_bytes(), ingress or fields.source, payload)


def _asked_of(chunk: CapturedChunk, ingress: GUID | None) -> AskedChunk:
    from packetcloud.router.explanation import AskedChunk

    payload = chunk.payload if chunk.is_whole else None
    return AskedChunk(
        chunk.header.to_bytes(), ingress or chunk.neighbour or chunk.header.source, payload
    )


def _chunk_in(file: Path, packet: int | None) -> CapturedChunk:
    from packetcloud.chunk.capture import read_packets
    from packetcloud.chunk.captured import captured_chunks
    from packetcloud.chunk.pcap import CaptureDecoder

    with file.open("rb") as stream:
        for chunk in captured_chunks(CaptureDecoder().decode(read_packets(stream, str(file)))):
            if packet in (None, chunk.packet):
                return chunk
    which = f"no chunk begins in packet {packet} of" if packet is not None else "no chunk in"
    raise click.UsageError(f"{which} {file}; packetcloud chunk decode shows what it holds")


def _next_chunk(output: Output, url: str, source: GUID, destination: GUID) -> CapturedChunk:
    """Wait for the next chunk between two hosts that the router takes or refuses."""
    import io

    from packetcloud.chunk.capture import read_packets
    from packetcloud.chunk.captured import captured_chunks
    from packetcloud.chunk.pcap import CaptureDecoder
    from packetcloud.router.capture_client import stream_capture

    query = {
        "point": ("taken", "ended"),
        "source": source.hex,
        "destination": destination.hex,
        "count": 1,
        "snap": _LIVE_SNAP_BYTES,
    }
    parts: list[bytes] = []
    for part in stream_capture(url, query):
        if not parts:
            output.note(f"waiting for a chunk from {source} to {destination}; Ctrl-C gives up")
        parts.append(part)
    packets = read_packets(io.BytesIO(b"".join(parts)), "the capture")
    for chunk in captured_chunks(CaptureDecoder().decode(packets)):
        return chunk
    raise click.ClickException("the router stopped before such a chunk came")


def _offline(
    asked: AskedChunk,
    files: tuple[Path, ...],
    config: Path | None,
    own_keys: tuple[bytes, ...],
    at_s: float | None,
) -> Explanation:
    from packetcloud.router.config import RouterConfig
    from packetcloud.router.offline_explanation import explain_offline
    from packetcloud.router.rules.rule_files import rules_of_files

    settings = RouterConfig.load(config).settings if config is not None else None
    rules = rules_of_files(files, own_keys)
    return explain_offline(rules, asked, time.time() if at_s is None else at_s, settings)


def _tables(told: Explanation) -> list[Table]:
    chunk = told.chunk
    rows: list[tuple[str, object]] = [
        ("chunk", f"{chunk.get('source', '?')} -> {chunk.get('destination', '?')}"),
        ("comes from", f"{told.ingress_role or ''} {told.ingress}".strip()),
    ]
    if told.refused is not None:
        rows.append(("refused", ": ".join(filter(None, (told.refused, told.detail)))))
    else:
        names = [one.name for one in told.steps]
        rows.append(("visits", ", then ".join(names) if names else "no service here"))
        if told.beyond is not None:
            rows.append(("goes on to", f"service {told.beyond}"))
        if told.next_hop:
            rows.append(("next hop", told.next_hop))
    rows += [("note", note) for note in told.notes]
    tables = [Table(("", ""), rows)]
    if told.steps:
        tables.append(_steps_table(told))
    if told.rules is not None:
        rows = [("rules", told.rules.rules), ("that name nothing of it", told.rules.others)]
        if told.rules.left_out:
            rows.append(("that miss and are not shown", told.rules.left_out))
        if told.rules.revoked:
            rows.append(("out of force: a grant was revoked", ", ".join(told.rules.revoked)))
        if not told.rules.is_complete:
            rows.append(("near misses", "not all: there are too many rules to look through"))
        if not told.rules.has_payload:
            rows.append(("patterns", "not looked for: the payload is not known"))
        tables += [_rules_table(told.rules.findings), Table(("", ""), rows)]
    return tables


def _steps_table(told: Explanation) -> Table:
    rows = []
    for number, one in enumerate(told.steps, 1):
        reasons = ["asked for"] if one.is_asked else []
        reasons += [f"rule {one.rule}"] if one.rule is not None else []
        why = " and ".join(reasons)
        vi = f"VI {one.vi}: {one.vi_detail}" if one.vi is not None else one.vi_detail
        rows.append((number, one.name, one.service, one.priority, why, vi))
    return Table(("", "Service", "SID", "Priority", "Because", "VI"), rows, "Services in order")


def _rules_table(findings: list[RuleFinding]) -> Table:
    rows = [
        (
            f"{one.set}/{one.name}",
            one.number,
            "ISP" if one.is_own else one.signer[:8],
            one.priority,
            f"{one.action} or {one.if_absent}" if one.if_absent == "refuse" else one.action,
            one.service[:8],
            one.outcome,
            _why(one),
        )
        for one in findings
    ]
    columns = ("Rule", "Number", "Whose", "Priority", "Action", "Service", "Outcome", "Why")
    return Table(columns, rows, "Rules by rank", _STYLES)


def _why(one: RuleFinding) -> str:
    if one.missed is not None:
        return one.missed
    if one.by is None:
        return ""
    return f"{one.by} would take its place" if one.outcome == "decides" else f"by {one.by}"
