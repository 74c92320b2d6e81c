"""The check of DATA headers: all headers of a burst or a train by one call of the cipher.

A header's numbers are one AES block, encrypted under a key that only the two neighbours have; four
bytes of the result travel behind them. So whoever can write into a link but has no key, and what a
bad link makes of a datagram, cannot steer where a share is put: a wrong header passes once in
2^32. The share itself is proven by the tag of the whole body.

Source: docs/protocol/hop.md, "DATA"; docs/decisions/0009.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from packetcloud.chunk.hop.datagrams import DATA_HEADER_WORDS

KEY_BYTES = 16
_BLOCK_BYTES = 16
_KIND = np.uint32(0xF_0000)
"""The body kind in the first word of a header: the low four bits of its second byte."""
_INDEX_COUNT = 1 << 16
_INDICES = np.arange(_INDEX_COUNT, dtype=np.uint32)
_BURST_WORD = DATA_HEADER_WORDS - 2
_CHECK_WORD = DATA_HEADER_WORDS - 1

Words = npt.NDArray[np.uint32]


class HeaderCheck:
    """Makes and compares the checks of one direction under one key."""

    def __init__(self, key: bytes) -> None:
        # ECB has no state and no end: one context serves as long as the key.
        self._encryptor = Cipher(AES(key), ECB()).encryptor()
        self._grow(64)

    def _grow(self, count: int) -> None:
        self._capacity = count
        self._constant = (-1, -1)
        """What stands in the first two columns of all blocks: trains of one transfer share it."""
        self._blocks = np.zeros((count, 4), ">u4")
        self._input = self._blocks.reshape(-1).view(np.uint8).data
        output = np.zeros((count + 1) * _BLOCK_BYTES, np.uint8)
        self._output = output.data
        self._checks = output.view(">u4").reshape(-1, 4)[:, 0]

    def make(
        self,
        kind: int,
        flow: int,
        transfer: int,
        body_bytes: int,
        index: npt.NDArray[Any] | int,
        burst: npt.NDArray[Any] | int,
        count: int,
    ) -> npt.NDArray[Any]:
        """Return the checks of `count` segments of one transfer, in one burst or one of each.

        The result, big-endian u4, holds until the next call.
        """
        if count > self._capacity:
            self._grow(count)
        constant = transfer, kind << 26 | body_bytes
        if constant != self._constant:
            self._constant = constant
            self._blocks[:, :2] = constant
        self._blocks[:count, 2] = index | np.uint32(flow << 16) if flow else index
        self._blocks[:count, 3] = burst
        return self._encrypt(count)

    def is_run_right(self, words: Words) -> bool:
        """Tell whether all checks are right of headers, as native 32-bit words, of consecutive
        segments of one transfer; a third of the time of `is_right`."""
        first = words[0].tolist()
        count, index, body_bytes = len(words), first[5], first[4]
        if body_bytes >> 26 or index + count > _INDEX_COUNT:
            return False
        kind, flow = first[0] >> 16 & 15, first[0] & 0xFFFF
        indices = _INDICES[index : index + count]
        checks = self.make(kind, flow, first[3], body_bytes, indices, words[:, _BURST_WORD], count)
        # A third of the time of `all`, which makes an array of one element.
        return b"\0" not in (checks == words[:, _CHECK_WORD]).tobytes()

    def is_right(self, words: Words) -> npt.NDArray[np.bool_]:
        """Tell for each header, as native 32-bit words, whether its check is right."""
        count = len(words)
        if count > self._capacity:
            self._grow(count)
        self._constant = (-1, -1)
        numbers = words[:, 3:_CHECK_WORD].copy()
        # Numbers beyond what a block has bits for would pass as smaller ones.
        fits = (numbers[:, 1] >> 26 == 0) & (numbers[:, 2] >> 16 == 0)
        numbers[:, 1] |= (words[:, 0] & _KIND) << np.uint32(10)
        numbers[:, 2] |= words[:, 0] << np.uint32(16)
        self._blocks[:count] = numbers
        right: npt.NDArray[np.bool_] = self._encrypt(count) == words[:, _CHECK_WORD]
        both: npt.NDArray[np.bool_] = right & fits
        return both

    def _encrypt(self, count: int) -> npt.NDArray[Any]:
        self._encryptor.update_into(self._input[: count * _BLOCK_BYTES], self._output)
        return self._checks[:count]
