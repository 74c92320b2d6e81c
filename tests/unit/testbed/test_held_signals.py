"""Signals that come while a topology is taken down: they wait, and nothing is left behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.held_signals import HeldSignals
from packetcloud.testbed.topology import build, keeper
from packetcloud.testbed.topology.graph import Graph


class _AskedToEndError(Exception):
    """SIGTERM came."""


@pytest.fixture
def raising() -> Iterator[None]:
    """SIGTERM raises, as in a keeper."""

    def end(*_: object) -> None:
        raise _AskedToEndError

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("raising")
def test_what_comes_meanwhile_is_done_afterwards() -> None:
    """Once; the control is a signal that nobody holds."""
    with pytest.raises(_AskedToEndError):
        signal.raise_signal(signal.SIGTERM)
    held = HeldSignals()
    held.hold()
    held.hold()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(_AskedToEndError):
        held.release()
    held.release()
    with pytest.raises(_AskedToEndError):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("raising")
def test_a_signal_does_not_cut_the_end_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left an LXD server with its mounts and disk, which nobody knew of any more."""
    ended = []

    class _Containers:
        def __init__(self, *_: object) -> None:
            return

        def close(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            ended.append("servers")

    class _Network:
        def __init__(self, *_: object) -> None:
            self.places: dict[str, Any] = {}

        def make_all(self, tell: build.Tell) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(build, "Containers", _Containers)
    monkeypatch.setattr(build, "Network", _Network)
    monkeypatch.setattr(build, "NetworkLab", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(build, "Children", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(build, "lacking_for_containers", lambda _: None)
    graph = cast(Graph, SimpleNamespace(topology=None))
    with pytest.raises(_AskedToEndError), build.open_network(graph, tmp_path, lambda text: None):
        raise AssertionError("it was never up")
    assert ended == ["servers"]


@pytest.mark.parametrize("left", [[], [Path("/tmp/pclxd-1-2-3")]])
def test_the_record_of_a_topology_stays_while_a_server_does(
    left: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `down` sweeps it, rather than to say that all is down."""
    released = []

    def open_network(*_: object) -> None:
        raise TestbedError("no such device")

    claim = SimpleNamespace(scratch=None, release=lambda: released.append(True))
    for name in ("make_graph", "check_services", "sweep_all"):
        monkeypatch.setattr(keeper, name, lambda *_: None)
    monkeypatch.setattr(keeper, "Topology", SimpleNamespace(load=lambda _: None))
    monkeypatch.setattr(keeper, "claim", lambda _: claim)
    monkeypatch.setattr(keeper, "open_network", open_network)
    monkeypatch.setattr(keeper, "lxd_folders_of", lambda _: left)
    with pytest.raises(TestbedError):
        keeper.keep(Path("net.toml"), "net")
    assert bool(released) is not bool(left)
