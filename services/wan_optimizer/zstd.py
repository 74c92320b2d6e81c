"""zstandard into given buffers, with what both sides know as its dictionary.

A raw dictionary is bytes that what is compressed may repeat; zstandard itself finds out which.
"""

from __future__ import annotations

from typing import Any

import zstandard

from packetcloud.services.sdk import Buffer
from packetcloud.services.wan_optimizer.framing import DamagedFrameError

MAX_WINDOW_BYTES = 8 << 20
"""zstandard's own memory for one frame; payloads are at most 1 MiB, level 19 uses as much."""
_REFERRING_LOGS = {"window_log": 22, "hash_log": 19, "chain_log": 19}
"""For pieces of history of up to 2 MiB and a payload of 1 MiB: the tables of the lowest levels are
too small to find most of it again."""


class Compressor:
    """Compresses at one level.

    Args:
        dictionary: a trained one.
    """

    def __init__(self, level: int, dictionary: zstandard.ZstdCompressionDict | None = None) -> None:
        options: dict[str, Any] = {} if dictionary is None else {"dict_data": dictionary}
        if dictionary is not None:
            dictionary.precompute_compress(level=level)
            options["write_dict_id"] = False  # our head names it
        # No checksum: the head has a digest.
        self._plain = zstandard.ZstdCompressor(level=level, write_checksum=False, **options)

    def compress_into(self, payload: Buffer, output: memoryview) -> int | None:
        """Write the compressed payload; return its length, None if it does not fit."""
        return _read(self._plain, payload, output)


def refer_into(payload: Buffer, history: bytes, level: int, output: memoryview) -> int | None:
    """Write the payload compressed with `history` to refer to; None if it does not fit."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(payload),
        dict_size=len(history),
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
        **_REFERRING_LOGS,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=_raw(history))
    return _read(compressor, payload, output)


class Decompressor:
    """Restores what `Compressor` made; with the same trained dictionary."""

    def __init__(self, dictionary: zstandard.ZstdCompressionDict | None = None) -> None:
        options: dict[str, Any] = {} if dictionary is None else {"dict_data": dictionary}
        self._plain = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES, **options)

    def restore_into(self, stored: Buffer, output: memoryview, history: bytes = b"") -> None:
        """Fill `output` but for its last byte, which shows whether the frame holds more.

        Raises:
            DamagedFrameError: no frame, or not of that size.
        """
        decompressor = self._plain
        if history:
            decompressor = zstandard.ZstdDecompressor(
                dict_data=_raw(history), max_window_size=MAX_WINDOW_BYTES
            )
        try:
            restored = decompressor.stream_reader(stored).readinto(output)
        except zstandard.ZstdError as error:
            raise DamagedFrameError(f"{error}") from None
        if restored != len(output) - 1:
            raise DamagedFrameError("not the declared size")


def _raw(history: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(history, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _read(compressor: zstandard.ZstdCompressor, payload: Buffer, output: memoryview) -> int | None:
    if not len(output) or not len(payload):  # zstandard 0.25 never returns from an empty source
        return None
    stored = compressor.stream_reader(payload, size=len(payload)).readinto(output)
    return stored if 0 < stored < len(output) else None
