"""`packetcloud config sample|check|caps`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.cli.config import SAMPLES
from packetcloud.cli.main import main


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_sample_is_accepted_by_its_check(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `sample` prints, `check` takes, once the key that it names is there."""
    assert main(["config", "sample", kind]) == 0
    file = tmp_path / "sample.toml"
    file.write_text(capsys.readouterr().out)
    for key in ("r1.key", "wan-optimizer.key"):
        assert main(["identity", "create", str(tmp_path / key)]) == 0
    assert main(["config", "check", kind, str(file)]) == 0


def test_a_mistake_is_named_with_file_table_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong key ends with exit code 2 and one line that says what is allowed."""
    file = tmp_path / "router.toml"
    file.write_text('[router]\nname = "r1"\nkey_file = "r1.key"\nna = 1\nstore_size = 3\n')
    assert main(["config", "check", "router", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"packetcloud: {file}: [router] store_size: unknown key; allowed: ")
    assert "store_bytes" in error
    assert error.count("\n") == 1


def test_a_service_manifest_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest without its required tables is refused by name."""
    file = tmp_path / "manifest.toml"
    file.write_text('manifest = 1\n[service]\nname = "x"\nversion = "1.0.0"\n')
    assert main(["config", "check", "service", str(file)]) == 2
    assert "behaviour" in capsys.readouterr().err


def test_every_cap_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The command lists the caps of all rooms, each with what becomes of what is over."""
    assert main(["config", "caps", "--format", "json"]) == 0
    caps = json.loads(capsys.readouterr().out)["caps"]
    rooms = {"cloudlet", "hop", "host", "router", "services", "streams"}
    assert {cap["room"] for cap in caps} == rooms
    credit = next(cap for cap in caps if cap["name"] == "bodies held for one neighbour")
    assert credit["limit"] == 24 << 20 and credit["text"] == "24 MiB"
    assert all(cap["beyond"] and cap["reason"] and cap["counter"] for cap in caps)
