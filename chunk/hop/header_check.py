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
        burst: int,
        count: int,
    ) -> npt.NDArray[Any]:
        """Return the checks of `count` segments of one transfer in one burst.

        The result, big-endian u4, holds until the next call.
        """
        if count > self._capacity:
            self._grow(count)
        blocks = self._blocks[:count]
        blocks[:, 0] = transfer
        blocks[:, 1] = kind << 26 | body_bytes
        blocks[:, 2] = index
        if flow:
            blocks[:, 2] |= flow << 16
        blocks[:, 3] = burst
        return self._encrypt(count)

    def is_right(self, words: Words) -> npt.NDArray[np.bool_]:
        """Tell for each header, as native 32-bit words, whether its check is right."""
        count = len(words)
        if count > self._capacity:
            self._grow(count)
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
