"""The file to send: half of it text from this source tree, half of it random."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from packetcloud.testbed.errors import TestbedError

BLOCK_BYTES = 64 << 10
"""Text and random bytes alternate in blocks of this size, so every chunk has its half of both."""
SEED = 20130813
_TREE = Path(__file__).resolve().parents[2]
_TEXTS = ("*.py", "*.md", "*.toml")
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(text: str) -> int:
    """Read a size such as `256MiB`, `1GiB` or `1000000`.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size; allowed: 256MiB, 1GiB, 1000000")
    return int(float(found[1]) * _UNITS[found[2]])


def make_payload_file(path: Path, size_bytes: int, seed: int = SEED) -> None:
    """Write `size_bytes` bytes; the same ones for the same tree and seed.

    Raises:
        TestbedError: the disk has no room.
    """
    texts, generator = _text_blocks(), random.Random(seed)
    try:
        with path.open("wb") as stream:
            left = size_bytes
            for number in range(-(-size_bytes // BLOCK_BYTES)):
                block = next(texts) if number % 2 == 0 else generator.randbytes(BLOCK_BYTES)
                stream.write(block[:left])
                left -= len(block)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text_blocks() -> Iterator[bytes]:
    """Blocks of the tree's own text, over and over."""
    files = sorted({path for pattern in _TEXTS for path in _TREE.glob(f"*/**/{pattern}")})
    parts = [path.read_bytes() for path in files if not _is_made(path)]
    text = b"\n".join(parts) or b"PacketCloud\n"
    text *= -(-BLOCK_BYTES // len(text))
    starts = range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES)
    return (text[start : start + BLOCK_BYTES] for start in cycle(starts))


def _is_made(path: Path) -> bool:
    """Tell what builds leave behind from what belongs to the tree."""
    folders = path.relative_to(_TREE).parts[:-1]
    return any(name.startswith(".") or name in ("build", "dist") for name in folders)
