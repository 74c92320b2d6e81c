"""A vector file and the code that makes it: load, compare, write on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vectors.fields import Fields


@dataclass(frozen=True, slots=True)
class VectorFile:
    """One JSON file of vectors. `build` returns what the code encodes now."""

    path: Path
    build: Callable[[], Fields]

    def load(self) -> Fields:
        """Return the vectors as they stand in the file."""
        document: Fields = json.loads(self.path.read_text("utf-8"))
        return document

    def each(self, section: str) -> pytest.MarkDecorator:
        """Run a test with each vector of a section, as its argument `vector`."""
        vectors = self.load()[section]
        names = [f"{entry.get('kind', section)}: {entry.get('name', '')}" for entry in vectors]
        return pytest.mark.parametrize("vector", vectors, ids=names)

    def main(self, arguments: Sequence[str]) -> int:
        """Compare, or with `--write` write the file; return the exit code."""
        text = json.dumps(self.build(), indent=1, ensure_ascii=False) + "\n"
        if "--write" in arguments:
            self.path.write_text(text, "utf-8")
            return 0
        same = self.path.exists() and self.path.read_text("utf-8") == text
        print(f"{self.path.name}: {'as encoded' if same else 'differs from the code'}")
        return 0 if same else 1
