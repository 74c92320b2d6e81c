"""Files of services that change while a controller runs."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet import service_files
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.cloudlet.service_files import ServiceFiles
from packetcloud.services.launch_files import MAX_FILES_BYTES, encode_files

CONFIG = """\
[cloudlet]
name = "c1"
state = "state"
[[node]]
isolation = "process"
[[service]]
manifest = "secure-communication"
key = "one.key"
settings = { direction = "encrypt" }
files = { key_file = "keys.json" }
[[service]]
manifest = "secure-communication"
name = "other"
key = "two.key"
settings = { direction = "decrypt" }
files = { key_file = "others.json" }
"""
VI = Vi(1, "secure-communication", "small", "n1", 7, "token", 16)


class Place:
    """A config with two services that have a file each, and which of them were given."""

    def __init__(self, folder: Path) -> None:
        for name in ("one", "two"):
            create_identity_file(folder / f"{name}.key")
        self.file = folder / "keys.json"
        self.file.write_bytes(b"first")
        (folder / "others.json").write_bytes(b"others")
        (folder / "c1.toml").write_text(CONFIG)
        self.launches = ConfiguredLaunches(CloudletConfig.load(folder / "c1.toml"), {})
        self.given: list[str] = []
        self.files = ServiceFiles(self.launches, self.given.append)

    def look(self, times: int = 2) -> list[str]:
        """Look a few times; return the services that were given since."""
        self.given.clear()
        for _ in range(times):
            self.files.look()
        return self.given

    @property
    def content(self) -> object:
        return self.launches.files(VI)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_changed_is_given_once_and_launched_with(place: Place) -> None:
    """A VI that starts later has the same as one that was given it."""
    assert place.look() == []
    place.file.write_bytes(b"second")
    assert place.look() == ["secure-communication"]
    assert place.content == encode_files({"key_file": b"second"})
    assert place.launches.message(VI)["files"] == place.content
    assert place.look(5) == []


def test_a_file_that_is_being_written_is_left_alone(place: Place) -> None:
    """Until it was the same for two looks."""
    place.look()
    for piece in (b"a", b"ab", b"abc"):
        place.file.write_bytes(piece)
        assert place.look(1) == []
    assert place.look(1) == ["secure-communication"]
    assert place.content == encode_files({"key_file": b"abc"})


def test_the_same_content_is_given_to_nobody(place: Place) -> None:
    """Somebody wrote it anew, or changed its times."""
    place.look()
    place.file.write_bytes(b"first")
    assert place.look() == []


def test_what_cannot_go_along_changes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Gone, too large, no file: told once, and the content read before stays."""
    place.look()
    for spoil, words in (
        (place.file.unlink, "No such file"),
        (lambda: place.file.write_bytes(bytes(MAX_FILES_BYTES + 1)), "over the"),
        (lambda: (place.file.unlink(), place.file.mkdir()), "not a file"),
    ):
        caplog.clear()
        spoil()
        with caplog.at_level(logging.ERROR):
            assert place.look(4) == []
        assert caplog.text.count("its VIs keep what they have") == 1 and words in caplog.text
        assert place.content == encode_files({"key_file": b"first"})
    place.file.rmdir()
    place.file.write_bytes(b"again")
    assert place.look() == ["secure-communication"]


def test_a_file_that_could_not_be_read_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it does not change any more; it is told once."""
    place.look()
    place.file.write_bytes(b"second")

    def too_many(*_: object) -> bytes:
        raise CloudletConfigError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(service_files, "content_of", too_many)
        assert place.look(4) == []
    assert caplog.text.count("too many open files") == 1
    assert place.look() == ["secure-communication"]
    assert place.look() == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_a_file_that_cannot_be_looked_at_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Nobody may enter its folder any more, or a server of files has gone: told once."""
    place.look()
    stat = os.stat

    def fails(path: Any, *args: Any, **more: Any) -> Any:
        if path == place.file:
            raise OSError(number, os.strerror(number))
        return stat(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fails)
        assert place.look(4) == []
    assert caplog.text.count("its VIs keep what they have") == 1
    assert os.strerror(number) in caplog.text
    place.file.write_bytes(b"again")
    assert place.look() == ["secure-communication"]
