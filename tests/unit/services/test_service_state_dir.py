"""Where running services leave their status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import write_private_file
from packetcloud.services.state_dir import StatusFile, default_state_dir, running_services


def test_a_running_service_is_listed_until_it_removes_its_file(tmp_path: Path) -> None:
    """The folder is ours alone, the file too."""
    state_dir = tmp_path / "state"
    file = StatusFile.create(state_dir, "greeter")
    assert state_dir.stat().st_mode & 0o777 == 0o700
    file.write({"service": "greeter", "replicas": []})
    assert file.path.stat().st_mode & 0o777 == 0o600
    (status,) = running_services(state_dir)
    assert (status["service"], status["pid"]) == ("greeter", os.getpid())
    file.remove()
    file.remove()
    assert running_services(state_dir) == []


def test_the_file_of_a_dead_service_is_removed(tmp_path: Path) -> None:
    """Also when its pid belongs to another process by now: the start time differs."""
    file = StatusFile.create(tmp_path / "state", "greeter")
    file.write({"service": "greeter"})
    values = json.loads(file.path.read_text())
    for change in ({"pid_started": 1}, {"pid": 2**22 + 1}):
        file.path.write_text(json.dumps(values | change))
        assert running_services(tmp_path / "state") == []
        assert not file.path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "other", "pid": 1}'])
def test_what_is_not_a_status_file_is_left_alone(tmp_path: Path, content: str) -> None:
    """Neither listed nor removed."""
    folder = tmp_path / "state" / "services"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(content)
    assert running_services(tmp_path / "state") == []
    assert (folder / "x.json").exists()


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """In /tmp somebody else may have made it first."""
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ServiceConfigError, match="open to others"):
        StatusFile.create(tmp_path / "open", "greeter")
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(ServiceConfigError, match="not a folder of this user"):
        StatusFile.create(tmp_path / "link", "greeter")
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceConfigError, match="--state-dir"):
        StatusFile.create(tmp_path / "file", "greeter")


@pytest.mark.parametrize(("uid", "base"), [(0, "/run"), (7, "/tmp")])
def test_the_default_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, uid: int, base: str
) -> None:
    """XDG_RUNTIME_DIR if there is one, else /run for root and /tmp; one per user in any case."""
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_state_dir() == Path(f"/run/user/7/packetcloud-{uid}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_state_dir() == Path(f"{base}/packetcloud-{uid}")


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    """Mode 0600 whatever stood there; no temporary file stays, also not after a failure."""
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o644)
    write_private_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(IsADirectoryError):
        write_private_file(tmp_path, b"a folder")
    assert [item.name for item in tmp_path.iterdir()] == ["f"]
