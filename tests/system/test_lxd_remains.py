"""What killed servers leave is removed, and nothing of anybody else's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

_SWEEP = """
import json, subprocess
from packetcloud.testbed import lxd_remains
from packetcloud.testbed.lxd_remains import sweep_stale_pairs

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def pair(name, other):
    ip("link", "add", name, "type", "veth", "peer", "name", other)

def names():
    listing = subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout
    return sorted(one["ifname"] for one in json.loads(listing) if one["ifname"] != "lo")

assert sweep_stale_pairs() == []
pair("veth00000001", "veth00000002")
pair("veth00000003", "veth00000004")
ip("link", "add", "bridge0", "type", "bridge")
ip("link", "set", "veth00000004", "master", "bridge0")
pair("veth00000005", "other0")
pair("veth00000006", "veth00000007")

def meanwhile(delay_s):
    # The server that made this one was about to give it away.
    ip("link", "set", "veth00000007", "master", "bridge0")

lxd_remains.time.sleep = meanwhile
print(json.dumps([sweep_stale_pairs(), names()]))
"""


def test_a_pair_that_nobody_was_given_is_swept() -> None:
    """Not one of a bridge, of other names, or that a server is just giving away."""
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _SWEEP],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    swept, left = json.loads(result.stdout)
    assert swept == ["veth00000001", "veth00000002"]
    numbers = ("03", "04", "05", "06", "07")
    assert left == ["bridge0", "other0", *(f"veth000000{number}" for number in numbers)]
