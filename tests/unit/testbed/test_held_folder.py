"""Folders that one process at a time uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from packetcloud.testbed.demo.show import show_demo
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.experiments.runs import RunPlan, run_experiments
from packetcloud.testbed.held_folder import hold_folder


def test_a_held_folder_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    """Whoever comes second is told what the caller says, also when who holds it fails."""
    folder = tmp_path / "not" / "there"
    with pytest.raises(KeyboardInterrupt), hold_folder(folder, "lock", "not told"):
        with (
            pytest.raises(TestbedError, match=r"^in use$"),
            hold_folder(folder, "lock", "in use"),
        ):
            pytest.fail("held twice")
        raise KeyboardInterrupt
    with hold_folder(folder, "lock", "in use"):
        pass


def _run_into(folder: Path) -> None:
    run_experiments("test", [], RunPlan(folder), lambda *words: None)


def _show_in(folder: Path) -> None:
    show_demo(None, 1, folder, lambda *words: None, scenarios=[])


@pytest.mark.parametrize(
    ("use", "lock_name", "text"),
    [
        (
            _run_into,
            ".lock",
            "another run writes into {}; wait for it, or choose another with --out",
        ),
        (_show_in, "lock", "another demo runs in {}; wait for it, or choose another with --dir"),
    ],
)
def test_a_run_and_a_demo_have_their_folder_alone(
    tmp_path: Path, use: Callable[[Path], None], lock_name: str, text: str
) -> None:
    """The second one says what to do, and touches nothing; so does who cannot make it."""
    with (
        hold_folder(tmp_path / "used", lock_name, "not told"),
        pytest.raises(TestbedError) as refused,
    ):
        use(tmp_path / "used")
    assert str(refused.value) == text.format(tmp_path / "used")
    assert [path.name for path in (tmp_path / "used").iterdir()] == [lock_name]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TestbedError, match=r"cannot use .*/file: File exists"):
        use(tmp_path / "file")
