"""The page on security names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file: str, name: str) -> None:
    """Each test that is said to show a defence exists under that name."""
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_defence_names_what_shows_it() -> None:
    """Each row of the tables of defences ends with a test or a benchmark."""
    section = PAGE.split("\n## Defences\n", 1)[1].split("\n## Not defended\n", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    defences = [row for row in rows if not row.startswith("| attack |")]
    assert len(defences) > 20
    for row in defences:
        shown_by = row.strip("|").split(" | ")[-1]
        assert "tests/" in shown_by or "bench" in shown_by, row
