"""What a figure was measured on: without it, a figure says nothing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

PACKAGES = (
    "twisted",
    "numpy",
    "pycryptodome",
    "cryptography",
    "zstandard",
    "grpcio",
    "uvloop",
    "hyperscan",
    "google-re2",
)
_ROOT = Path(__file__).resolve().parents[1]
_CODE = ("*.py", "services")
"""Where code of ours is; in `services` manifests and rules belong to it."""


def describe_machine() -> dict[str, object]:
    """CPU, memory and how the kernel treats TCP and socket buffers."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "architecture": platform.machine(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "rmem_max_bytes": _read_number("/proc/sys/net/core/rmem_max"),
        "wmem_max_bytes": _read_number("/proc/sys/net/core/wmem_max"),
    }


def describe_software() -> dict[str, object]:
    """Kernel, Python, our own commit and the libraries that decide speed."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit, is_changed = commit_of_tree()
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions,
        "commit": commit,
        "commit_has_local_changes": is_changed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit_of_tree() -> tuple[str | None, bool | None]:
    """Return the commit of the source tree and whether files differ; None where there is no git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def changes_of_tree() -> str:
    """Return a digest of what differs from the commit, with new files; empty where there is no git.

    Of new files those that may be code: what runs write may lie in the tree, too.
    """
    new = ("ls-files", "--others", "--exclude-standard", "-z", "--", *_CODE)
    try:
        digest = hashlib.sha256(_git("diff", "HEAD").encode())
        for name in filter(None, _git(*new).split("\0")):
            digest.update(name.encode() + b"\0" + (_ROOT / name).read_bytes())
    except (OSError, subprocess.SubprocessError):
        return ""
    return digest.hexdigest()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "cpu model", "hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
