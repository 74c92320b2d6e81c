"""`packetcloud host`: send and receive files from the shell, and see whether a host answers."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import GUID, SID
from packetcloud.cli.output import ExitCode, Output, pass_output

if TYPE_CHECKING:
    from rich.progress import Progress

    from packetcloud.host.file_receiver import ReceivedFile, ReceiveProgress
    from packetcloud.host.outgoing_file import SendProgress, SentFile
    from packetcloud.host.programs import Attachment, PingResult

F = TypeVar("F", bound=Callable[..., Any])
_REDRAW_S = 0.1
"""A progress bar is moved ten times a second, however many chunks end in between."""
_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTE_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


class NameType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A GUID or SID, typed as 40 hexadecimal digits."""

    def __init__(self, kind: type[GUID]) -> None:
        self.name = kind.__name__
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GUID:
        if isinstance(value, GUID):
            return value
        try:
            return self._kind.from_hex(value)
        except ProtocolError:
            self.fail(
                f"{value!r} is no {self.name}: expected 40 hexadecimal digits, as printed by "
                "packetcloud identity show",
                param,
                ctx,
            )


class AddressType(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = str(value).rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        in_range = port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535
        if not colon or not bare or not in_range or (":" in bare and bare == host):
            self.fail(
                f"{value!r}: expected HOST:PORT with a port from 1 to 65535, like 127.0.0.1:4700 "
                "or [::1]:4700",
                param,
                ctx,
            )
        return bare, int(port)


class SizeType(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, with a unit if wanted: 4096, 10M, 2GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().removesuffix("b")
        digits = text.rstrip("kmgti")
        unit = _BYTE_UNITS.get(text[len(digits) :])
        if not digits.isascii() or not digits.isdecimal() or unit is None:
            self.fail(f"{value!r}: expected bytes like 4096, 10M or 2GiB", param, ctx)
        return int(digits) * unit


def _attachment_options(function: F) -> F:
    """The options of every command that attaches a host to a router."""
    options = (
        click.option(
            "--router", type=AddressType(), required=True, help="Where the router listens."
        ),
        click.option("--router-guid", type=NameType(GUID), help="Attach to this router only."),
        click.option(
            "--key",
            "key_file",
            required=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="This host's identity. See: packetcloud identity create",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _service_option(function: F) -> F:
    return click.option(
        "--service",
        "services",
        type=NameType(SID),
        multiple=True,
        help="Let this service see every chunk; several are visited in the order given.",
    )(function)


@click.group()
def host() -> None:
    """Send and receive files, and see whether a host answers."""


@host.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "destination", type=NameType(GUID), required=True, help="The receiver.")
@_attachment_options
@_service_option
@click.option("--name", help="The name offered to the receiver.  [default: the file's]")
@click.option(
    "--chunk-bytes",
    type=SizeType(),
    default="1044480",
    show_default=True,
    help="Bytes of the file per chunk.",
)
@click.option(
    "--lifetime",
    "lifetime_s",
    type=click.FloatRange(0.1, 86_400),
    default=60,
    show_default=True,
    help="Seconds that a chunk may be on its way.",
)
@click.option(
    "--stall",
    "stall_s",
    type=click.FloatRange(1, 86_400),
    default=60,
    show_default=True,
    help="Give up when nothing has moved for so many seconds.",
)
@click.option("--resume", is_flag=True, help="Go on where an earlier run of this file ended.")
@pass_output
def send(
    output: Output,
    file: Path,
    destination: GUID,
    router: tuple[str, int],
    router_guid: GUID | None,
    key_file: Path,
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
    from packetcloud.host.programs import Attachment, SendOrder, send_file
    from packetcloud.host.session import InterruptedSessionError, run_session, warnings_to

    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise click.BadParameter(
            f"{chunk_bytes}: allowed {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}",
            param_hint="--chunk-bytes",
        )
    attachment = Attachment(router, key_file, router_guid)
    order = SendOrder(file, destination, name, services, chunk_bytes, lifetime_s, stall_s, resume)
    warnings_to(output.warn)
    with SendBar(output, file.name) as bar:
        try:
            sent = run_session(lambda reactor: send_file(reactor, attachment, order, bar.moved))
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
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@_attachment_options
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
    type=click.Path(path_type=Path, dir_okay=False),
    help="Remember here which chunks were taken, so that a restart takes none twice.",
)
@pass_output
def receive(
    output: Output,
    folder: Path,
    router: tuple[str, int],
    router_guid: GUID | None,
    key_file: Path,
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
    from packetcloud.host.programs import Attachment, ReceiveOrder, receive_files
    from packetcloud.host.session import InterruptedSessionError, run_session, warnings_to

    if once and count not in (None, 1):
        raise click.UsageError("--once and --count do not go together")
    count = 1 if once else count
    attachment = Attachment(router, key_file, router_guid)
    order = ReceiveOrder(folder, allowed, count, max_bytes, overwrite, not no_sync, state_file)
    warnings_to(output.warn)

    def ready(guid: GUID) -> None:
        output.note(f"receiving into {folder} as {guid}")

    with ReceiveBars(output) as bars:

        def came(file: ReceivedFile) -> None:
            bars.done(file)
            _print_received(output, file)

        try:
            run_session(
                lambda reactor: receive_files(reactor, attachment, order, ready, came, bars.moved)
            )
        except InterruptedSessionError:
            bars.stop()
            if count is not None:
                output.warn("stopped; what is unfinished can be resumed by its sender")
                raise click.Abort from None


@host.command()
@click.argument("destination", metavar="GUID", type=NameType(GUID))
@_attachment_options
@_service_option
@click.option(
    "--count", type=click.IntRange(1), default=4, show_default=True, help="Chunks to send."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0, 3600),
    default=1,
    show_default=True,
    help="Seconds between them.",
)
@click.option("--bytes", "payload_bytes", type=SizeType(), default="0", help="Payload of each.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 3600),
    default=5,
    show_default=True,
    help="Seconds to wait for each answer.",
)
@pass_output
def ping(
    output: Output,
    destination: GUID,
    router: tuple[str, int],
    router_guid: GUID | None,
    key_file: Path,
    services: tuple[SID, ...],
    count: int,
    interval_s: float,
    payload_bytes: int,
    timeout_s: float,
) -> None:
    """Send small chunks to the host GUID and time its delivery reports.

    Exit code 1: not every chunk was answered by the host itself.
    """
    from packetcloud.host.programs import Attachment
    from packetcloud.host.programs import ping as run_ping
    from packetcloud.host.session import InterruptedSessionError, run_session, warnings_to

    attachment = Attachment(router, key_file, router_guid)
    warnings_to(output.warn)
    results: list[PingResult] = []

    def came(result: PingResult) -> None:
        results.append(result)
        if not output.is_json:
            output.text(_ping_line(destination, result))

    try:
        run_session(
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
            )
        )
    except InterruptedSessionError:
        if not results:
            raise click.Abort from None
    _print_ping(output, results)
    if not all(result.answered for result in results):
        click.get_current_context().exit(ExitCode.NEGATIVE)


class SendBar(AbstractContextManager["SendBar"]):
    """The progress bar of one file on its way out."""

    def __init__(self, output: Output, title: str) -> None:
        self._progress = _progress(output)
        self._task = self._progress.add_task(title, total=None)
        self._drawn_s = 0.0

    def moved(self, progress: SendProgress) -> None:
        now = time.monotonic()
        if now - self._drawn_s >= _REDRAW_S or progress.delivered_bytes == progress.size_bytes:
            self._drawn_s = now
            self._progress.update(
                self._task, completed=progress.delivered_bytes, total=progress.size_bytes
            )

    def stop(self) -> None:
        self._progress.stop()

    def __enter__(self) -> SendBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ReceiveBars(AbstractContextManager["ReceiveBars"]):
    """A progress bar for every file that is coming in."""

    def __init__(self, output: Output) -> None:
        self._progress = _progress(output)
        self._tasks: dict[tuple[GUID, str], Any] = {}
        self._drawn_s = 0.0

    def moved(self, progress: ReceiveProgress) -> None:
        now = time.monotonic()
        key = (progress.source, progress.name)
        task = self._tasks.get(key)
        if task is None:
            self._tasks[key] = task = self._progress.add_task(progress.name, total=None)
        elif now - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = now
        self._progress.update(task, completed=progress.have_bytes, total=progress.size_bytes)

    def done(self, file: ReceivedFile) -> None:
        for key, task in list(self._tasks.items()):
            if key[0] == file.source and self._progress.tasks:
                self._progress.remove_task(task)
                del self._tasks[key]

    def stop(self) -> None:
        self._progress.stop()

    def __enter__(self) -> ReceiveBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _progress(output: Output) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    name = TextColumn("{task.description}", markup=False)
    return output.progress(name, BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())


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
