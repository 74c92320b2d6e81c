"""What makes a figure one of other code: `testbed run --resume` measures it again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from packetcloud.testbed import machine
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.service_files import fingerprint_of

pytestmark = pytest.mark.needs("git")


def test_new_files_are_changes_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code and manifests, by what is in them; what a run wrote into the tree is none."""
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "old.py").write_text("1\n")
    for words in (("init", "-q"), ("add", "old.py"), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    found = [machine.changes_of_tree()]
    (tmp_path / "result.json").write_text("{}")
    assert machine.changes_of_tree() == found[0] != ""
    (tmp_path / "services" / "new").mkdir(parents=True)
    for name, text in (
        ("new.py", "2"),
        ("new.py", "3"),
        ("services/new/service.toml", ""),
        ("old.py", "4"),
    ):
        (tmp_path / name).write_text(text)
        found.append(machine.changes_of_tree())
    assert len(set(found)) == len(found) == 5


def test_what_a_service_of_a_topology_is_made_of_is_in_its_fingerprint(tmp_path: Path) -> None:
    """Its requirements too; the control is a file that is no part of it."""
    table = SimpleNamespace(manifest="own", files={})
    file = SimpleNamespace(service=[table])
    topology = cast(Topology, SimpleNamespace(text="", folder=tmp_path, file=file))
    (tmp_path / "own").mkdir()
    found = {fingerprint_of(topology)}
    (tmp_path / "own" / "notes.md").write_text("1")
    assert fingerprint_of(topology) in found
    for name in ("service.toml", "service.py", "requirements.txt"):
        (tmp_path / "own" / name).write_text("1")
        found.add(fingerprint_of(topology))
    assert len(found) == 4
