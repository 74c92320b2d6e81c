"""The demonstration in miniature, through the real commands."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from packetcloud.cli.main import main
from packetcloud.testbed.demo.scenario import SCENARIOS, Scenario, Step
from packetcloud.testbed.demo.show import show_demo
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.processes import packetcloud_command

END_S = 20.0

pytestmark = pytest.mark.timeout(300)


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = packetcloud_command("demo", *arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _remaining(folder: Path) -> list[str]:
    """Command lines of processes that were started for a demo in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line:
            found.append(line)
    return found


def _assert_all_ended(folder: Path) -> None:
    deadline = time.monotonic() + END_S
    while _remaining(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _remaining(folder) == []


def test_three_scenarios_deliver_the_file_unaltered(tmp_path: Path) -> None:
    """8 MiB, plain and through both sequences: same SHA-256, sums in balance, all stopped."""
    done = _run(tmp_path, "--bytes", "8MiB", "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "build/demo/report.json").read_text())
    assert report["ok"]
    assert report["file"]["bytes"] == 8 << 20
    steps = [[one["service"] for one in found["services"]] for found in report["scenarios"]]
    assert steps == [
        [],
        ["encrypt", "decrypt"],
        ["compress", "encrypt", "decrypt", "decompress"],
    ]
    for scenario in report["scenarios"]:
        sums = scenario["conservation"]
        assert sums["taken_in"] + sums["originated"] == sums["delivered"]
        assert scenario["received"]["sha256"] == report["file"]["sha256"]
        for service in scenario["services"]:
            assert service["tasks"] >= 8
            assert service["delay_penalty_p99_ms"] > 0
    assert [path.name for path in sorted((tmp_path / "build/demo").iterdir())] == [
        "lock",
        "report.json",
    ]
    _assert_all_ended(tmp_path)


def test_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A given file is sent as it is, and is still there afterwards; the table is printed."""
    own = tmp_path / "mine.bin"
    own.write_bytes(bytes(range(256)) * 4099)
    # The other two are in the report above.
    last = functools.partial(show_demo, scenarios=SCENARIOS[2:])
    monkeypatch.setattr("packetcloud.testbed.demo.show.show_demo", last)
    assert main(["demo", str(own), "--dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "mine.bin" in printed
    assert "decompress" in printed
    assert json.loads((tmp_path / "out/report.json").read_text())["file"]["made_here"] is False
    assert own.read_bytes() == bytes(range(256)) * 4099


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_an_interrupted_demo_stops_everything(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """Router, services and hosts end with it, even if it is killed."""
    command = packetcloud_command("demo", "--bytes", "64MiB")
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not any("host-b.key" in line for line in _remaining(tmp_path)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == exit_code
    finally:
        process.kill()
        process.wait()
    _assert_all_ended(tmp_path)


def test_a_scenario_that_cannot_start_is_reported(tmp_path: Path) -> None:
    """It counts as failed, with the reason; its logs stay."""
    broken = Scenario("broken", (Step("oops", "no-such-service", {}),))
    words: list[str] = []
    report = show_demo(None, 1 << 20, tmp_path, lambda text, *_: words.append(text), [broken])
    assert not report["ok"]
    (found,) = report["scenarios"]
    assert "no-such-service" in found["problems"][0]
    assert any(path.suffix == ".log" for path in (tmp_path / "run").rglob("*"))
    _assert_all_ended(tmp_path)


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one says what to do instead of taking the first one's files away."""

    def tell(words: str, delivered: int | None, size: int) -> None:
        with pytest.raises(TestbedError, match="--dir"):
            show_demo(None, 1024, tmp_path, lambda *_: None, [])

    assert show_demo(None, 1024, tmp_path, tell, [])["ok"]
