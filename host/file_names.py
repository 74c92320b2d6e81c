"""The name under which a received file is stored: never a path, never hidden, never too long."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

MAX_STORED_BYTES = 200
"""File systems take 255 bytes; the unfinished file's name is the longer by up to 30."""
MAX_TRIES_COUNT = 10_000
"""How many names are tried when a name is taken."""


def stored_name(offered: str) -> str:
    """Turn the sender's name into one that is safe here.

    Only what follows the last slash or backslash counts. Control and formatting characters go (they
    can hide what a name is), leading dots become `_` (hidden files, and our own unfinished ones),
    bytes that are not UTF-8 become `_`, and too long a name loses its middle, not its suffix.
    """
    name = offered.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    kept = []
    for character in unicodedata.normalize("NFC", name):
        category = unicodedata.category(character)
        if category == "Cs":
            kept.append("_")
        elif not category.startswith("C") and category not in ("Zl", "Zp"):
            kept.append(character)
    name = unicodedata.normalize("NFC", "".join(kept)).strip()
    stripped = name.lstrip(".")
    if not stripped:
        return "file"
    name = "_" * bool(len(name) - len(stripped)) + stripped
    return _shortened(name)


def other_names(name: str) -> Iterator[str]:
    """Yield `name`, then `name-1.suffix`, `name-2.suffix` and so on: where a name is taken."""
    yield name
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 20:
        stem, dot, suffix = name, "", ""
    for number in range(1, MAX_TRIES_COUNT):
        yield f"{stem}-{number}{dot}{suffix}"


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_STORED_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > 20:
        stem, dot, suffix = name, "", ""
    room = MAX_STORED_BYTES - len((dot + suffix).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + suffix
