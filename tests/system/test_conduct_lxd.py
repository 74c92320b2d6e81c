"""On real LXD: containers that somebody changes, a service that does what it did not declare."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from packetcloud.chunk.capture import read_packets
from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.cloudlet.schemas import ViInfo
from tests.system.lxd_cloudlet import LxdCloudlet, lxd_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]
DECLARED = {
    "inspect.one_in": 1,
    "inspect.snap_bytes": 16,
    "inspect.keep_mib": 1,
    "conduct.restrict_violations": 5,
    "conduct.stop_violations": 1_000_000,
    "conduct.restrict_s": 2.0,
    "conduct.max_restrictions": 1,
}
HARMLESS, LYING = 'verdicts = ["update"]', 'verdicts = ["forward", "drop"]'
"""What the service says of itself; it updates every chunk."""


@pytest.fixture(scope="module")
def cloudlet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LxdCloudlet]:
    """One VI, which every test leaves running, under a service that declares what it does."""
    with lxd_cloudlet(tmp_path_factory.mktemp("conduct"), declared=DECLARED) as made:
        made.until_running()
        _declare(made, HARMLESS)
        yield made


def test_changes_by_hand_are_put_right_or_end_the_vi(cloudlet: LxdCloudlet) -> None:
    """A larger limit is taken back while chunks run; nesting stops the VI, and is gone before an
    operator's restart of it runs."""
    (daemon,) = cloudlet.daemons
    earlier = len(_texts(cloudlet))
    path = f"/1.0/instances/{_vi(cloudlet).container}?project={PROJECT}"

    def config() -> dict[str, str]:
        found: dict[str, str] = daemon.query(path)["config"]
        return {key: one for key, one in found.items() if not key.startswith("volatile.")}

    made = config()
    pid = daemon.query(path.replace("?", "/state?"))["pid"]
    traffic = cloudlet.traffic()
    traffic.start()
    cloudlet.until(lambda: len(traffic.received) > 20)
    daemon.query(path, "PATCH", {"config": {"limits.memory": "3000MiB"}})
    cloudlet.until(lambda: config()["limits.memory"] == made["limits.memory"])
    cloudlet.until(lambda: len(_texts(cloudlet)) > earlier)
    (text,) = _texts(cloudlet)[earlier:]
    assert text.startswith("put right: limits.memory is '3000MiB', wanted")
    before = len(traffic.received)
    cloudlet.until(lambda: len(traffic.received) > before + 20)
    traffic.stop()
    assert traffic.failed == []
    assert daemon.query(path.replace("?", "/state?"))["pid"] == pid
    # LXD's own restrictions would refuse it: whoever owns the node can lift them.
    rules = daemon.query(f"/1.0/projects/{PROJECT}")["config"]
    daemon.query(f"/1.0/projects/{PROJECT}", "PUT", {"config": {**rules, "restricted": "false"}})
    daemon.query(path, "PATCH", {"config": {"security.nesting": "true"}})
    cloudlet.until(lambda: _vi(cloudlet).state == "quarantined")
    assert daemon.query(path)["status"] == "Stopped"
    assert "security.nesting is 'true'" in _vi(cloudlet).why
    assert [text.split(":")[0] for text in _texts(cloudlet)[earlier:]] == ["put right", "stopped"]
    assert cloudlet.ask("vi", "restart", _vi(cloudlet).number)["state"] == "done"
    assert config() == made
    cloudlet.until_running()
    daemon.query(f"/1.0/projects/{PROJECT}", "PUT", {"config": rules})


def test_a_service_that_does_what_it_did_not_declare(cloudlet: LxdCloudlet) -> None:
    """It changes payloads: none gets through. It is restricted for a while, then stopped, with the
    chunks that show it and a capture of them, also for the next controller, until it is let off
    and declares what it does."""
    earlier = len(_texts(cloudlet))
    _declare(cloudlet, LYING)
    traffic = cloudlet.traffic(interval_s=0.05)
    traffic.start()
    cloudlet.until(lambda: _vi(cloudlet).is_restricted)
    cloudlet.until(lambda: _vi(cloudlet).state == "quarantined")
    traffic.stop()
    assert traffic.received == [] and len(traffic.failed) == len(traffic.sent)
    words = ["restricted for 2 s (1 of 1)", "its restriction is over", "stopped"]
    assert [text.split(":")[0] for text in _texts(cloudlet)[earlier:]] == words
    cloudlet.kill_controller()
    cloudlet.start_controller()
    shown = cloudlet.ask("vi", "show", _vi(cloudlet).number)
    assert shown["state"] == "quarantined"
    assert shown["violations"]["payload"] >= 10
    assert shown["evidence"][-1]["kind"] == "payload"
    assert "changes no payload" in shown["evidence"][-1]["text"]
    assert [text.split(":")[0] for text in _texts(cloudlet)[earlier:]] == words
    name = f"tally-{_vi(cloudlet).instance}.pcapng"
    with (cloudlet.folder / "table" / "inspection" / name).open("rb") as capture:
        points = {packet.comment.split(";")[0] for packet in read_packets(capture, name)}
    assert {"task", "verdict"} <= points
    _declare(cloudlet, HARMLESS)
    assert cloudlet.ask("vi", "restart", _vi(cloudlet).number)["state"] == "done"
    cloudlet.until_running()
    assert _vi(cloudlet).restrictions == 0
    traffic = cloudlet.traffic()
    traffic.start()
    cloudlet.until(lambda: len(traffic.received) > 20)
    traffic.stop()


def _declare(cloudlet: LxdCloudlet, verdicts: str) -> None:
    """Have the file say this of the service, until the router has it from the controller."""
    before = _version(cloudlet)
    lines = cloudlet.config_file.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("verdicts")]
    cloudlet.config_file.write_text("\n".join([*kept, verdicts]) + "\n")
    cloudlet.controller.signal(signal.SIGHUP)
    cloudlet.until(lambda: _version(cloudlet) > before)


def _vi(cloudlet: LxdCloudlet) -> ViInfo:
    (vi,) = cloudlet.list_vis()
    return vi


def _texts(cloudlet: LxdCloudlet) -> list[str]:
    return [one.text for one in _vi(cloudlet).record]


def _version(cloudlet: LxdCloudlet) -> int:
    """Return how often the router's table was changed."""
    return int(cloudlet.router.get_json("/v1/cloudlet/table")["version"])
