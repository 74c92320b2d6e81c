"""A disk that is full, and one whose power is cut: an ext4 in a file, mounted for the test.

What was acknowledged is there afterwards; writing goes on by itself when there is room again.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packetcloud.domain_controller.state.errors import DiskFullError
from packetcloud.domain_controller.state.failures import Failure
from packetcloud.domain_controller.state.journal import verify
from tests.system.domain_databases import sqlite_url
from tests.system.test_domain_kills import LIMIT_S, check, lines, start
from tests.system.test_domain_writer import adds, names, until, writing

DISK_BYTES = 48 << 20
SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`."""
NO_LOG_FLUSH = 2
"""Nothing that waits in memory gets to the disk: a power cut."""
SEED = 17

pytestmark = [pytest.mark.root, pytest.mark.needs("mkfs.ext4", "mount", "umount", "unshare")]


class Disk:
    """An ext4 in a file, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk"
        self._copies_count = 0
        self.mounted = folder / "mounted"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))

    def mount(self) -> None:
        done = _run("mount", "-o", "loop", str(self.image), str(self.mounted), is_checked=False)
        if done.returncode:
            pytest.skip(f"no loop mount here: {done.stderr.strip()}")

    def unmount(self) -> None:
        _run("umount", str(self.mounted))

    def mount_again(self) -> None:
        """Mount what is on it after its power was cut.

        As a copy: whoever made a mount namespace meanwhile, such as a container that starts, still
        has the old file system, and the same file would give the one that is cut off again.
        """
        self.unmount()
        self._copies_count += 1
        self.image = Path(shutil.copy(self.image, f"{self.image}-{self._copies_count}"))
        self.mount()

    def cut(self) -> None:
        """Cut its power: what was not flushed is gone, and nothing can be written any more."""
        folder = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)

    @contextmanager
    def full(self, left_bytes: int) -> Iterator[None]:
        """Leave so little room."""
        ballast = self.mounted / "ballast"
        status = os.statvfs(self.mounted)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left_bytes)
        yield
        ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    made.mount()
    yield made
    made.unmount()


def test_a_full_disk_loses_nothing_acknowledged(disk: Disk) -> None:
    """Requests are refused with the reason, readers go on; with room again, so do writers."""
    with writing(sqlite_url(disk.mounted)) as (database, writer):
        kept = {writer.do_blocking(adds("first"))}
        with disk.full(left_bytes=1 << 20):
            with pytest.raises(DiskFullError, match=r"full.*nothing was written"):
                for number in range(10_000):
                    kept.add(writer.do_blocking(adds(f"{number}" + 200 * "x")))
            assert names(database) == kept and len(kept) > 1
            with pytest.raises(DiskFullError):
                writer.do_blocking(adds("refused"))
        kept.add(writer.do_blocking(adds("last")))
        assert names(database) == kept
        assert writer.figures.failures[Failure.FULL] >= 2
        with database.reading() as connection:
            assert verify(connection) is None
    with writing(sqlite_url(disk.mounted)) as (database, _):
        assert names(database) == kept


def test_a_power_cut_loses_nothing_acknowledged(disk: Disk, tmp_path: Path) -> None:
    """Under load, three times on one disk, each at another moment; others hold the mount then."""
    chance = random.Random(SEED)
    journal = tmp_path / "journal"
    url = sqlite_url(disk.mounted)
    for life in range(3):
        goal = len(lines(journal)) + chance.randint(20, 300)
        process = start(url, journal, str(life))
        other = subprocess.Popen(["unshare", "--mount", "sleep", str(LIMIT_S)])
        until(lambda goal=goal: len(lines(journal)) >= goal)  # type: ignore[misc]
        disk.cut()
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        disk.mount_again()
        check(url, journal)
        other.kill()
        other.wait()


def test_the_cut_does_lose_what_is_not_flushed(disk: Disk) -> None:
    """Rows that were committed without a flush are gone: else the test above were worth nothing."""
    path = disk.mounted / "loose.sqlite3"
    loose = sqlite3.connect(path, isolation_level=None)
    loose.execute("PRAGMA journal_mode=WAL")
    loose.execute("CREATE TABLE kept (number INTEGER)")
    loose.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.sync()
    loose.execute("PRAGMA synchronous=OFF")
    for number in range(100):
        loose.execute("INSERT INTO kept VALUES (?)", (number,))
    assert loose.execute("SELECT COUNT(*) FROM kept").fetchone() == (100,)
    disk.cut()
    loose.close()
    disk.mount_again()
    again = sqlite3.connect(path)
    (count,) = again.execute("SELECT COUNT(*) FROM kept").fetchone()
    again.close()
    assert count < 100


def _run(*command: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not is_checked, done.stderr
    return done
