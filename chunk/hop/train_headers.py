"""The headers of a train, looked at all at once: what belongs together in it, and whose it is.

A usual train is one run, consecutive segments of one transfer: that takes one comparison of all its
headers with the first one. Only where it is none are the rows told apart.

Source: docs/protocol/hop.md, "Receiving".
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import numpy as np
import numpy.typing as npt

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.header_check import Words
from packetcloud.chunk.hop.keys import KeyRing

MAX_TRAIN_ROWS = 1024
"""Datagrams looked at in one piece: trains that follow each other into one body are joined."""
BURST_WORD = 6
"""Where a header, as native 32-bit words, has its burst."""

_WORDS = wire.DATA_HEADER_WORDS
_INDEX_WORD = 5
_CHECK_WORD = 7
_steps = np.zeros((MAX_TRAIN_ROWS, _WORDS), np.uint32)
_steps[:, _INDEX_WORD] = np.arange(MAX_TRAIN_ROWS)
_STEPS = _steps.tobytes()
"""What the headers of a train less its first one are when only the index counts up."""


class Origin(Enum):
    """Whose a run of datagrams is."""

    NEIGHBOUR = auto()
    NOBODY = auto()
    """Its check is wrong."""
    ELSEWHERE = auto()
    """It is not DATA of this session."""


def train_words(array: npt.NDArray[Any], count: int, row_bytes: int) -> Words:
    """Return the headers of `count` datagrams in `array`, one every `row_bytes`: (count, 8)."""
    headers: npt.NDArray[Any] = np.ndarray(
        (count, _WORDS), ">u4", array.data, 0, (row_bytes, 4)
    )  # fmt: skip
    return headers.astype(np.uint32)


class TrainHeaders:
    """Looks at the headers of a session's trains.

    Args:
        ring: the keys of their checks; None in an open session.
    """

    def __init__(self, ring: KeyRing | None) -> None:
        self._ring = ring
        self._unsure_words = slice(BURST_WORD, BURST_WORD + 1 if ring is None else _WORDS)
        """Those of a header that change within a run: the burst, and the check if it is one."""

    def is_right_run(self, words: Words) -> bool:
        """Tell whether the headers are of consecutive segments of one transfer, and their checks
        right."""
        if len(words) > 1:
            steps = words - words[0]
            steps[:, self._unsure_words] = 0
            if steps.tobytes() != _STEPS[: len(words) * wire.DATA_HEADER_BYTES]:
                return False
        if self._ring is None:
            return not words[0, _CHECK_WORD]
        keys = self._ring.receive_keys(int(words[0, 0]) >> 20 & 15)
        return keys.check.is_run_right(words)

    def runs(self, words: Words) -> Iterator[tuple[int, int, Origin]]:
        """Yield first row, end and origin of each run of a train whose first header is DATA of this
        session.

        A run ends where transfer, type or size change, the index does not go on, or a right header
        follows a wrong one. The burst number may change inside a run: the kernel joins bursts of a
        sender.
        """
        is_ours = (words[:, 0] >> 24 == wire.DATA_BYTE) & (words[:, 1:3] == words[0, 1:3]).all(1)
        is_right = is_ours.copy()
        is_right[is_ours] = self._right(words[is_ours])
        step = words[1:, :BURST_WORD] - words[:-1, :BURST_WORD]
        step[:, _INDEX_WORD] -= 1
        cut = step.any(axis=1) | (is_right[1:] != is_right[:-1])
        cuts = (np.flatnonzero(cut) + 1).tolist()
        for first, end in zip([0, *cuts], [*cuts, len(words)], strict=True):
            if not is_ours[first]:
                yield first, end, Origin.ELSEWHERE
            else:
                yield first, end, Origin.NEIGHBOUR if is_right[first] else Origin.NOBODY

    def _right(self, words: Words) -> npt.NDArray[np.bool_]:
        """Tell for each header whether its check is right."""
        right: npt.NDArray[np.bool_] = words[:, _CHECK_WORD] == 0
        if self._ring is None:
            return right
        epochs = words[:, 0] >> np.uint32(20) & np.uint32(15)
        right[:] = False
        for epoch in set(epochs.tolist()):
            mine = epochs == epoch
            try:
                keys = self._ring.receive_keys(epoch)
            except ProtocolError:
                continue
            right[mine] = keys.check.is_right(words[mine])
        return right
