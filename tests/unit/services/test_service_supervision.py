"""The supervisor's shell on a fake back-end and a clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.services.isolation import InstanceWatcher
from packetcloud.services.launch import EXIT_FINE, ExitCause, LaunchSpec
from packetcloud.services.state_dir import StatusFile
from packetcloud.services.supervision import STATUS_INTERVAL_S, Supervision
from packetcloud.services.supervisor import RestartPolicy, StopRequested
from tests.unit.services.service_fakes import FakeReactor

SPEC = LaunchSpec("tested", "1.0.0", "x:X", "/k", "h", 1, state_file="/state")


class FakeInstance:
    def __init__(self, spec: LaunchSpec, watcher: InstanceWatcher) -> None:
        self.pid = 4242
        self.spec = spec
        self.watcher = watcher
        self.ends: list[str] = []

    def terminate(self) -> None:
        self.ends.append("terminate")

    def kill(self) -> None:
        self.ends.append("kill")


class FakeIsolation:
    """A back-end whose instances the test reports and ends."""

    name = "fake"
    notice = "a double"

    def __init__(self) -> None:
        self.started: list[FakeInstance] = []
        self.failure: OSError | None = None
        self.is_closed = False

    def start(self, spec: LaunchSpec, watcher: InstanceWatcher) -> FakeInstance:
        if self.failure is not None:
            raise self.failure
        self.started.append(FakeInstance(spec, watcher))
        return self.started[-1]

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """A supervision of some replicas, started."""

    def __init__(self, tmp_path: Path, replicas: int = 1) -> None:
        self.reactor = FakeReactor()
        self.isolation = FakeIsolation()
        self.ended: list[tuple[int, str]] = []
        self.file = StatusFile.create(tmp_path / "state", "tested")
        self.supervision = Supervision(
            self.reactor,
            self.isolation,
            SPEC,
            RestartPolicy(),
            replicas,
            self.file,
            {"service": "tested"},
            lambda code, text: self.ended.append((code, text)),
        )
        self.supervision.start()

    def listed(self) -> Any:
        return json.loads(self.file.path.read_text())["replicas"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_an_instance_reports_reaches_the_status_file(bench: Bench) -> None:
    """At once when its state changes, within a second otherwise."""
    instance = bench.isolation.started[0]
    assert (bench.listed()[0]["state"], bench.listed()[0]["pid"]) == ("starting", 4242)
    instance.watcher.reported({"event": "ready"})
    assert bench.listed()[0]["state"] == "running"
    instance.watcher.reported({"event": "status", "status": {"attachment": "attached"}})
    bench.reactor.advance(STATUS_INTERVAL_S)
    assert bench.listed()[0]["attachment"] == "attached"


@pytest.mark.parametrize(
    "message", [{}, {"event": "status"}, {"event": "status", "status": 3}, {"event": "error"}]
)
def test_a_report_that_makes_no_sense_changes_nothing(bench: Bench, message: Any) -> None:
    """A service that found the pipe can write what it likes into it."""
    bench.isolation.started[0].watcher.reported(message)
    assert bench.listed()[0]["state"] == "starting"


def test_a_crashed_instance_is_started_again_when_its_time_has_come(bench: Bench) -> None:
    """The one timer follows the core."""
    bench.isolation.started[0].watcher.exited(ExitCause(code=1))
    assert (bench.listed()[0]["state"], bench.listed()[0]["pid"]) == ("backing-off", None)
    bench.reactor.advance(0.15)
    assert len(bench.isolation.started) == 2
    assert bench.listed()[0]["restarts"] == 1


def test_a_machine_that_can_start_nothing_is_tried_again(bench: Bench) -> None:
    """No process left: that counts as a crash, and the supervisor goes on."""
    bench.isolation.failure = OSError("Resource temporarily unavailable")
    bench.isolation.started[0].watcher.exited(ExitCause(code=1))
    bench.reactor.advance(0.15)
    assert bench.listed()[0]["restarts"] == 2
    bench.isolation.failure = None
    bench.reactor.advance(0.3)
    assert len(bench.isolation.started) == 2


def test_replicas_are_told_apart_at_the_router_and_on_disk(tmp_path: Path) -> None:
    """Each has its instance number, kept over restarts, and its state file."""
    bench = Bench(tmp_path, replicas=2)
    first, second = bench.isolation.started
    assert first.spec.instance != second.spec.instance
    assert (first.spec.state_file, second.spec.state_file) == ("/state.0", "/state.1")
    first.watcher.exited(ExitCause(code=1))
    bench.reactor.advance(0.15)
    assert bench.isolation.started[2].spec == first.spec


def test_it_finishes_when_the_last_instance_ended(bench: Bench) -> None:
    """Nothing is left: no timer, no status file, nothing kept ready."""
    instance = bench.isolation.started[0]
    instance.watcher.reported({"event": "ready"})
    bench.supervision.handle(StopRequested())
    assert instance.ends == ["terminate"]
    instance.watcher.exited(ExitCause(code=EXIT_FINE))
    assert bench.ended == [(0, "")]
    assert bench.isolation.is_closed
    assert not bench.file.path.exists()
    assert bench.reactor.getDelayedCalls() == []


def test_a_full_disk_does_not_end_a_service(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only its status is out of date, and the log says so."""

    def fail(self: StatusFile, values: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StatusFile, "write", fail)
    bench.isolation.started[0].watcher.reported({"event": "ready"})
    bench.reactor.advance(STATUS_INTERVAL_S)
    assert "No space left on device" in caplog.text
