"""`packetcloud service ids`: what it prints of a rule file, and the codes it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.cli.main import main

RULES = (
    'alert chunk any any -> any any (content:"a"; sid:1;)\n'
    'drop tcp any any -> $SERVERS any (content:"b"; target:src_ip; sid:2;)\n'
)


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0: all is taken, 1: a line is refused, 2: nothing could be read."""
    file = tmp_path / "site.rules"
    assert main(["service", "ids", "check", str(file)]) == 2
    assert f"no rule file {file}" in capsys.readouterr().err
    file.write_text(RULES)
    command = ["service", "ids", "check", str(file), "--format", "json"]
    assert main(command) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["taken"], document["actions"]) == (1, {"alert": 1})
    (refused,) = document["refused"]
    assert (refused["line"], refused["column"]) == (2, 6)
    assert "protocol tcp" in refused["reason"]
    assert main([*command, "--ip-headers", "widen", "--lists", f"SERVERS=[{'ab' * 20}]"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["notes"] == [
        {"line": 2, "text": "protocol tcp read as any"},
        {"line": 2, "text": "target: no effect here"},
    ]
    assert main([*command, "--lists", "SERVERS"]) == 2
    assert "lists: 'SERVERS'; expected NAME=" in capsys.readouterr().err
