"""A real image: built from Debian's packages, run in real LXD."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.cloudlet.containers import ContainerState, NodeAdapter
from packetcloud.cloudlet.images.store import ImageStore
from packetcloud.testbed.lxd_daemon import LxdDaemon
from tests.node_contract import logged, wait_for
from tests.system.lxd_places import bridges, needs_lxd, place_at, socket_of
from tests.system.vi_image import BUILD_TIMEOUT_S, STORE, vi_image

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]
MAX_FILES = 6000
"""Each costs time at a container's first start."""


def _packetcloud(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packetcloud.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)


def test_an_image_holds_what_runs_services_and_little_else() -> None:
    image = vi_image()
    with tarfile.open(image.path) as archive:
        names = set(archive.getnames())
    packages = "rootfs/usr/local/lib/python3.11/dist-packages"
    assert f"{packages}/packetcloud/services/vi.py" in names
    assert f"{packages}/numpy/__init__.py" in names
    assert "rootfs/usr/bin/tini" in names
    assert f"{packages}/packetcloud/services/__pycache__/vi.cpython-311.pyc" in names
    for lacking in ("cloudlet", "router", "cli", "testbed"):
        assert f"{packages}/packetcloud/{lacking}" not in names
    for lacking in ("apt", "dpkg", "perl", "bash", "mount"):
        assert f"rootfs/usr/bin/{lacking}" not in names
    assert "rootfs/usr/share/doc" not in names
    assert image.files_count < MAX_FILES


def test_a_build_of_equal_inputs_returns_at_once() -> None:
    """The command finds the image that is there; nothing is fetched or made."""
    image = vi_image()
    result = _packetcloud("image", "build", "--store", STORE.folder, "--format", "json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["version"], document["built_now"]) == (image.version, False)
    listed = json.loads(
        _packetcloud("image", "list", "--store", STORE.folder, "--format", "json").stdout
    )
    assert image.version in [one["version"] for one in listed]


def test_a_service_brings_code_and_requirements(tmp_path: Path) -> None:
    """An author's folder lies on the path; the image is another one, of the service's name. What in
    it Python runs when it begins is not run by root while the image is built."""
    base = vi_image()
    made = _packetcloud("service", "new", "echo", "--in", tmp_path)
    assert made.returncode == 0, made.stderr
    (manifest,) = tmp_path.rglob("manifest.toml")
    (manifest.parent / "requirements.txt").write_text("idna\n")
    (manifest.parent / "usercustomize.py").write_text(
        "import os\nopen(f'/tmp/ran-as-{os.geteuid()}', 'w').close()\n"
    )
    result = _packetcloud(
        "image", "build", "--service", manifest, "--store", STORE.folder, "--format", "json"
    )
    assert result.returncode == 0, result.stderr
    image = STORE.get(json.loads(result.stdout)["version"])
    try:
        assert image.version != base.version
        assert "idna" in dict(image.requirements)
        with tarfile.open(image.path) as archive:
            names = archive.getnames()
        assert "rootfs/opt/packetcloud/service/manifest.toml" in names
        assert "rootfs/tmp/ran-as-65534" in names, "a build imports as nobody what a VI imports"
        assert "rootfs/tmp/ran-as-0" not in names
    finally:
        assert (
            _packetcloud("image", "remove", image.version, "--store", STORE.folder).returncode == 0
        )
    assert image.version not in [one.version for one in STORE.images()]


def test_a_killed_build_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle; the store holds no image, and the next build removes the rest."""
    store = ImageStore(tmp_path / "store")
    (store.folder / "parts").mkdir(parents=True)
    for part in (STORE.folder / "parts").iterdir() if vi_image() else ():
        (store.folder / "parts" / part.name).symlink_to(part)
    command = [sys.executable, "-m", "packetcloud.cli", "image", "build", "--store"]
    process = subprocess.Popen([*command, str(store.folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (store.folder / "work" / "rootfs" / "usr" / "bin").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.images() == []
    assert (store.folder / "work").exists()
    with store.locked(lambda text: None) as work:
        assert list(work.iterdir()) == []
    assert not (store.folder / "work").exists()


def test_a_vi_of_the_image_starts_and_calls_its_controller() -> None:
    """In real LXD its init gives itself addresses, gives up root, and looks for the controller."""
    image = vi_image()
    with bridges() as made, LxdDaemon() as daemon:
        result = _packetcloud(
            "image", "import", image.version, "--store", STORE.folder, "--lxd", daemon.socket
        )
        assert result.returncode == 0, result.stderr
        place = place_at(socket_of(daemon), made.site(), image.files())

        async def body(node: NodeAdapter) -> None:
            plain = place.wish()
            environment = {
                "PACKETCLOUD_VI": plain.name,
                "PACKETCLOUD_TOKEN": "token",
                "PACKETCLOUD_CONTROLLER": "198.18.9.200:4710",
                "PACKETCLOUD_DATA_IPV4": str(plain.data.ipv4),
                "PACKETCLOUD_DATA_IPV6": str(plain.data.ipv6),
                "PACKETCLOUD_CONTROL_IPV4": str(plain.control.ipv4),
                "PACKETCLOUD_CONTROL_IPV6": str(plain.control.ipv6),
            }
            limits = replace(plain.limits, memory_mib=192, disk_mib=512)
            wish = replace(plain, environment=environment, limits=limits)
            await node.create(wish)
            await node.start(wish.name)
            await wait_for(lambda: logged(node, wish.name, "198.18.9.200:4710"), 60)
            config = daemon.query(f"/1.0/instances/{wish.name}/state?project=packetcloud")
            assert _users_of(config["pid"]) >= {"1000"}
            await node.stop(wish.name, 5)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}

        place.run(body)


def _users_of(init: int) -> set[str]:
    """Return the users, in the container's numbers, that the children of its init run as."""
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    first = int(Path(f"/proc/{init}/uid_map").read_text().split()[1])
    users = set()
    for child in children:
        status = Path(f"/proc/{child}/status").read_text()
        users.add(str(int(status.split("Uid:")[1].split()[0]) - first))
    return users
