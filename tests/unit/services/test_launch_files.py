"""Files that come with a launch."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.services.launch_files import (
    MAX_FILES_COUNT,
    encode_files,
    keep_in_memory,
    paths_in_memory,
    replace_in_memory,
)
from packetcloud.services.secure_communication.key_ring import KeyRing
from packetcloud.services.secure_communication.keys import (
    create_key_file,
    load_key_file,
    rotate_key_file,
)


def _close(paths: dict[str, str]) -> None:
    for path in paths.values():
        os.close(int(path.rpartition("/")[2]))


def test_a_key_file_is_read_as_if_it_lay_there(tmp_path: Path) -> None:
    """Any number of times, and open to its owner alone."""
    create_key_file(tmp_path / "aes.key")
    paths = keep_in_memory(encode_files({"key_file": (tmp_path / "aes.key").read_bytes()}))
    path = Path(paths["key_file"])
    for _ in range(2):
        assert load_key_file(path) == load_key_file(tmp_path / "aes.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    _close(paths)


def test_nobody_changes_a_file() -> None:
    """Neither by the descriptor nor by the path, and nobody lifts that."""
    paths = keep_in_memory(encode_files({"key_file": b"secret"}))
    path = Path(paths["key_file"])
    descriptor = int(path.name)
    for change in (
        lambda: os.write(descriptor, b"x"),
        lambda: os.ftruncate(descriptor, 0),
        lambda: path.write_bytes(b"x"),
        lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(PermissionError):
            change()
    assert path.read_bytes() == b"secret"
    _close(paths)


def test_as_many_as_allowed() -> None:
    files = encode_files({f"p{number}": b"" for number in range(MAX_FILES_COUNT + 1)})
    with pytest.raises(ProtocolError, match=f"{MAX_FILES_COUNT} at most"):
        keep_in_memory(files)
    files.popitem()
    paths = keep_in_memory(files)
    assert len(paths) == MAX_FILES_COUNT
    _close(paths)


@pytest.mark.parametrize("files", [None, [], {"p": 1}, {"p": "no base64!"}, {"p": "AAA"}])
def test_what_is_no_file_is_refused(files: object) -> None:
    """With the error that makes a VI call again, not with a traceback."""
    with pytest.raises(ProtocolError):
        keep_in_memory(files)


def test_a_file_is_replaced_under_its_path(tmp_path: Path) -> None:
    """Whole: who has opened the old one reads that to its end. What is the same stays the file that
    it is, and a file that the launch did not have is left out."""
    paths = keep_in_memory(encode_files({"key_file": b"old", "other": b"same"}))
    found = paths_in_memory({**paths, "suite": "aes-256-gcm", "level": 3})
    assert found == paths
    before = {name: Path(path).stat().st_ino for name, path in paths.items()}
    with Path(paths["key_file"]).open("rb") as reader:
        files = encode_files({"key_file": b"new", "other": b"same", "third": b"x"})
        assert replace_in_memory(found, files) == ["key_file"]
        assert reader.read() == b"old"
    assert Path(paths["key_file"]).read_bytes() == b"new"
    assert Path(paths["other"]).read_bytes() == b"same"
    after = {name: Path(path).stat().st_ino for name, path in paths.items()}
    assert after["key_file"] != before["key_file"] and after["other"] == before["other"]
    with pytest.raises(PermissionError):
        Path(paths["key_file"]).write_bytes(b"x")
    assert not os.get_inheritable(int(Path(paths["key_file"]).name))
    _close(paths)


def test_a_running_service_reads_a_key_that_came_later(tmp_path: Path) -> None:
    """The ring looks at the path that it was launched with."""
    first = create_key_file(tmp_path / "aes.key")
    paths = keep_in_memory(encode_files({"key_file": (tmp_path / "aes.key").read_bytes()}))
    ring = KeyRing(Path(paths["key_file"]), lambda key: key, 0.0, 1e9)
    added = rotate_key_file(tmp_path / "aes.key")
    replace_in_memory(paths, encode_files({"key_file": (tmp_path / "aes.key").read_bytes()}))
    ring.refresh(2.0, 1e9)
    assert ring.in_use == (added.key_id, added) and ring.get(first.key_id, 2.0, 1e9) == first
    _close(paths)


@pytest.mark.parametrize("files", [None, {"key_file": 1}, {"key_file": "AAA"}])
def test_what_is_no_file_replaces_none(files: object) -> None:
    paths = keep_in_memory(encode_files({"key_file": b"old"}))
    with pytest.raises(ProtocolError):
        replace_in_memory(paths, files)
    assert Path(paths["key_file"]).read_bytes() == b"old"
    _close(paths)
