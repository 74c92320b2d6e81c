"""How many rules may name the same: what a question costs depends on that alone.

A flow asks about each rule of its keys, so many rules for one key would make its first chunk wait,
and others behind it: 1 024 take 2 ms where they are not kept; 16 384 are made ready before. Third
parties have half of the places of a key, so that the ISP always finds some: docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np

from packetcloud.router.rules.segment import Segment
from packetcloud.router.rules.store import Held

MAX_RULES_PER_KEY_COUNT = 1024
"""Rules that name the same values of the same fields."""
MAX_UNNAMED_COUNT = 16_384
"""Rules that name no field, and so hold for every flow; only the ISP may have such."""
MAX_THIRD_PARTY_RULES_PER_KEY_COUNT = MAX_RULES_PER_KEY_COUNT // 2
"""Of all third parties: the other places are set aside for the ISP."""
MAX_SIGNER_RULES_PER_KEY_COUNT = MAX_THIRD_PARTY_RULES_PER_KEY_COUNT // 2
"""Of one third party."""
ADVICE = "one rule may have many names and many patterns"


def crowded(
    newest: Segment,
    older: Sequence[Segment],
    withdrawn: Container[int] = frozenset(),
    held: Callable[[Sequence[int]], Held] | None = None,
) -> dict[int, str]:
    """Return the numbers of the rules of `newest` whose key has too many rules, and why each.

    Args:
        withdrawn: do not count.
        held: tells of older rules whose they are; None: those of `newest` are the ISP's.
    """
    numbers: dict[int, str] = {}
    for mask, _, rows in newest.all_rows():
        limit = MAX_RULES_PER_KEY_COUNT if mask else MAX_UNNAMED_COUNT
        if held is not None:
            limit = min(limit, MAX_SIGNER_RULES_PER_KEY_COUNT)
        starts = rows.starts()
        counts = np.diff(np.append(starts, len(rows.hashes)))
        keys = rows.picked(starts)
        totals = counts + sum(one.counts(mask, keys) for one in older)
        for index in np.flatnonzero(totals > limit):
            own = rows.numbers[starts[index] : starts[index] + counts[index]].tolist()
            bits = int(keys.hashes[index]) << 16 | int(keys.extras[index])
            others = [
                number
                for one in older
                for number in one.numbers(mask, bits)
                if number not in withdrawn
            ]
            problem = _problem(mask, len(own), len(others), held(others) if held else None)
            if problem is not None:
                numbers.update(dict.fromkeys(own, problem))
    return numbers


def _problem(mask: int, new: int, others: int, held: Held | None) -> str | None:
    what = "name the same" if mask else "name nothing"
    amounts = [("", others, MAX_RULES_PER_KEY_COUNT if mask else MAX_UNNAMED_COUNT)]
    if held is not None:
        amounts += [
            (" of third parties", held.of_third_parties, MAX_THIRD_PARTY_RULES_PER_KEY_COUNT),
            (" of this signer", held.of_signer, MAX_SIGNER_RULES_PER_KEY_COUNT),
        ]
    for whose, there, limit in reversed(amounts):
        if there + new > limit:
            return f"{there + new} rules{whose} would {what}; allowed: {limit}; {ADVICE}"
    return None
