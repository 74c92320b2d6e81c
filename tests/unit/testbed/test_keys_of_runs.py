"""Keys that an experiment made are gone when it ends, also when it fails: results are passed on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.experiments import sealing, sequence
from packetcloud.testbed.experiments.experiment import ExperimentPlan
from packetcloud.testbed.experiments.sealing import OPENSSL, PROCESS, Column, sealing_place
from packetcloud.testbed.topology import experiment
from packetcloud.testbed.topology.experiment import TopologyExperiment
from packetcloud.testbed.topology.model import Topology

NET = """
hosts = ["a", "b"]
routers = ["r"]
[[link]]
nodes = ["a", "r", "b"]
[[load]]
source = "a"
destination = "b"
"""


def _plan(folder: Path) -> ExperimentPlan:
    return ExperimentPlan(folder, True, 1, (PROCESS,), lambda text: None)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_of_a_sealing_place_that_fails_only_logs_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's key, the VI's identity, and whatever lies in folders there."""
    place = tmp_path / "place"

    def fail(*_: object) -> NoReturn:
        assert _files(place) == ["aes.key", "process-openssl.key"], "keys are there meanwhile"
        (place / "router-x").mkdir()
        (place / "router-x" / "router.key").write_text("secret")
        (place / "0-router.log").write_text("why it failed")
        raise ChildError("no router")

    monkeypatch.setattr(sealing, "start_router", fail)
    with (
        pytest.raises(ChildError, match="no router"),
        sealing_place(place, [Column(PROCESS, OPENSSL)], lambda text: None),
    ):
        raise AssertionError("it does not come up")
    assert _files(tmp_path) == ["0-router.log"]


def test_no_key_of_a_sequence_is_among_its_raw_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in a scratch folder, and gone with it."""
    seen: list[Path] = []

    def fail(children: Any, *_: object) -> NoReturn:
        seen.extend(children.directory.rglob("*.key"))
        raise ChildError("no router")

    monkeypatch.setattr(sequence, "start_router", fail)
    with pytest.raises(ChildError, match="no router"):
        sequence.SEQUENCE.run(_plan(tmp_path))
    assert "aes.key" in {path.name for path in seen}
    assert not any(path.exists() for path in seen)
    assert _files(tmp_path) == []


def test_no_key_of_a_topology_is_left_when_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it can."""

    @contextlib.contextmanager
    def fail(graph: object, folder: Path, *_: object) -> Iterator[NoReturn]:
        (folder / "keys").mkdir()
        (folder / "keys" / "r.key").write_text("secret")
        raise ChildError("no namespaces")
        yield

    monkeypatch.setattr(experiment, "open_network", fail)
    file = tmp_path / "net.toml"
    file.write_text(NET)
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(ChildError, match="no namespaces"):
        TopologyExperiment(Topology.load(file)).run(_plan(raw))
    assert _files(raw) == []
