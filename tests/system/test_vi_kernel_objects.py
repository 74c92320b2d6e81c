"""What the kernel counts for all containers together is bounded for each, by its own init."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from packetcloud.services import vi

pytestmark = pytest.mark.root

_COUNT = """
import ctypes, sys
from packetcloud.services import vi
if sys.argv[1] == "bounded":
    vi.bound_kernel_objects()
libc = ctypes.CDLL(None, use_errno=True)
count = 0
while count < 20 and libc.inotify_init1(0) >= 0:
    count += 1
print(count, libc.unshare(0x10000000))
"""


def _in_a_container(how: str) -> tuple[int, bool]:
    """Return how many inotify instances were had, and whether a user namespace was."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", _COUNT, how]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "stays as it is" not in result.stderr
    count, outcome = map(int, result.stdout.split())
    return count, outcome == 0


def test_a_vi_has_few_of_what_all_share() -> None:
    """Inotify instances of one user, and namespaces; the control has as many as it asks for."""
    assert _in_a_container("bounded") == (vi.KERNEL_OBJECTS["max_inotify_instances"], False)
    count, had_namespace = _in_a_container("as it is")
    assert count > vi.KERNEL_OBJECTS["max_inotify_instances"] and had_namespace


def test_outside_a_container_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There the limits are the whole machine's; one that this kernel lacks is left out."""
    monkeypatch.setattr(vi, "_USER_LIMITS", tmp_path)
    monkeypatch.setattr(vi, "_EVERYBODY", Path("/proc/self/uid_map").read_text().split())
    (tmp_path / "max_user_namespaces").write_text("63000\n")
    vi.bound_kernel_objects()
    assert (tmp_path / "max_user_namespaces").read_text() == "63000\n"
    assert "no container" in caplog.text
