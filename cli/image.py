"""`packetcloud image`: build the root file systems of VIs, list them, give them to LXD."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import FOLDER

if TYPE_CHECKING:
    from packetcloud.cloudlet.images.build import Progress
    from packetcloud.cloudlet.images.store import BuiltImage, ImageStore

_store = click.option(
    "--store",
    "folder",
    type=FOLDER,
    help="Where images are kept. [default: /var/cache/packetcloud/images]",
)
_lxd = click.option(
    "--lxd",
    "sockets",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="SOCKET",
    help="Import it into the LXD server with this Unix socket, such as "
    "/var/lib/lxd/unix.socket; may be given several times.",
)


@click.group()
def image() -> None:
    """Build images of VIs, list and remove them, import them into LXD."""


@image.command()
@click.option(
    "--service",
    "manifest",
    type=click.Path(path_type=Path, exists=True),
    help="Manifest of a service of your own, or its folder; with requirements.txt beside it. "
    "Without: an image for all bundled services.",
)
@click.option("--suite", default="bookworm", show_default=True, help="Debian's release.")
@click.option("--mirror", metavar="URL", help="Debian's archive. [default: the one of apt here]")
@click.option("--refresh", is_flag=True, help="Fetch all packages anew, for their updates.")
@_store
@_lxd
@pass_output
def build(
    output: Output,
    manifest: Path | None,
    suite: str,
    mirror: str | None,
    refresh: bool,
    folder: Path | None,
    sockets: tuple[Path, ...],
) -> None:
    """Build an image, unless one of the same inputs is there already (root)."""
    from packetcloud.cloudlet.images.build import BuildRequest, build_image

    request = BuildRequest(suite, mirror, manifest, refresh)
    with _bar(output) as told:
        built, is_new = build_image(_open_store(folder), request, told)
        _import(built, sockets)
    values = {**_row(built), "Built now": is_new, "Imported into": ", ".join(map(str, sockets))}
    output.record(values)


@image.command("list")
@_store
@pass_output
def list_images(output: Output, folder: Path | None) -> None:
    """List the images on this machine, the newest first."""
    from packetcloud.cloudlet.images.store import document_of

    images = _open_store(folder).images()
    rows = [_row(one) for one in images]
    columns = list(rows[0]) if rows else ["Name", "Version"]
    table = Table(columns, [list(row.values()) for row in rows])
    output.report([document_of(one) for one in images], [table])


@image.command()
@click.argument("version")
@_store
@pass_output
def remove(output: Output, version: str, folder: Path | None) -> None:
    """Remove the image VERSION from this machine; what LXD has of it stays there."""
    _open_store(folder).remove(version)
    output.note(f"removed {version}")


@image.command("import")
@click.argument("wanted", metavar="IMAGE")
@_store
@_lxd
@pass_output
def import_image(
    output: Output, wanted: str, folder: Path | None, sockets: tuple[Path, ...]
) -> None:
    """Import IMAGE, a version or the newest of a name, into LXD."""
    if not sockets:
        raise click.UsageError("say where to: --lxd /var/lib/lxd/unix.socket")
    built = _open_store(folder).get(wanted)
    _import(built, sockets)
    output.record({**_row(built), "Imported into": ", ".join(map(str, sockets))})


def _open_store(folder: Path | None) -> ImageStore:
    from packetcloud.cloudlet.images.store import DEFAULT_FOLDER, ImageStore

    return ImageStore(folder or DEFAULT_FOLDER)


def _import(built: BuiltImage, sockets: tuple[Path, ...]) -> None:
    if not sockets:
        return
    from packetcloud.cloudlet.lxd.address import UnixSocket
    from packetcloud.cloudlet.lxd.discovery import import_image

    for socket in sockets:
        asyncio.run(import_image(UnixSocket(socket.absolute()), built.files()))


def _row(built: BuiltImage) -> dict[str, Any]:
    return {
        "Name": built.name,
        "Version": built.version,
        "Suite": built.suite,
        "Python": built.python,
        "Files": built.files_count,
        "MiB": round(built.size_bytes / (1 << 20), 1),
        "Fingerprint": built.fingerprint[:12],
    }


@contextmanager
def _bar(output: Output) -> Iterator[Any]:
    """Show the step of a build; one bar over all steps."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from packetcloud.cloudlet.images.build import STEPS

    name = TextColumn("{task.description}", markup=False)
    with output.progress(BarColumn(), MofNCompleteColumn(), name) as progress:
        task = progress.add_task("", total=len(STEPS))

        def told(news: Progress) -> None:
            text = f"{news.step}: {news.detail}"[:100]
            progress.update(task, completed=STEPS.index(news.step), description=text)

        yield told
