"""Files that come with a launch."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.services.launch_files import MAX_FILES_COUNT, encode_files, keep_in_memory
from packetcloud.services.secure_communication.keys import create_key_file, load_key_file


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
