"""A container image of a few files, made of this machine's own shell: no network, no time.

Its init says `up` and the names in its environment on the console, and ends when it is asked to.
"""

from __future__ import annotations

import hashlib
import io
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.testbed.errors import TestbedError

COMMANDS = ("dash", "cat", "dd", "id", "ls", "sleep")
INIT = b"""#!/bin/sh
# SIGPWR is how LXD asks a container to end.
trap 'echo bye; exit 0' TERM PWR
trap '' HUP
echo up $PACKETCLOUD_TOKEN
while :; do sleep 3600 & wait $!; done
"""
FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp")


def make_tiny_image(folder: Path) -> ImageFiles:
    """Write the image into `folder`.

    Raises:
        TestbedError: this machine lacks one of the commands.
    """
    path = folder / "tiny.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        metadata = (
            f"architecture: {platform.machine()}\n"
            "creation_date: 1\n"
            "properties: {description: the shell of this machine}\n"
        )
        _add(archive, "metadata.yaml", metadata.encode())
        for name in FOLDERS:
            _add(archive, f"rootfs/{name}", None)
        for name, source in _files().items():
            _add(archive, f"rootfs/{name}", source.read_bytes(), mode=0o755)
        _add(archive, "rootfs/sbin/init", INIT, mode=0o755)
        _add(archive, "rootfs/etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        link = tarfile.TarInfo("rootfs/bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "dash"
        archive.addfile(link)
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageFiles(fingerprint, "tiny image of the testbed", (path,))


def _files() -> dict[str, Path]:
    """Return path in the image -> file here: the commands and the libraries that they load."""
    found: dict[str, Path] = {}
    for command in COMMANDS:
        source = shutil.which(command)
        if source is None:
            raise TestbedError(f"a tiny image needs the command {command}")
        found[f"bin/{command}"] = Path(source).resolve()
        listing = subprocess.run(["ldd", source], capture_output=True, text=True, check=False)
        for library in re.findall(r"(/\S+) \(0x", listing.stdout):
            found[library.lstrip("/")] = Path(library).resolve()
    return found


def _add(archive: tarfile.TarFile, name: str, data: bytes | None, mode: int = 0o644) -> None:
    """Add a file, or a folder for None, with nothing of this moment in it."""
    info = tarfile.TarInfo(name)
    if data is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
        return
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))
