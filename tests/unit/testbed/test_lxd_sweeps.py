"""Sweeps of LXD servers that dead experiments left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from packetcloud.testbed import lxd_remains


def test_what_another_sweep_removes_meanwhile_is_nobody_s_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two experiments begin at once, and both find the same folder."""
    for name in ("_remove_filters", "_remove_groups"):
        monkeypatch.setattr(lxd_remains, name, lambda _: None)
    folder = tmp_path / "pclxd-1-2-3"
    # Cannot be read, as one that is gone.
    (folder / "logs" / "vi" / "lxc.conf").mkdir(parents=True)
    (folder / "containers").mkdir()
    there = Path.iterdir

    def list_folder(path: Path) -> Iterator[Path]:
        if path.name == "containers":
            raise FileNotFoundError(path)
        return there(path)

    monkeypatch.setattr(Path, "iterdir", list_folder)
    lxd_remains.clear(folder)
    assert not folder.exists()


@pytest.mark.parametrize("is_placed", [False, True])
def test_what_others_have_is_left_alone(
    is_placed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers of two networks bear the same names: filters and interfaces of a server that was
    in a namespace are not here."""
    removed = []
    monkeypatch.setattr(lxd_remains, "_remove_groups", lambda _: None)
    for name in ("_remove_filters", "_remove_interfaces"):
        monkeypatch.setattr(lxd_remains, name, lambda _, name=name: removed.append(name))
    folder = tmp_path / "pclxd-1-2-3"
    folder.mkdir()
    if is_placed:
        (folder / lxd_remains.PLACED).touch()
    lxd_remains.clear(folder)
    assert len(removed) == (0 if is_placed else 2)
