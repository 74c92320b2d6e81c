"""Chunks that a service emitted, on their way to disk: with durable custody they begin together,
when each has its record, and the chunk that they were made of goes on only then.

Source: docs/decisions/0010; docs/reference/router.md, "Custody".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from packetcloud.router.custody import Custody, Phase
from packetcloud.router.custody_book import CustodyBook

Done = Callable[[str, float], None]
"""Called with why the emitted chunks were not taken, empty if they were, and the time."""


class Emission:
    """What one verdict emitted."""

    __slots__ = ("children", "done", "error", "missing_count", "parent")

    def __init__(self, parent: Custody, children: Sequence[Custody], done: Done) -> None:
        self.parent = parent
        self.children = children
        self.done = done
        self.missing_count = 0
        """Answers of the disk that are still to come."""
        self.error = ""


class Emissions:
    """All that is being written.

    Args:
        begin: called with an emitted chunk that is in custody from now on.
    """

    def __init__(self, book: CustodyBook, begin: Callable[[Custody, float], None]) -> None:
        self._book = book
        self._spool = book.spool
        self._begin = begin
        self._of: dict[Custody, Emission] = {}

    def store(self, parent: Custody, children: Sequence[Custody], done: Done, now: float) -> None:
        """Have `children` written; all of them begin, or none does and `done` hears why."""
        if self._book.is_full(sum(child.size_bytes for child in children)):
            done("no room for what it emitted", now)
            return
        emission = Emission(parent, children, done)
        for child in children:
            assert child.header is not None, "what begins here has its header at hand"
            child.phase = Phase.STORING
            pieces = (bytes(child.header), child.payload)
            if not self._spool.put(child, pieces, now, must_last=True):
                emission.error = "no room on disk for what it emitted"
                break
            self._of[child] = emission
            emission.missing_count += 1
            self._book.pending_bytes += child.size_bytes
        if not emission.missing_count:
            self._end(emission, now)

    def written(self, child: Custody, error: str, now: float) -> bool:
        """Take in what became of a chunk's record; False: it is not of any emission."""
        emission = self._of.pop(child, None)
        if emission is None:
            return False
        self._book.pending_bytes -= child.size_bytes
        emission.missing_count -= 1
        emission.error = emission.error or error
        if not emission.missing_count:
            self._end(emission, now)
        return True

    def _end(self, emission: Emission, now: float) -> None:
        if emission.parent.phase is not Phase.EMITTING or emission.error:
            # Its source is told that the parent ended, or somebody tries again to make them.
            for child in emission.children:
                self._spool.forget(child)
        else:
            for child in emission.children:
                self._book.originate(child)
                self._begin(child, now)
        if emission.parent.phase is Phase.EMITTING:
            emission.done(emission.error, now)
