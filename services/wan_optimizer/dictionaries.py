"""Trained dictionaries: what small payloads of one kind have in common, known on both sides.

A file is what `zstd --train` writes, or `packetcloud service dictionary train`. Frames name it by a
hash of its content, so two files are never taken for each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from packetcloud.services.errors import ServiceConfigError

MAX_DICTIONARY_BYTES = 1 << 20
"""zstd trains 110 KiB unless told otherwise."""
DEFAULT_TRAINED_BYTES = 64 << 10
MAX_SAMPLES_BYTES = 64 << 20
"""Read into memory at once, by an operator; zstandard learns no more from more."""
MIN_SAMPLES = 8
MIN_SAMPLES_BYTES = 4096
"""Of fewer, zstandard learns nothing, or divides by zero."""


@dataclass(frozen=True, slots=True)
class TrainedDictionary:
    """The content of one file."""

    dictionary_id: int
    """32 bits of its SHA-256."""
    content: zstandard.ZstdCompressionDict


def load_dictionary(path: Path) -> TrainedDictionary:
    """Read a dictionary.

    Raises:
        ServiceConfigError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_DICTIONARY_BYTES + 1)
    except OSError as error:
        raise ServiceConfigError(f"cannot read dictionary {path}: {error.strerror}") from error
    if len(data) > MAX_DICTIONARY_BYTES:
        raise ServiceConfigError(f"dictionary {path} has over {MAX_DICTIONARY_BYTES} bytes")
    try:
        content = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        content.precompute_compress(level=1)  # notices what is damaged
    except (zstandard.ZstdError, ValueError) as error:
        raise ServiceConfigError(
            f"{path} is no trained dictionary: {error}; make one with: "
            "packetcloud service dictionary train FILES -o DICTIONARY"
        ) from None
    return TrainedDictionary(_id_of(data), content)


def train_dictionary(samples: Sequence[bytes], max_bytes: int = DEFAULT_TRAINED_BYTES) -> bytes:
    """Return a dictionary of what the samples have in common.

    Raises:
        ServiceConfigError: there are too few, or they have too little in common.
    """
    if len(samples) < MIN_SAMPLES or sum(map(len, samples)) < MIN_SAMPLES_BYTES:
        raise ServiceConfigError(
            f"{len(samples)} samples of {sum(map(len, samples))} bytes; a dictionary needs "
            f"{MIN_SAMPLES} or more, of {MIN_SAMPLES_BYTES} bytes in all"
        )
    try:
        return zstandard.train_dictionary(max_bytes, list(samples)).as_bytes()
    except zstandard.ZstdError as error:
        raise ServiceConfigError(
            f"cannot train on these {len(samples)} samples, "
            f"{sum(map(len, samples))} bytes: {error}; give more of them, or a smaller --bytes"
        ) from None


def read_samples(files: Iterable[Path], *, lines: bool) -> list[bytes]:
    """Return the content of each file, or each of their lines, as one sample.

    Raises:
        ServiceConfigError: a file cannot be read, or all are more than can be learnt from.
    """
    samples: list[bytes] = []
    left_bytes = MAX_SAMPLES_BYTES
    for path in files:
        try:
            with path.open("rb") as stream:
                data = stream.read(left_bytes + 1)
        except OSError as error:
            raise ServiceConfigError(f"cannot read {path}: {error.strerror}") from error
        left_bytes -= len(data)
        if left_bytes < 0:
            raise ServiceConfigError(
                f"the samples have over {MAX_SAMPLES_BYTES >> 20} MiB: give fewer of them"
            )
        samples += data.splitlines() if lines else [data]
    return [sample for sample in samples if sample]


def _id_of(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
