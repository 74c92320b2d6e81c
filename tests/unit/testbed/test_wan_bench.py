"""`bench wan`: trees that are the same for the same seed, and a report with the figures wanted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from packetcloud.cli import main as cli
from packetcloud.testbed.bench import wan
from packetcloud.testbed.bench.wan import WanPlan, bench_wan
from packetcloud.testbed.experiments.services import WAN, ServiceFigure
from packetcloud.testbed.traffic.trees import edit_tree, make_trees, pack_tree, read_tree
from tests.unit.services.wan_link import edited, text


def quiet(_: str) -> None:
    """Show no progress."""


def test_a_report_has_the_figures_and_says_what_the_trees_are() -> None:
    """Small trees, one pass: sizes are exact, and ours is far below each chunk alone."""
    document = bench_wan(WanPlan(max_bytes=700_000), quiet, 1)
    sizes = document["sizes"]
    assert sizes["ours"] < sizes["zstd_per_chunk"] / 3
    assert document["wan_size_over_zstd_long"] == sizes["ours"] / sizes["zstd_long_with_old"]
    assert "not a real release" in document["trees"]
    (assumed,) = cast(ServiceFigure, WAN).result(document).assumed
    assert "made up" in assumed and "not a real release" in assumed, "the report says it, too"
    small = document["small_messages"]
    assert small["with_dictionary"] < small["alone"] / 2
    assert document["failures"] == []


def test_two_versions_may_be_given(tmp_path: Path) -> None:
    """As a folder and as a compressed archive, whose folder with the version in its name is left
    out: the same files are the same bytes."""
    page = text(30_000)
    (tmp_path / "old" / "a").mkdir(parents=True)
    (tmp_path / "old" / "a" / "b.py").write_bytes(page)
    with tarfile.open(tmp_path / "new.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("thing-2.0/a/b.py")
        member.size = len(page)
        archive.addfile(member, io.BytesIO(page))
    assert read_tree(tmp_path / "old") == read_tree(tmp_path / "new.tar.gz")
    document = bench_wan(WanPlan(tmp_path / "old", tmp_path / "new.tar.gz"), quiet, 1)
    assert document["trees"] == "two versions that were given"
    assert document["notes"] == []
    assert document["sizes"]["ours"] < 300


def test_edits_depend_on_the_seed_alone() -> None:
    """The same seed makes the same version, another one another."""
    tree = {f"{number}.py": text(3000, number) for number in range(40)}
    first = pack_tree(edit_tree(tree, 1))
    assert first == pack_tree(edit_tree(tree, 1)) != pack_tree(edit_tree(tree, 2))
    assert first != pack_tree(tree)
    old, new = make_trees(200_000, 1)
    assert old != new


@pytest.mark.parametrize("level", [3, 19])
def test_the_reference_without_its_command(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library makes about what `zstd` makes."""
    old = text(400_000)
    new = edited(old, 1, 30)
    by_command = wan.zstd_long_bytes(old, new, level)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert 0.5 < wan.zstd_long_bytes(old, new, level) / by_command < 2


def test_one_version_alone_is_a_mistake(tmp_path: Path) -> None:
    """One line that says so."""
    result = CliRunner().invoke(cli.packetcloud, ["bench", "wan", "--old", str(tmp_path)])
    assert result.exit_code == 2
    assert "--old and --new go together" in result.output
