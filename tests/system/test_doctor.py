"""`packetcloud doctor` on the machine that runs the tests."""

from __future__ import annotations

import json
import subprocess
import sys


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packetcloud.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_doctor_on_this_machine() -> None:
    """It finishes, says nothing on standard error, and finds what runs these tests mandatory-ok."""
    result = _doctor("--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["can_run"] is True
    for finding in document["findings"]:
        assert (finding["state"] == "ok") == (finding["remedy"] == ""), finding


def test_the_table_names_every_finding() -> None:
    """People see in the table what programs see in the JSON."""
    names = [finding["name"] for finding in json.loads(_doctor("--format=json").stdout)["findings"]]
    table = _doctor().stdout
    assert [name for name in names if name not in table] == []
