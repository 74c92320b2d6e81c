"""A file that is not whole yet: its content, its journal, its name at the end."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from packetcloud.host.errors import HostError
from packetcloud.host.part_file import (
    DigestMismatchError,
    PartFile,
    PartLabel,
    read_journal,
)
from packetcloud.host.ranges import RangeSet
from tests.unit.host.file_ids import KEY, SOURCE


def test_part_file_writes_in_any_order_and_checks(tmp_path: Path) -> None:
    """Pieces out of order give the file and its digest; a wrong digest leaves nothing behind."""
    data = random.Random(4).randbytes(3_000_000)
    label = PartLabel(SOURCE, KEY, "f.bin", len(data))
    pieces = [(i, memoryview(data)[i : i + 100_000]) for i in range(0, len(data), 100_000)]
    random.Random(5).shuffle(pieces)
    part = PartFile.create(tmp_path, label, "tag")
    ranges = RangeSet()
    for offset, piece in pieces:
        ranges.add(offset, offset + len(piece))
        part.write([(offset, piece)], ranges.end_of_first())
    assert part.finish(hashlib.sha256(data).digest(), overwrite=False) == "f.bin"
    assert (tmp_path / "f.bin").read_bytes() == data
    part.discard()
    wrong = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "g", 3), "tag")
    wrong.write([(0, memoryview(b"abc"))], 3)
    with pytest.raises(DigestMismatchError):
        wrong.finish(bytes(32), overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["f.bin"]


def test_finish_never_overwrites_unless_asked(tmp_path: Path) -> None:
    """A taken name is left alone and the new file gets the next one; `overwrite` replaces."""
    (tmp_path / "f").write_text("old")
    digest = hashlib.sha256(b"new").digest()
    for overwrite, name in [(False, "f-1"), (False, "f-2"), (True, "f")]:
        part = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "f", 3), "tag")
        part.write([(0, memoryview(b"new"))], 3)
        assert part.finish(digest, overwrite) == name
        part.discard()
        assert (tmp_path / name).read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "f-1", "f-2"]


def test_journal_survives_damage(tmp_path: Path) -> None:
    """Any truncation or flip: the ranges read are among the true ones, or the file is refused."""
    part = PartFile.create(tmp_path, PartLabel(SOURCE, KEY, "f", 1000), "tag")
    for end in range(100, 1000, 100):
        part.sync(RangeSet([(0, end)]))
    part.close()
    good = part.journal_path.read_bytes()
    rng = random.Random(6)
    for _ in range(400):
        data = bytearray(good)
        if rng.random() < 0.4:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        part.journal_path.write_bytes(data)
        try:
            label, ranges, digest = read_journal(part.journal_path)
        except HostError:
            continue
        assert label.size_bytes == 1000
        assert RangeSet([(0, 900)]).covers(*next(iter(ranges), (0, 0)))
        assert digest is None


def test_journal_with_a_dangerous_name_is_refused(tmp_path: Path) -> None:
    """A journal is no way to write outside the folder."""
    label = PartLabel(SOURCE, KEY, "f", 10)
    part = PartFile.create(tmp_path, label, "tag")
    part.close()
    object.__setattr__(label, "name", "../evil")
    text = part.journal_path.read_bytes().split(b" ", 1)[1].replace(b'"f"', b'"../evil"')
    import zlib

    part.journal_path.write_bytes(b"%08x %s" % (zlib.crc32(text.rstrip(b"\n")), text))
    with pytest.raises(HostError):
        read_journal(part.journal_path)
