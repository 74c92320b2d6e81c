"""`packetcloud host`: send and receive files from the shell, and see whether a host answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.chunk.names import GUID, SID
from packetcloud.cli.bars import ReceiveBars, SendBar
from packetcloud.cli.host_proxy import expose, proxy
from packetcloud.cli.host_run import attached, run
from packetcloud.cli.output import ExitCode, Output, pass_output
from packetcloud.cli.params import FILE, FOLDER, F, NameType, SizeType

if TYPE_CHECKING:
    from packetcloud.host.file_receiver import ReceivedFile
    from packetcloud.host.outgoing_file import SentFile
    from packetcloud.host.programs import Attachment, PingResult

_services = click.option(
    "--service",
    "services",
    type=NameType(SID),
    multiple=True,
    help="Let this service see every chunk; several are visited in the order given.",
)


def _seconds(
    flag: str, least_s: float, most_s: float, *, default: int, help: str
) -> Callable[[F], F]:
    """Return an option `--NAME`; the command gets it as `NAME_s`."""
    return click.option(
        flag,
        f"{flag.removeprefix('--')}_s",
        type=click.FloatRange(least_s, most_s),
        default=default,
        show_default=True,
        help=help,
    )


@click.group()
def host() -> None:
    """Send and receive files, reach the IP network, and see whether a host answers."""


host.add_command(proxy)
host.add_command(expose)


@host.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "destination", type=NameType(GUID), required=True, help="The receiver.")
@attached
@_services
@click.option("--name", help="The name offered to the receiver.  [default: the file's]")
@click.option(
    "--chunk-bytes",
    type=SizeType(),
    default="1044480",
    show_default=True,
    help="Bytes of the file per chunk.",
)
@_seconds("--lifetime", 0.1, 86_400, default=60, help="Seconds that a chunk may be on its way.")
@_seconds(
    "--stall", 1, 86_400, default=60, help="Give up when nothing has moved for so many seconds."
)
@click.option("--resume", is_flag=True, help="Go on where an earlier run of this file ended.")
@pass_output
def send(
    output: Output,
    file: Path,
    destination: GUID,
    attachment: Attachment,
    services: tuple[SID, ...],
    name: str | None,
    chunk_bytes: int,
    lifetime_s: float,
    stall_s: float,
    resume: bool,
) -> None:
    """Send FILE to the host with the given GUID and check it there by SHA-256.

    Exit code 1: the receiver has not got the file; the text says why, and whether to resume.
    """
    from packetcloud.host.errors import TransferError
    from packetcloud.host.file_transfer import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
    from packetcloud.host.programs import SendOrder, send_file
    from packetcloud.host.session import InterruptedSessionError

    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise click.BadParameter(
            f"{chunk_bytes}: allowed {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}",
            param_hint="--chunk-bytes",
        )
    order = SendOrder(file, destination, name, services, chunk_bytes, lifetime_s, stall_s, resume)
    with SendBar(output, file.name) as bar:
        try:
            sent = run(output, lambda reactor: send_file(reactor, attachment, order, bar.moved))
        except TransferError as error:
            bar.stop()
            output.warn(f"{file} was not sent: {error}")
            if error.resumable:
                output.warn(_resume_hint(attachment, order))
            click.get_current_context().exit(ExitCode.NEGATIVE)
        except InterruptedSessionError:
            bar.stop()
            output.warn(f"stopped; {file} is not complete. {_resume_hint(attachment, order)}")
            raise click.Abort from None
    _print_sent(output, sent)


@host.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@attached
@click.option(
    "--from",
    "allowed",
    type=NameType(GUID),
    multiple=True,
    help="Take files from this host only; may be given several times.  [default: anybody]",
)
@click.option("--once", is_flag=True, help="Stop after one file; the same as --count 1.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many files.")
@click.option(
    "--max-bytes", type=SizeType(), help="Refuse larger files.  [default: what fits on the disk]"
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a file of the same name.  [default: store the new one as NAME-1 and so on]",
)
@click.option(
    "--no-sync", is_flag=True, help="Do not wait for the disk: faster, not safe from power cuts."
)
@click.option(
    "--state",
    "state_file",
    type=FILE,
    help="Remember here which chunks were taken, so that a restart takes none twice.",
)
@pass_output
def receive(
    output: Output,
    folder: Path,
    attachment: Attachment,
    allowed: tuple[GUID, ...],
    once: bool,
    count: int | None,
    max_bytes: int | None,
    overwrite: bool,
    no_sync: bool,
    state_file: Path | None,
) -> None:
    """Receive files into DIR, until stopped by Ctrl-C or by --once or --count.

    One line (with --format json: one JSON object on a line) is printed for every file that arrived
    whole; that it is ready is said on standard error. Unfinished files are kept, hidden, and can be
    resumed by their sender.
    """
    from packetcloud.host.programs import ReceiveOrder, receive_files
    from packetcloud.host.session import InterruptedSessionError

    if once and count not in (None, 1):
        raise click.UsageError("--once and --count do not go together")
    count = 1 if once else count
    order = ReceiveOrder(folder, allowed, count, max_bytes, overwrite, not no_sync, state_file)

    def ready(guid: GUID) -> None:
        output.note(f"receiving into {folder} as {guid}")

    with ReceiveBars(output) as bars:

        def came(file: ReceivedFile) -> None:
            bars.done(file)
            _print_received(output, file)

        try:
            run(
                output,
                lambda reactor: receive_files(reactor, attachment, order, ready, came, bars.moved),
            )
        except InterruptedSessionError:
            bars.stop()
            if count is not None:
                output.warn("stopped; what is unfinished can be resumed by its sender")
                raise click.Abort from None


@host.command()
@click.argument("destination", metavar="GUID", type=NameType(GUID))
@attached
@_services
@click.option(
    "--count", type=click.IntRange(1), default=4, show_default=True, help="Chunks to send."
)
@_seconds("--interval", 0, 3600, default=1, help="Seconds between them.")
@click.option("--bytes", "payload_bytes", type=SizeType(), default="0", help="Payload of each.")
@_seconds("--timeout", 0.1, 3600, default=5, help="Seconds to wait for each answer.")
@pass_output
def ping(
    output: Output,
    destination: GUID,
    attachment: Attachment,
    services: tuple[SID, ...],
    count: int,
    interval_s: float,
    payload_bytes: int,
    timeout_s: float,
) -> None:
    """Send small chunks to the host GUID and time its delivery reports.

    Exit code 1: not every chunk was answered by the host itself.
    """
    from packetcloud.host.programs import ping as run_ping
    from packetcloud.host.session import InterruptedSessionError

    results: list[PingResult] = []

    def came(result: PingResult) -> None:
        results.append(result)
        if not output.is_json:
            output.text(_ping_line(destination, result))

    try:
        run(
            output,
            lambda reactor: run_ping(
                reactor,
                attachment,
                destination,
                services=services,
                count=count,
                interval_s=interval_s,
                payload_bytes=payload_bytes,
                lifetime_s=timeout_s,
                on_result=came,
            ),
        )
    except InterruptedSessionError:
        if not results:
            raise click.Abort from None
    _print_ping(output, results)
    if not all(result.answered for result in results):
        click.get_current_context().exit(ExitCode.NEGATIVE)


def _print_sent(output: Output, sent: SentFile) -> None:
    if output.is_json:
        document = {
            "file": str(sent.path),
            "stored_as": sent.name,
            "bytes": sent.size_bytes,
            "had_bytes": sent.had_bytes,
            "resent_bytes": sent.resent_bytes,
            "seconds": round(sent.seconds, 6),
            "mbit_s": _mbit_s(sent.size_bytes - sent.had_bytes, sent.seconds),
            "sha256": sent.sha256.hex(),
            "was_there": sent.was_there,
        }
        output.report(document, [])
        return
    if sent.was_there:
        output.text(f"{sent.path}: the receiver has it already, SHA-256 {sent.sha256.hex()}")
        return
    moved = sent.size_bytes - sent.had_bytes
    had = f" ({sent.had_bytes} were there)" if sent.had_bytes else ""
    stored = f", stored as {sent.name}" if sent.name != sent.path.name else ""
    output.text(
        f"{sent.path}: {sent.size_bytes} bytes{had} in {sent.seconds:.2f} s, "
        f"{_mbit_s(moved, sent.seconds):.1f} Mbit/s, SHA-256 {sent.sha256.hex()}{stored}"
    )


def _print_received(output: Output, file: ReceivedFile) -> None:
    if output.is_json:
        document = {
            "file": str(file.path),
            "from": file.source.hex,
            "bytes": file.size_bytes,
            "seconds": round(file.seconds, 6),
            "mbit_s": _mbit_s(file.size_bytes, file.seconds),
            "sha256": file.sha256.hex(),
        }
        output.text(json.dumps(document))
        return
    output.text(
        f"{file.path}: {file.size_bytes} bytes in {file.seconds:.2f} s, "
        f"{_mbit_s(file.size_bytes, file.seconds):.1f} Mbit/s, SHA-256 {file.sha256.hex()}, "
        f"from {file.source.hex}"
    )


def _ping_line(destination: GUID, ping: PingResult) -> str:
    result = ping.result
    if ping.answered:
        return f"{destination.short}: chunk {ping.number} answered in {result.total_s * 1e3:.2f} ms"
    return f"{destination.short}: chunk {ping.number} {result.explain()}"


def _print_ping(output: Output, results: list[PingResult]) -> None:
    times_ms = [ping.result.total_s * 1e3 for ping in results if ping.answered]
    if output.is_json:
        document = {
            "sent": len(results),
            "answered": len(times_ms),
            "rtt_ms": [round(value, 3) for value in times_ms],
            "failures": [ping.result.explain() for ping in results if not ping.answered],
        }
        output.report(document, [])
        return
    text = f"{len(times_ms)} of {len(results)} answered"
    if times_ms:
        mean = sum(times_ms) / len(times_ms)
        text += f"; round trip min/mean/max {min(times_ms):.2f}/{mean:.2f}/{max(times_ms):.2f} ms"
    output.text(text)


def _mbit_s(size_bytes: int, seconds: float) -> float:
    return round(size_bytes * 8e-6 / seconds, 3) if seconds > 0 else 0.0


def _resume_hint(attachment: Attachment, order: Any) -> str:
    address, port = attachment.router
    router = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    words = ["packetcloud", "host", "send", str(order.path), "--to", order.destination.hex]
    words += ["--router", router, "--key", str(attachment.key_file)]
    if order.name is not None:
        words += ["--name", order.name]
    for sid in order.services:
        words += ["--service", sid.hex]
    return f"To go on from there: {shlex.join([*words, '--resume'])}"
