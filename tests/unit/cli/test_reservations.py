"""What the commands about reservations show."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cli.main import main
from packetcloud.cli.reservation import places_of
from packetcloud.domain_controller.api.answered import PlaceInfo


def test_a_cloudlet_that_is_away_shows_with_its_time() -> None:
    """Beside the number of VIs; one that is there shows without."""
    here = PlaceInfo(cloudlet="edge-1", count=2)
    away = PlaceInfo(cloudlet="edge-2", count=1, away_since_ms=1_800_000_000_000)
    assert places_of([here, away]) == "edge-1: 2, edge-2: 1 (away since 2027-01-15 08:00:00Z)"


def test_a_domain_controller_is_named_by_host_and_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a router is; until now that ended in an internal error. Nobody listens on port 1."""
    create_identity_file(tmp_path / "key")
    key = str(tmp_path / "key")
    assert main(["reservation", "list", "--key", key, "--url", "127.0.0.1:1"]) == 2
    assert "no domain controller at http://127.0.0.1:1: " in capsys.readouterr().err
    assert main(["reservation", "list", "--key", key, "--url", "banana"]) == 2
    assert "expected HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["short", "x" * 65, "with space"])
def test_a_request_key_says_what_it_may_be(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent, and by the option's name."""
    wish = ["--vi-type", "nano", "--for", "1h", "--key", "none.key"]
    assert main(["reservation", "create", *wish, "--request-key", text]) == 2
    error = capsys.readouterr().err
    assert "'--request-key'" in error
    assert "expected 8 to 64 letters, digits, '-' and '_'" in error
