"""The topologies that come with PacketCloud: a file with every key, and examples to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from packetcloud.testbed.errors import TopologyError

_EXAMPLES = Path(__file__).parent / "examples"


def example_names() -> list[str]:
    """Return the names of the examples."""
    return sorted(path.stem for path in _EXAMPLES.glob("*.toml"))


def example_text(name: str) -> str:
    """Return the text of an example."""
    return (_EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")


def sample_text() -> str:
    """Return a file with every key, its default and what it does."""
    return files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def find_topology(name_or_file: str) -> Path:
    """Return the file that is meant: a path, or the name of an example.

    Raises:
        TopologyError: neither.
    """
    path = Path(name_or_file)
    if path.is_file():
        return path
    if name_or_file in example_names():
        return _EXAMPLES / f"{name_or_file}.toml"
    raise TopologyError(
        f"no topology {name_or_file!r}: neither a file nor an example; examples: "
        f"{', '.join(example_names())}; begin with: packetcloud testbed sample > net.toml"
    )
