"""`packetcloud identity create|show`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from packetcloud.cli.main import main


def test_create_then_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `create` prints is what `show` reads; the file is closed to others."""
    file = tmp_path / "host.key"
    assert main(["--format", "json", "identity", "create", str(file)]) == 0
    created = json.loads(capsys.readouterr().out)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["--format", "json", "identity", "show", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == created
    assert len(bytes.fromhex(created["guid"])) == 20
    assert created["file"] == str(file)


def test_the_secret_is_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither command shows the seed, in either format."""
    file = tmp_path / "host.key"
    main(["identity", "create", str(file)])
    for format in ("table", "json"):
        main(["--format", format, "identity", "show", str(file)])
    assert json.loads(file.read_text())["seed"] not in capsys.readouterr().out


def test_a_key_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `create` with the same file is an error and changes nothing."""
    file = tmp_path / "host.key"
    main(["identity", "create", str(file)])
    before = file.read_bytes()
    assert main(["identity", "create", str(file)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_show_says_how_to_make_a_missing_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error for a missing key file names the next step."""
    file = tmp_path / "absent.key"
    assert main(["identity", "show", str(file)]) == 2
    assert f"packetcloud identity create {file}" in capsys.readouterr().err
