"""The demonstration with its services in containers, through the real command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from packetcloud.testbed.lxd_remains import NETWORK_PREFIX, PARENT, PREFIX
from packetcloud.testbed.processes import packetcloud_command
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S, STORE

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]


def test_a_file_through_containers(tmp_path: Path) -> None:
    """4 MiB, plain and through both sequences: unaltered, nothing lost, protections named."""
    options = ["--isolation", "lxd", "--images", STORE.folder, "--bytes", "4MiB"]
    command = packetcloud_command("demo", *options, "--format", "json")
    demo = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, errors = demo.communicate()
    assert demo.returncode == 0, errors
    report = json.loads(out)
    assert report["ok"]
    assert report["isolation"] == "lxd"
    assert any(one["is_active"] for one in report["protections"])
    steps = [[one["service"] for one in found["services"]] for found in report["scenarios"]]
    assert steps == [[], ["encrypt", "decrypt"], ["compress", "encrypt", "decrypt", "decompress"]]
    for scenario in report["scenarios"]:
        assert scenario["received"]["sha256"] == report["file"]["sha256"]
        assert all(service["tasks"] >= 4 for service in scenario["services"])
    assert not Path(f"/sys/class/net/{NETWORK_PREFIX}{demo.pid:x}d").exists()
    assert list(PARENT.glob(f"{PREFIX}-{demo.pid}-*")) == []
