"""Python packages of an image, for its Python and C library instead of this machine's.

They come from whatever index pip is configured with here, as wheels only: nothing of theirs runs
while an image is built.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import sys
from pathlib import Path

from packetcloud.cloudlet.images.debian import run_tool
from packetcloud.cloudlet.images.recipe import VI_REQUIREMENTS, ImageError, Platform

PIP_TIMEOUT_S = 1800.0
_MARKED = {"hyperscan": "hyperscan; platform_machine == 'x86_64'"}
"""As in pyproject.toml: there are no wheels for others."""
_LEFT_OUT_FOLDERS = ("test", "tests")
_KEPT_FOLDERS = ("numpy/_core/tests",)
"""numpy.testing, which libraries import in earnest, needs a module in there."""
_LEFT_OUT_FILES = (".c", ".h", ".pxd", ".pyi", ".pyx")
_KEPT_OF_DIST_INFO = ("METADATA", "entry_points.txt", "top_level.txt")


def runtime_requirements() -> list[str]:
    """Return what the runtime needs, in the versions that this installation of ours allows."""
    try:
        declared = importlib.metadata.requires("packetcloud") or []
    except importlib.metadata.PackageNotFoundError:
        # Run from the source tree: pip takes the newest.
        return [_MARKED.get(name, name) for name in VI_REQUIREMENTS]
    wanted = []
    for line in declared:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()
        if name in VI_REQUIREMENTS and "extra ==" not in line:
            wanted.append(line)
    return wanted


def install(requirements: list[str], platform: Platform, target: Path) -> list[tuple[str, str]]:
    """Install into the folder `target`; return name and version of each that pip chose.

    Raises:
        ImageError: pip is not there, or found no fitting wheels.
    """
    if importlib.util.find_spec("pip") is None:
        raise ImageError(f"{sys.executable} has no pip; run: python -m ensurepip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-input"]
    command += ["--disable-pip-version-check", "--target", str(target), *platform.pip_options()]
    run_tool([*command, *requirements], PIP_TIMEOUT_S)
    chosen = sorted(
        (found.metadata["Name"].lower(), found.version)
        for found in importlib.metadata.distributions(path=[str(target)])
    )
    _thin_out(target)
    return chosen


def _thin_out(target: Path) -> None:
    """Remove what no service imports."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in sorted(target.rglob("*"), reverse=True):
        name = path.relative_to(target).as_posix()
        if any(name == kept or name.startswith(f"{kept}/") for kept in _KEPT_FOLDERS):
            continue
        if path.is_dir() and not path.is_symlink():
            if path.name in (*_LEFT_OUT_FOLDERS, "__pycache__") and not _holds_kept(name):
                shutil.rmtree(path)
        elif path.suffix in _LEFT_OUT_FILES or (
            path.parent.suffix == ".dist-info" and path.name not in _KEPT_OF_DIST_INFO
        ):
            path.unlink()


def _holds_kept(name: str) -> bool:
    return any(kept.startswith(f"{name}/") for kept in _KEPT_FOLDERS)
