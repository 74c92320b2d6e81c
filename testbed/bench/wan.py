"""`packetcloud bench wan`: the WAN optimizer on two versions of a tree, and on small messages.

The old version passes first, chunk by chunk as a file transfer sends it, then the new one; counted
is what the new one puts on the link. Beside it, on the same bytes: gzip and zstandard for each
chunk alone, and `zstd --long` with the old version as its dictionary, which sees both whole.
Source: docs/reference/bench.md, "wan".
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import zstandard

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, SID
from packetcloud.services.testing import ProcessResult, ServiceHarness
from packetcloud.services.wan_optimizer.dictionaries import train_dictionary
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.traffic.trees import DEFAULT_BYTES, make_trees, read_tree

CHUNK_BYTES = 1 << 20
GZIP_LEVEL = 6
PEER_LEVEL = 3
"""What `zstd` takes when it is told none."""
AIM = 1.3
_COMPRESS, _DECOMPRESS = SID(b"\xc0" * 20), SID(b"\xd0" * 20)
_SMALL_COUNT = 2000
_CACHE_MIB = 256


@dataclass(frozen=True, slots=True)
class WanPlan:
    """What is measured."""

    old: Path | None = None
    """Folder or archive; without both, made from Python's own library."""
    new: Path | None = None
    max_bytes: int = DEFAULT_BYTES
    """Of a tree that is made."""
    level: int = 3
    """zstandard's, of our service and of each chunk alone."""
    seed: int = 1


def bench_wan(plan: WanPlan, progress: Progress, repeats: int = 3) -> Document:
    """Measure sizes, which are exact, and time of the processor, the median of `repeats`."""
    progress("reading both versions")
    if plan.old is not None and plan.new is not None:
        old, new = read_tree(plan.old), read_tree(plan.new)
        what = "two versions that were given"
    else:
        old, new = make_trees(plan.max_bytes, plan.seed)
        what = "Python's library, and a version of it with edits from a seed: not a real release"
    document = begin_document("wan", Timing(0, 0, repeats), False, ("zstd",))
    document["topology"] = "in memory"
    if plan.old is None or plan.new is None:
        document["notes"].append(f"The new version is made up. The two are {what}.")
    passes = []
    for number in range(1, repeats + 1):
        progress(f"old and new version through both directions, {number} of {repeats}")
        passes.append(_pass(old, new, plan.level))
    progress("peers")
    sizes = {
        "gzip_per_chunk": sum(len(zlib.compress(piece, GZIP_LEVEL)) for piece in _pieces(new)),
        "zstd_per_chunk": _zstd_per_chunk(new, plan.level),
        "zstd_long_with_old": zstd_long_bytes(old, new, PEER_LEVEL),
        "zstd_long_19_with_old": zstd_long_bytes(old, new, 19),
        "ours": passes[0].link_bytes,
        "ours_feedback": passes[0].feedback_bytes,
    }
    document |= {
        "trees": what,
        "seed": plan.seed,
        "chunk_bytes": CHUNK_BYTES,
        "level": plan.level,
        "old_bytes": len(old),
        "new_bytes": len(new),
        "sizes": sizes,
        "first_version_bytes": passes[0].first_bytes,
        "wan_size_over_zstd_long": sizes["ours"] / sizes["zstd_long_with_old"],
        "aim": AIM,
        "compress_ms_per_mib": median(one.compress_ms_per_mib for one in passes),
        "decompress_ms_per_mib": median(one.decompress_ms_per_mib for one in passes),
        "first_compress_ms_per_mib": median(one.first_compress_ms_per_mib for one in passes),
        "small_messages": _small_messages(plan.seed),
        "failures": [],
    }
    return document


@dataclass(frozen=True, slots=True)
class _Pass:
    """Both versions once through compress and decompress."""

    first_bytes: int
    link_bytes: int
    feedback_bytes: int
    first_compress_ms_per_mib: float
    compress_ms_per_mib: float
    decompress_ms_per_mib: float


class Link:
    """Both directions of the service, joined in memory; what comes out must be what went in."""

    def __init__(self, ahead: ServiceHarness, behind: ServiceHarness) -> None:
        self._ahead = ahead
        self._behind = behind
        self._number = 0
        self.link_bytes = 0
        self.feedback_bytes = 0
        self.compress_s = 0.0
        self.decompress_s = 0.0

    def send(self, payload: memoryview) -> None:
        """Pass one payload, and the feedback that it causes."""
        self._number += 1
        begin_s = time.thread_time()
        framed = self._ahead.process(payload, chunk_id=self._number, wants_report=True)
        middle_s = time.thread_time()
        restored = self._behind.process(
            framed.payload, chunk_id=self._number, payload_type=PayloadType.COMPRESSED
        )
        self.compress_s += middle_s - begin_s
        self.decompress_s += time.thread_time() - middle_s
        if restored.payload != payload or restored.payload_type != PayloadType.DATA:
            raise AssertionError(f"chunk {self._number} came back altered: {restored.reason}")
        self.link_bytes += len(framed.payload)
        self._tell(restored)

    def _tell(self, restored: ProcessResult) -> None:
        for chunk in restored.emitted:
            self.feedback_bytes += len(chunk.header.to_bytes()) + len(chunk.payload)
            taken = self._ahead.process(chunk.payload, source=GUID(_DECOMPRESS.value))
            assert taken.code is VerdictCode.DROP, "feedback ends at compress"


def _pass(old: bytes, new: bytes, level: int) -> _Pass:
    shared = {"cache_mib": str(_CACHE_MIB)}
    ahead = {**shared, "direction": "compress", "peer": _DECOMPRESS.hex, "level": str(level)}
    behind = {**shared, "direction": "decompress", "peer": _COMPRESS.hex}
    with (
        ServiceHarness("wan-optimizer", ahead, sid=_COMPRESS) as first,
        ServiceHarness("wan-optimizer", behind, sid=_DECOMPRESS) as second,
    ):
        link = Link(first, second)
        for piece in _pieces(old):
            link.send(piece)
        before = link.link_bytes, link.feedback_bytes, link.compress_s, link.decompress_s
        for piece in _pieces(new):
            link.send(piece)
    new_mib = len(new) / (1 << 20)
    return _Pass(
        before[0],
        link.link_bytes - before[0],
        link.feedback_bytes - before[1],
        before[2] * 1000 / (len(old) / (1 << 20)),
        (link.compress_s - before[2]) * 1000 / new_mib,
        (link.decompress_s - before[3]) * 1000 / new_mib,
    )


def zstd_long_bytes(old: bytes, new: bytes, level: int) -> int:
    """Return how long `zstd --long` makes the new version with the old one as its dictionary.

    By the command if there is one (`--patch-from`, which is that with a window for both), by the
    library else.
    """
    command = shutil.which("zstd")
    log = max(20, (len(old) + len(new)).bit_length())
    if command is None or log > 31:
        return len(_zstd_long(old, new, level, min(log, 31)))
    with TemporaryDirectory() as folder:
        for name, data in (("old", old), ("new", new)):
            Path(folder, name).write_bytes(data)
        arguments = [f"-{level}", f"--long={log}", "--patch-from=old", "new", "-o", "out", "-q"]
        subprocess.run([command, *arguments], cwd=folder, check=True, timeout=600)
        return Path(folder, "out").stat().st_size


def _zstd_long(old: bytes, new: bytes, level: int, log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=log, enable_ldm=True
    )
    history = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=history)
    return compressor.compress(new)


def _zstd_per_chunk(data: bytes, level: int) -> int:
    compressor = zstandard.ZstdCompressor(level=level)
    return sum(len(compressor.compress(piece)) for piece in _pieces(data))


def _small_messages(seed: int) -> Document:
    """Return sizes of small messages: alone, and with a dictionary trained on others like them."""
    source = random.Random(seed)
    learnt = [_message(source) for _ in range(_SMALL_COUNT)]
    messages = [_message(source) for _ in range(_SMALL_COUNT)]
    with TemporaryDirectory() as folder:
        path = Path(folder, "dictionary")
        path.write_bytes(train_dictionary(learnt, 32 << 10))
        return {
            "messages": len(messages),
            "bytes": sum(map(len, messages)),
            "gzip": sum(len(zlib.compress(message, GZIP_LEVEL)) for message in messages),
            "alone": _framed_bytes(messages, {}),
            "with_dictionary": _framed_bytes(messages, {"dictionary": str(path)}),
        }


def _framed_bytes(messages: list[bytes], settings: dict[str, str]) -> int:
    with (
        ServiceHarness("wan-optimizer", {**settings, "direction": "compress"}) as ahead,
        ServiceHarness("wan-optimizer", {**settings, "direction": "decompress"}) as behind,
    ):
        total = 0
        for message in messages:
            framed = ahead.process(message).payload
            came = behind.process(framed, payload_type=PayloadType.COMPRESSED)
            if came.payload != message:
                raise AssertionError("a small message came back altered")
            total += len(framed)
    return total


def _message(source: random.Random) -> bytes:
    """Return a JSON message as a device sends it: the same keys, other values."""
    reading = {
        "device": f"sensor-{source.randrange(500):04d}",
        "time": f"2026-11-{source.randrange(1, 31):02d}T{source.randrange(24):02d}:"
        f"{source.randrange(60):02d}:{source.randrange(60):02d}Z",
        "kind": source.choice(["temperature", "humidity", "pressure", "vibration"]),
        "value": round(source.uniform(-20, 120), 3),
        "unit": source.choice(["celsius", "percent", "hectopascal", "millimetre per second"]),
        "battery": {"volts": round(source.uniform(2.8, 4.2), 2), "charging": source.random() < 0.2},
        "location": {
            "building": source.choice(["north", "south", "annex"]),
            "floor": source.randrange(9),
            "room": f"{source.randrange(400):03d}",
        },
        "tags": source.sample(["hvac", "lab", "critical", "outdoor", "spare", "calibrated"], 3),
    }
    return json.dumps(reading).encode()


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + CHUNK_BYTES] for at in range(0, len(view), CHUNK_BYTES))
