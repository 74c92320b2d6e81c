"""Turns of a topology: its loads begin together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from packetcloud.testbed.topology import measure
from packetcloud.testbed.topology.build import Network
from packetcloud.testbed.topology.tables import LoadTable
from packetcloud.testbed.topology.traffic import LoadResult, LoadTiming


class _Load:
    """Notes what is done with it."""

    def __init__(self, name: str, table: LoadTable, log: list[str]) -> None:
        self.name, self.table, self.log = name, table, log
        log.append(f"{name} is ready")

    def begin(self) -> None:
        self.log.append(f"{self.name} begins")

    def is_over(self) -> bool:
        return True

    def finish(self, began_s: float) -> LoadResult:
        self.log.append(f"{self.name} ends")
        return LoadResult(self.name, self.table)

    def abandon(self) -> None:
        raise AssertionError("nobody interrupted")


def test_no_load_sends_before_all_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the first would have the network for itself while the others start."""
    log: list[str] = []

    def start(*arguments: Any) -> _Load:
        _, _, name, table, *_ = arguments
        return _Load(name, table, log)

    monkeypatch.setattr(measure, "start_load", start)
    topology = SimpleNamespace(links=())
    network = SimpleNamespace(
        folder=tmp_path,
        graph=SimpleNamespace(topology=topology),
        file=SimpleNamespace(service=(), fault=()),
        links={},
        routers={},
        services={},
        guids={},
        settle=lambda: None,
    )
    table = cast(LoadTable, None)
    loads = [(number, f"l{number}", table) for number in (1, 2, 3)]
    timing = LoadTiming(seconds=0.0, warmup_s=0.0)
    result = measure.run_turn(cast(Network, network), 1, loads, timing, 1, lambda text: None)
    assert [one.name for one in result.loads] == ["l1", "l2", "l3"]
    assert log == [f"l{n} {what}" for what in ("is ready", "begins", "ends") for n in (1, 2, 3)]
