"""Debian's packages of an image: fetched and verified by debootstrap, the needed ones unpacked.

Only the download is debootstrap's: an image needs a third of what a system needs, and no package in
it is ever configured. So nothing runs in a changed root, and nothing is mounted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from packetcloud.cloudlet.images.recipe import (
    INCLUDED,
    LEFT_OUT,
    ImageError,
    Package,
    parse_needs,
)

FETCH_TIMEOUT_S = 1800.0
_TOOL_TIMEOUT_S = 300.0
_ARCHIVES = Path("var/cache/apt/archives")
_INDEX = "packages.json"
_FIELDS = ("Package", "Version", "Depends", "Pre-Depends")
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Folders that are links into /usr. Source: Debian's usr-is-merged."""
_ALTERNATIVES = ("--variant=minbase", f"--include={','.join(INCLUDED)}")

Told = Callable[[str], None]
"""Hears one line of progress."""


def find_mirror(suite: str) -> str:
    """Return the mirror that this machine's apt uses for `suite`.

    Raises:
        ImageError: it uses none, or there is no apt; then the operator must say it.
    """
    way_out = f"; say it: --mirror URL (the address of an archive that has {suite})"
    if shutil.which("apt-get") is None:
        raise ImageError(f"no apt-get here that knows a mirror{way_out}")
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(SUITE) $(SITE)"]
    found: dict[str, list[str]] = {}
    for line in run_tool(command).splitlines():
        codename, name, *site = line.split(maxsplit=2)
        for key in {codename, name}:
            found.setdefault(key, []).extend(one for one in site if one not in found.get(key, []))
    mirrors = found.get(suite, [])
    if not mirrors:
        raise ImageError(f"apt on this machine has no source for {suite}{way_out}")
    return mirrors[0]


def machine_architecture() -> str:
    """Return this machine's architecture as Debian names it."""
    return run_tool(["dpkg", "--print-architecture"]).strip()


def fetch_packages(folder: Path, suite: str, architecture: str, mirror: str, told: Told) -> None:
    """Put the packages of `suite` into `folder`, verified by the archive's signature.

    Raises:
        ImageError: debootstrap failed; the text is its last line.
    """
    if shutil.which("debootstrap", path=_path()) is None:
        raise ImageError("needs the command debootstrap: apt-get install debootstrap")
    scratch = folder / "debootstrap"
    command = ["debootstrap", "--download-only", *_ALTERNATIVES, f"--arch={architecture}"]
    process = subprocess.Popen(
        [*command, suite, str(scratch), mirror],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
    )
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            told(last.removeprefix("I: "))
        if process.wait(FETCH_TIMEOUT_S) != 0:
            raise ImageError(f"debootstrap of {suite} from {mirror} failed: {last}")
    finally:
        process.kill()
        process.wait()
    for archive in (scratch / _ARCHIVES).glob("*.deb"):
        archive.rename(folder / archive.name)
    shutil.rmtree(scratch)
    _write_index(folder)


def read_packages(folder: Path) -> dict[str, tuple[Package, Path]]:
    """Return the packages in `folder`, by name, and the file of each."""
    index = json.loads((folder / _INDEX).read_text())
    return {
        name: (Package(name, version, tuple(map(tuple, needs))), folder / file)
        for name, version, needs, file in index
    }


def _write_index(folder: Path) -> None:
    """Write down what the packages in `folder` are: to ask each takes longer than a whole build."""
    index = []
    for path in sorted(folder.glob("*.deb")):
        text = run_tool(["dpkg-deb", "--field", str(path), *_FIELDS])
        fields = dict(re.findall(r"^(\S+): (.*)$", text, re.MULTILINE))
        needs = parse_needs(fields.get("Depends", "")) + parse_needs(fields.get("Pre-Depends", ""))
        index.append([fields["Package"], fields["Version"], needs, path.name])
    (folder / _INDEX).write_text(json.dumps(index))


def unpack(archives: list[Path], root: Path, told: Told) -> None:
    """Unpack packages into `root`, without what no service needs."""
    root.mkdir()
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    left_out = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    for number, archive in enumerate(archives, 1):
        told(f"unpacking {archive.name} ({number} of {len(archives)})")
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
        ) as source:
            command = ["tar", "-x", "-C", str(root), "--keep-directory-symlink", *left_out]
            result = subprocess.run(
                [*command, "--wildcards", "--anchored"],
                stdin=source.stdout,
                capture_output=True,
                text=True,
                timeout=_TOOL_TIMEOUT_S,
                check=False,
            )
        if result.returncode or source.returncode:
            raise ImageError(f"cannot unpack {archive.name}: {result.stderr.strip()}")


def run_tool(command: list[str], timeout_s: float = _TOOL_TIMEOUT_S) -> str:
    """Run a command and return what it prints.

    Raises:
        ImageError: it is not there, failed, or took too long; the text is what it said last.
    """
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise ImageError(f"needs the command {command[0]}: see packetcloud doctor") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]}: not done after {timeout_s:g} s") from None
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
        raise ImageError(f"{command[0]} failed ({result.returncode}): {' | '.join(lines[-3:])}")
    return result.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8"}


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
