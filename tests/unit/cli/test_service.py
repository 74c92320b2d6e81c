"""`packetcloud service`: what it prints and the codes it exits with; nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cli.main import main
from packetcloud.services.state_dir import StatusFile


@pytest.fixture
def key(tmp_path: Path) -> str:
    create_identity_file(tmp_path / "key")
    return str(tmp_path / "key")


def test_list_shows_the_bundled_services(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where none runs and the state folder does not exist."""
    assert main(["service", "list", "--state-dir", str(tmp_path / "none")]) == 0
    captured = capsys.readouterr()
    assert "secure-communication" in captured.out
    assert "wan-optimizer" in captured.out
    assert "no service is running" in captured.err


def test_list_shows_what_runs_and_in_which_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row for each VI, from its supervisor's status file."""
    replica = {
        "replica": 0,
        "state": "quarantined",
        "attachment": "waiting",
        "pid": None,
        "restarts": 5,
        "answered": {"update": 3, "drop": 1},
        "last_exit": "killed by SIGSEGV",
    }
    StatusFile.create(tmp_path / "state", "greeter").write(
        {"service": "greeter", "sid": "5e" * 20, "replicas": [replica]}
    )
    arguments = ["service", "list", "--state-dir", str(tmp_path / "state")]
    assert main(arguments) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "greeter" in line]
    assert row.split() == [
        *("greeter", "5e5e5e5e", "0", "quarantined", "no", "-", "5", "4"),
        *("killed", "by", "SIGSEGV"),
    ]
    assert main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["running"][0]["replicas"] == [replica]


def test_a_trial_of_a_pair(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 when everything came back, figures in both forms."""
    arguments = ["service", "test", "wan-optimizer", "--pair", "--count", "2"]
    arguments += ["--chunk-bytes", "5000"]
    assert main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["differing"] == 0
    assert [run["setting"] for run in document["runs"]] == ["compress", "decompress"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "update 2" in captured.out
    assert "0 of 2 chunks" in captured.err


def test_a_trial_that_finds_something_exits_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the second direction refuses what the first one made."""
    data = tmp_path / "data"
    data.write_bytes(bytes(5000))
    arguments = ["service", "test", "wan-optimizer", "--pair", "--input", str(data)]
    assert main([*arguments, "--set", "max_original_bytes=100"]) == 1
    assert "decompression bomb" in capsys.readouterr().out


def test_a_service_is_made_tried_and_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `new` says to try next works."""
    assert main(["service", "new", "hello", "--in", str(tmp_path)]) == 0
    assert "try it: packetcloud service test" in capsys.readouterr().err
    assert main(["service", "test", str(tmp_path / "hello"), "--count", "1"]) == 0
    assert main(["service", "new", "hello", "--in", str(tmp_path)]) == 2


def test_keys_are_made_rotated_and_shown_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids only, the newest last."""
    file = tmp_path / "keys.json"
    assert main(["service", "key", "create", str(file), "--format", "json"]) == 0
    first = json.loads(capsys.readouterr().out)["key_id"]
    assert main(["service", "key", "rotate", str(file), "--format", "json"]) == 0
    second = json.loads(capsys.readouterr().out)["key_id"]
    assert main(["service", "key", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert shown.index(first) < shown.index(second)
    for secret in (item["key"] for item in json.loads(file.read_text())["keys"]):
        assert secret not in shown
    assert main(["service", "key", "create", str(file)]) == 2
    assert "key rotate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["run", "nothing-like-it"], ["no service 'nothing-like-it'", "bundled:"]),
        (["run", "wan-optimizer"], ["'direction' is required", "compress, decompress"]),
        (["run", "wan-optimizer", "--set", "direction=up"], ["'up'", "compress, decompress"]),
        (["run", "wan-optimizer", "--set", "direction"], ["expected KEY=VALUE"]),
        (
            ["run", "wan-optimizer", "--isolation", "none", "--replicas", "2"],
            ["--replicas needs --isolation process"],
        ),
        (
            ["run", "wan-optimizer", "--set", "direction=compress", "--state", "no-such-file"],
            ["keeps no state"],
        ),
        (
            ["run", "wan-optimizer", "--set", "direction=compress", "--router-guid", "12"],
            ["--router-guid 12"],
        ),
    ],
)
def test_what_cannot_run_is_said_in_one_line(
    options: list[str],
    words: list[str],
    key: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, what is wrong, what is allowed; no traceback and no process."""
    arguments = ["service", *options, "--router", "127.0.0.1:1", "--key", key]
    assert main([*arguments, "--state-dir", str(tmp_path / "state")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_wrong_router_address_and_a_missing_key_are_named(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next step stands in the message."""
    run = ["service", "run", "wan-optimizer", "--set", "direction=compress"]
    assert main([*run, "--router", "here", "--key", key]) == 2
    assert "expected HOST:PORT" in capsys.readouterr().err
    assert main([*run, "--router", "h:1", "--key", str(tmp_path / "none")]) == 2
    assert "identity create" in capsys.readouterr().err
