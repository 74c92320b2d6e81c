"""What the controller keeps: whole transactions, one owner, and plain words when it cannot."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from packetcloud.cloudlet.errors import CloudletConfigError, StoreError
from packetcloud.cloudlet.store import FILE_NAME, FORMAT, Rows, Store

ROWS: Rows = {
    "vi": {"1": {"number": 1, "why": "é"}, "2": {"number": 2, "why": ""}},
    "controller": {"": {"epoch": 3}},
}
WRITER = """
import os, signal, sys
from pathlib import Path
from packetcloud.cloudlet.store import Store

store = Store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    store.save({"pair": {"left": {"n": number}, "right": {"n": number}}})
    os.write(1, b"%d\\n" % number)
    if number == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _reopened(folder: Path) -> Rows:
    store = Store(folder)
    try:
        return store.load()
    finally:
        store.close()


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(ROWS)
    store.close()
    assert _reopened(tmp_path) == ROWS


def test_rows_that_are_gone_are_removed_and_other_kinds_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(ROWS)
    store.save({"vi": {"2": {"number": 2, "why": "later"}}})
    store.close()
    assert _reopened(tmp_path) == {"vi": {"2": {"number": 2, "why": "later"}}} | {
        "controller": ROWS["controller"]
    }


def test_without_a_change_the_disk_is_not_touched(tmp_path: Path) -> None:
    """A status each second of each VI costs no write."""
    store = Store(tmp_path)
    store.save(ROWS)
    before = _changes(store)
    store.save({kind: {key: dict(row) for key, row in rows.items()} for kind, rows in ROWS.items()})
    assert _changes(store) == before
    store.close()


def test_a_killed_controller_leaves_whole_saves(tmp_path: Path) -> None:
    """SIGKILL right after a save: that one is there, and never half of one."""
    for last in (1, 2, 7):
        folder = tmp_path / str(last)
        run = subprocess.run(
            [sys.executable, "-c", WRITER, str(folder), str(last)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert run.returncode == -signal.SIGKILL, run.stderr
        assert _reopened(folder) == {"pair": {"left": {"n": last}, "right": {"n": last}}}


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(CloudletConfigError, match=r"\[cloudlet\] state .*another controller"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


@pytest.mark.parametrize("damage", ["head", "middle", "not json"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    """No traceback and no new beginning: the words say what to do; the lock comes free."""
    store = Store(tmp_path)
    store.save({"vi": {str(number): {"text": "x" * 200} for number in range(200)}})
    store.close()
    path = tmp_path / FILE_NAME
    if damage == "not json":
        database = sqlite3.connect(path)
        database.execute("UPDATE kept SET value = '{' WHERE key = '7'")
        database.commit()
        database.close()
    else:
        offset = 0 if damage == "head" else path.stat().st_size // 2
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * 4096)
    for _ in range(2):
        with pytest.raises(CloudletConfigError, match=rf"{FILE_NAME} is damaged.*--take-over"):
            Store(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute(f"PRAGMA user_version={FORMAT + 1}")
    database.close()
    with pytest.raises(CloudletConfigError, match=f"has format {FORMAT + 1}, this version reads"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloudletConfigError, match=r"\[cloudlet\] state = .*allowed: a folder"):
        Store(tmp_path / "file" / "state")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The error is raised, nothing of the save is written, and with room it goes on."""
    store = Store(tmp_path)
    store.save(ROWS)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")
    large: Rows = {"vi": {str(number): {"text": "x" * 500} for number in range(200)}}
    with pytest.raises(StoreError, match=f"{FILE_NAME}: database or disk is full"):
        store.save(large)
    store._database.execute("PRAGMA max_page_count=100000")
    store.save({"controller": {"": {"epoch": 4}}})
    store.close()
    assert _reopened(tmp_path) == {"vi": ROWS["vi"], "controller": {"": {"epoch": 4}}}


def test_others_cannot_read_the_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    store = Store(folder)
    store.save(ROWS)
    modes = {path.name: path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())}
    assert set(modes.values()) == {0}, modes
    store.close()


def _changes(store: Store) -> int:
    count: int = store._database.execute("SELECT total_changes()").fetchone()[0]
    return count
