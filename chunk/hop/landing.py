"""Where the next train is received: right where its body lies, as far as that can be guessed.

The kernel copies into the place of the body in hand; what turns out to be something else, or to be
longer, ends in scratch space behind it and is taken out.

Source: docs/decisions/0006.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from packetcloud.chunk.hop.buffers import ByteArray, FlatBuffer, Store, join_front
from packetcloud.chunk.hop.session import Session

SCRATCH_BYTES = 65_536
"""More than the kernel ever hands over in one piece."""


class LandingPlace:
    """The likely place of the next train, and scratch space."""

    def __init__(self) -> None:
        self.session: Session | None = None
        """Whose data came last; the next is probably of the same body."""
        self._offered: tuple[Store, int] | None = None
        """What the last offer was, if it was not the scratch alone."""
        self._scratch: ByteArray = np.empty(SCRATCH_BYTES, np.uint8)

    @property
    def scratch(self) -> memoryview:
        """Space behind a landing place, for what turns out longer."""
        return self._scratch.data

    def landing(self) -> list[memoryview]:
        """Return where the next train shall be received: its likely place, then scratch space."""
        self._offered = None
        session = self.session
        if session is not None:
            place = session.receiver.incoming.landing()
            if place is not None and place[1] < place[0].capacity:
                self._offered = place
                return [*place[0].landing(place[1]), self._scratch.data]
        return [self._scratch.data]

    def landing_rows(self) -> tuple[ByteArray, int] | None:
        """Return a place for a batch of datagrams, as an array and the bytes of each row."""
        self._offered = None
        session = self.session
        place = session.receiver.incoming.landing() if session is not None else None
        if place is None:
            return None
        rows, row = place
        if isinstance(rows, FlatBuffer) or row >= rows.capacity:
            return None
        self._offered = place
        return rows.bytes[row * rows.stride :], rows.stride

    def landing_run(self) -> tuple[Store, int, int, Any] | None:
        """Return where the trains that end the transfer in hand belong, and who sends them.

        The shell may receive several trains into these rows, one behind the other, as long as each
        is full, and hand them over as one by `HopCore.receive_run`; jumbo datagrams, whose headers
        land apart, by `HopCore.receive_split`.
        """
        session = self.session
        place = session.receiver.incoming.landing_run() if session is not None else None
        if session is None or place is None:
            return None
        return *place, session.peer_address

    def find(self, length: int) -> tuple[ByteArray, tuple[Store, int] | None]:
        """Return where a train of `length` bytes lies that was received into the last offer.

        Returns:
            An array that begins with it, and its place if it lies in rows.
        """
        placed = self._offered
        if placed is None:
            return self._scratch, None
        rows, row = placed
        if isinstance(rows, FlatBuffer):
            return self.join(rows.landing(row), length), None
        array = rows.bytes[row * rows.stride :]
        if length > len(array):
            return self.join([array.data], length), None
        return array, placed

    def join(self, pieces: list[memoryview], length: int) -> ByteArray:
        """Copy a train that lies in `pieces` and behind them in the scratch into one array."""
        return np.frombuffer(join_front([*pieces, self._scratch.data], length), np.uint8)
