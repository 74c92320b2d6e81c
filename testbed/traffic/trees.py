"""Two versions of a source tree, as the bytes that a transfer of them sends.

Real ones are given by folder or archive. Without any, the old one is Python's own library on this
machine, and the new one is the old with edits from a seed: lines taken out, put in, changed and
moved, files that go and come. How much of it changes is the author's guess at a minor release.
"""

from __future__ import annotations

import io
import random
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

DEFAULT_BYTES = 24 << 20
CHANGED_FILES = 0.15
"""Files of which something changes; of a minor release of Django 4.2 about so many do."""
HUNKS = (1, 12)
HUNK_LINES = (1, 10)
GONE_FILES = 0.01

Tree = dict[str, bytes]


def read_tree(path: Path) -> bytes:
    """Return a folder as an uncompressed archive, or an archive without its compression."""
    if path.is_file():
        with tarfile.open(path) as archive:
            members = {
                member.name: found.read()
                for member in archive
                if member.isfile() and (found := archive.extractfile(member)) is not None
            }
        return pack_tree({_inside(name): data for name, data in members.items()})
    return pack_tree({str(file.relative_to(path)): file.read_bytes() for file in _files(path)})


def make_trees(max_bytes: int, seed: int) -> tuple[bytes, bytes]:
    """Return Python's library, up to `max_bytes` of it, and a version that was edited by a seed."""
    root = Path(sysconfig.get_path("stdlib"))
    old: Tree = {}
    for file in _files(root):
        if file.suffix == ".py" and "site-packages" not in file.parts:
            data = file.read_bytes()
            if max_bytes < len(data):
                break
            max_bytes -= len(data)
            old[str(file.relative_to(root))] = data
    return pack_tree(old), pack_tree(edit_tree(old, seed))


def edit_tree(old: Tree, seed: int) -> Tree:
    """Return another version of a tree; the same for the same seed."""
    source = random.Random(seed)
    lines = [
        line for data in old.values() for line in data.splitlines(keepends=True) if len(line) > 20
    ]
    new: Tree = {}
    for name, data in old.items():
        chance = source.random()
        if chance < GONE_FILES:
            continue
        new[name] = _edit(data, lines, source) if chance < CHANGED_FILES else data
        if chance > 1 - GONE_FILES:
            fresh = [
                _reworded(source.choice(lines), source) for _ in range(source.randrange(20, 400))
            ]
            new[name.removesuffix(".py") + "_added.py"] = b"".join(fresh)
    return new


def pack_tree(tree: Tree) -> bytes:
    """Return the files as an archive that depends on their names and contents only."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(tree):
            member = tarfile.TarInfo(name[-99:])
            member.size = len(tree[name])
            archive.addfile(member, io.BytesIO(tree[name]))
    return packed.getvalue()


def _edit(data: bytes, others: list[bytes], source: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    for _ in range(source.randint(*HUNKS)):
        at, count = source.randrange(len(lines) + 1), source.randint(*HUNK_LINES)
        match source.randrange(4):
            case 0:
                del lines[at : at + count]
            case 1:
                lines[at:at] = [_reworded(source.choice(others), source) for _ in range(count)]
            case 2:
                lines[at : at + count] = [
                    _reworded(line, source) for line in lines[at : at + count]
                ]
            case _:
                moved = lines[at : at + count]
                del lines[at : at + count]
                to = source.randrange(len(lines) + 1)
                lines[to:to] = moved
    return b"".join(lines)


def _reworded(line: bytes, source: random.Random) -> bytes:
    """Return a line with some of its words replaced, as an author would write another one."""
    words = line.split(b" ")
    for at in range(len(words)):
        if len(words[at]) > 3 and source.random() < 0.4:
            words[at] = bytes(
                source.choice(b"abcdefghijklmnoprstuvw_") for _ in range(len(words[at]))
            )
    return b" ".join(words).rstrip(b"\n") + b"\n"


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def _inside(name: str) -> str:
    """Return a name without the folder of the version that all of an archive is in."""
    return name.partition("/")[2] or name
