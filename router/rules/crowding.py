"""How many rules may name the same: what a question costs depends on that alone.

A flow asks about each rule of its keys, so many rules for one key would make its first chunk wait,
and others behind it: 1 024 take 2 ms where they are not kept; 16 384 are made ready before.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from packetcloud.router.rules.segment import Segment

MAX_RULES_PER_KEY_COUNT = 1024
"""Rules that name the same values of the same fields."""
MAX_UNNAMED_COUNT = 16_384
"""Rules that name no field, and so hold for every flow; only the ISP may have such."""


def crowded(
    newest: Segment, older: Sequence[Segment], withdrawn: Container[int] = frozenset()
) -> list[int]:
    """Return the numbers of the rules of `newest` whose key has too many rules in all.

    The keeper refuses their document.

    Args:
        withdrawn: do not count.
    """
    numbers: set[int] = set()
    for mask, _, rows in newest.all_rows():
        limit = MAX_RULES_PER_KEY_COUNT if mask else MAX_UNNAMED_COUNT
        starts = rows.starts()
        counts = np.diff(np.append(starts, len(rows.hashes)))
        keys = rows.picked(starts)
        totals = counts + sum(one.counts(mask, keys) for one in older)
        for index in np.flatnonzero(totals > limit):
            own = rows.numbers[starts[index] : starts[index] + counts[index]].tolist()
            bits = int(keys.hashes[index]) << 16 | int(keys.extras[index])
            others = [number for one in older for number in one.numbers(mask, bits)]
            if len(own) + sum(number not in withdrawn for number in others) > limit:
                numbers.update(own)
    return sorted(numbers)
