"""A topology whose service runs in a container: the page's own, with its commands.

One network serves all that is looked at: LXD, its image and its container take most of the time.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pyroute2 import netns

from packetcloud.testbed.lxd_remains import PARENT, PREFIX
from packetcloud.testbed.processes import wait_until
from tests.system import killed_keeper
from tests.system.lxd_places import needs_lxd
from tests.system.test_docs import ROOT, Command, commands_of, run_commands
from tests.system.vi_image import BUILD_TIMEOUT_S, STORE, vi_image

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap", "curl"),
]
PAGE = ROOT / "docs" / "how-to" / "build-a-topology.md"
IMAGES = f'case "$1 $2" in "testbed up") set -- "$@" --images {STORE.folder};; esac'
DEVICES = ("pcdata0", "pccontrol0", "pcegress0")
"""As a cloudlet names them that is not in a namespace."""


def test_a_topology_in_containers(tmp_path: Path) -> None:
    """The page's host reaches the web through a container, which reaches nothing else; after a kill
    of the keeper `down` leaves no process, mount, device, table, namespace or file."""
    vi_image()
    before = _of_the_machine("")
    *commands, down = commands_of(PAGE, ("console lxd",))
    commands.append(Command(f"python3 {killed_keeper.__file__}"))
    commands.append(Command("packetcloud testbed list || true", ["boxed left behind..."]))
    run_commands([*commands, down], tmp_path, IMAGES)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["reached"] == {"r": ["yes", "yes", "yes"], "translator": ["yes", "no", "no"]}
    assert seen["left"], "a container goes on without its keeper, or `down` had nothing to do"

    assert killed_keeper.processes_of(seen["lxd"]) == []
    assert list(PARENT.glob(f"{PREFIX}-{seen['keeper']}-*")) == []
    assert not [name for name in netns.listnetns() if f"-{seen['keeper']}-" in name]
    assert list((tmp_path / ".testbed").iterdir()) == []
    wait_until(lambda: _of_the_machine(seen["lxd"]) == before, 20, "mounts and disks are let go")


def _of_the_machine(folder: str) -> dict[str, list[str]]:
    """Return what of a cloudlet is on it, and what is mounted or is a disk below a folder."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    disks = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    mounts = Path("/proc/mounts").read_text().splitlines()
    return {
        "devices": [one for one in DEVICES if Path("/sys/class/net", one).exists()],
        "tables": [one for one in tables.stdout.splitlines() if one.endswith(" packetcloud")],
        "disks": [one for one in disks if folder and folder in one],
        "mounts": [one for one in mounts if folder and folder in one],
    }
