"""Files that are looked at again and again: when one is to be read, and which failure is news."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packetcloud.services.files import WatchedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_text("first")
    return found


def test_a_version_is_read_once(path: Path) -> None:
    """What is there at first is known, unless it is said not to be; gone is a version, too."""
    known, unknown = WatchedFile(path), WatchedFile(path, is_read=False)
    assert not known.is_to_be_read()
    assert unknown.is_to_be_read()
    unknown.taken()
    for change in (lambda: path.write_text("a second one"), lambda: path.chmod(0o600), path.unlink):
        change()
        for file in (known, unknown):
            assert file.is_to_be_read()
            file.taken()
            assert not file.is_to_be_read()


def test_what_failed_is_tried_again_and_told_once(path: Path) -> None:
    """Until the file or the reason is another one; for good, until the file is."""
    file = WatchedFile(path, is_read=False)
    found = []
    for problem in ("too many files", "too many files", "denied"):
        assert file.is_to_be_read()
        found.append(file.failed(problem))
    assert found == [True, False, True]
    path.write_text("a second one")
    assert file.is_to_be_read() and file.failed("denied", is_for_good=True)
    assert not file.is_to_be_read()
    path.write_text("the third one of all")
    assert file.is_to_be_read() and file.failed("denied", is_for_good=True)


def test_what_is_being_written_is_left_alone(path: Path) -> None:
    """Until two looks saw the same."""
    file = WatchedFile(path, is_steady=True)
    for number in range(3):
        path.write_text("x" * number)
        assert not file.is_to_be_read()
    assert file.is_to_be_read()
    file.taken()
    assert not file.is_to_be_read()


def test_another_file_of_the_same_size_and_time_is_another(path: Path) -> None:
    """Moved there in one step, as who replaces a file should."""
    file = WatchedFile(path)
    status = path.stat()
    other = path.with_name("other")
    other.write_text("fresh")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == status.st_size and file.is_to_be_read()
