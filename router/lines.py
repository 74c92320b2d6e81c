"""The chunks that wait for one next hop, in a line for each flow, each in the order of arrival.

Some of a line may be on disk: `in_memory` has the others, so that what spills is found at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packetcloud.router.custody import Custody


class Line:
    """One flow's line. `memory_bytes` counts what lies in memory and is not being written."""

    __slots__ = ("entries", "in_memory", "memory_bytes")

    def __init__(self) -> None:
        self.entries: OrderedDict[Custody, None] = OrderedDict()
        self.in_memory: OrderedDict[Custody, None] = OrderedDict()
        self.memory_bytes = 0

    def keep_in_memory(self, entry: Custody) -> None:
        """`entry`, which is in the line, may be spilled from now on."""
        self.in_memory[entry] = None
        self.memory_bytes += entry.size_bytes

    def spare(self, entry: Custody) -> None:
        """`entry` is not to be spilled: it is being written, is on disk, or has left."""
        if entry in self.in_memory:
            del self.in_memory[entry]
            self.memory_bytes -= entry.size_bytes


class Lines:
    """All lines of one next hop, by the label of the flow."""

    __slots__ = ("by_label", "count", "memory_bytes")

    def __init__(self) -> None:
        self.by_label: dict[int, Line] = {}
        self.count = 0
        self.memory_bytes = 0
        """Chunks in the lines whose bytes are not on disk only."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Custody]:
        for line in self.by_label.values():
            yield from line.entries

    def add(self, entry: Custody, *, is_back: bool = False) -> Line:
        """Put a chunk at the end of its flow's line, or back to its place; return the line.

        Its place is at the front, behind those that were taken before it: O(those).
        """
        label = entry.flow.label
        line = self.by_label.get(label)
        if line is None:
            line = self.by_label[label] = Line()
        line.entries[entry] = None
        if is_back:
            older = []
            for other in line.entries:
                if other.serial >= entry.serial:
                    break
                older.append(other)
            for other in (entry, *reversed(older)):
                line.entries.move_to_end(other, last=False)
        self.count += 1
        if not entry.is_spilled:
            self.memory_bytes += entry.size_bytes
        return line

    def remove(self, entry: Custody) -> bool:
        """Take a chunk out; False when it is in no line."""
        label = entry.flow.label
        line = self.by_label.get(label)
        if line is None or entry not in line.entries:
            return False
        del line.entries[entry]
        line.spare(entry)
        self.count -= 1
        if not entry.is_spilled:
            self.memory_bytes -= entry.size_bytes
        if not line.entries:
            del self.by_label[label]
        return True
