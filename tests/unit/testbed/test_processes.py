"""CPU between two moments, config files for our daemons, and where a scene puts things."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.router.config import parse_config
from packetcloud.testbed.bench.scene import LOOPBACK_ADDRESS, hop_scene, service_scene
from packetcloud.testbed.daemons import RouterPlan, ServiceEntry, router_config
from packetcloud.testbed.in_namespace import main as in_namespace
from packetcloud.testbed.meter import WHOLE_MACHINE, Meter


class Counting:
    """A child whose CPU time and memory are given, sample by sample."""

    name = "child"

    def __init__(self, cpu_s: list[float]) -> None:
        self._cpu_s = iter(cpu_s)

    def cpu_seconds(self) -> float:
        return next(self._cpu_s)

    def rss_bytes(self) -> int:
        return 1000


def _meter(times: list[float], cpu_s: list[float]) -> Meter:
    child = Counting(cpu_s)
    meter = Meter([child], clock=iter(times).__next__)  # type: ignore[list-item]  # what it needs
    for _ in times:
        meter._take()
    return meter


def test_cpu_between_two_samples_is_interpolated() -> None:
    """A window that begins and ends between samples gets its share of both."""
    meter = _meter([0.0, 1.0, 2.0], [0.0, 1.0, 1.5])
    assert meter.cpu_seconds(0.5, 1.5)["child"] == pytest.approx(0.75)
    assert meter.cpu_seconds(0.0, 2.0)["child"] == pytest.approx(1.5)
    assert meter.cpu_seconds(0.0, 2.0)[WHOLE_MACHINE] >= 0
    assert [rss for _, rss in meter.rss_series("child")] == [1000] * 3


def test_cpu_outside_the_samples_is_not_invented() -> None:
    """A window that reaches beyond the samples counts what was sampled."""
    meter = _meter([1.0, 2.0], [3.0, 4.0])
    assert meter.cpu_seconds(0.0, 9.0)["child"] == pytest.approx(1.0)


def test_a_router_takes_the_config_that_we_write() -> None:
    """Every key of an experiment's config is one that the router knows."""
    sid = "ab" * 20
    plan = RouterPlan(
        ("0.0.0.0", 4700),
        ("127.0.0.1", 0),
        [ServiceEntry(sid, "encrypt", settings={"max_attempts": 7})],
        {"store_bytes": 1 << 26},
    )
    file = parse_config(router_config(plan, "r", Path("/keys/r.key")), "router.toml")
    assert file.router.listen == "0.0.0.0:4700"
    assert file.router.store_bytes == 1 << 26
    found = [(one.sid, one.name, one.max_attempts) for one in file.service]
    assert found == [(sid, "encrypt", 7)]


def test_on_loopback_every_place_is_here() -> None:
    """Without namespaces there is one address, and a function runs where we are."""
    with service_scene(None) as scene:
        assert scene.name == "loopback"
        assert scene.place("vi") is None
        assert scene.address("a", "router") == LOOPBACK_ADDRESS
        assert scene.run_in("b", sum, [1, 2]) == 3
        assert scene.settings_in_force() == []


def test_ports_of_a_scene_differ() -> None:
    """A port in TIME_WAIT from the last run is not met again."""
    with hop_scene(None) as scene:
        assert len({scene.port() for _ in range(4)}) > 1


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["-"], ["-", "1", "--"], ["-", "--", "true"], ["-", "1", "true", "x"]),
        ["-", "1", "--mounts-without", "x"],
        ["-", "1", "--mounts-without", "x", "--"],
    ],
)
def test_the_launcher_says_how_it_is_called(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong call runs nothing."""
    assert in_namespace(arguments) == 2
    assert "usage" in capsys.readouterr().err
