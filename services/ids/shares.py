"""Who may tell how many alerts: core, `now` comes in.

Of what may be told in a second, one source has a quarter, and one signature of one source a tenth.
Below half of it only those may take who were quiet: so however many make noise, the first alert
of another one is told. What is not told is counted, for each signature and source.

Source: docs/reference/ids.md, "Alerts".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

MAX_SHARES_COUNT = 16_384
"""Sources, and as many signatures of sources; 300 bytes each."""
SOURCE_SHARE = 4
SIGNATURE_SHARE = 10
KEPT_FOR_QUIET = 0.5
KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(slots=True)
class _Share:
    left: float
    filled_at: float
    untold_count: int = 0
    """Since one was told."""

    def fill(self, limit: float, now: float) -> None:
        self.left = min(limit, self.left + max(0.0, now - self.filled_at) * limit)
        self.filled_at = now


class AlertShares:
    """What each source, each of its signatures, and all of them may still tell.

    Args:
        per_s: of all; as many may come at once.
    """

    def __init__(self, per_s: int, max_shares: int = MAX_SHARES_COUNT) -> None:
        self._limit = float(per_s)
        self._source_limit = max(1.0, per_s / SOURCE_SHARE)
        self._signature_limit = max(1.0, per_s / SIGNATURE_SHARE)
        self._max_shares = max_shares
        self._all = _Share(self._limit, 0.0)
        self._sources: OrderedDict[bytes, _Share] = OrderedDict()
        self._signatures: OrderedDict[tuple[Hashable, bytes], _Share] = OrderedDict()
        self.forgotten_count = 0

    def __len__(self) -> int:
        return len(self._signatures)

    def take(self, signature: Hashable, source: bytes, now: float) -> int | None:
        """Return how many of the same were not told since one was; None: nor is this one."""
        of_all, of_source = self._all, self._share(self._sources, source, self._source_limit, now)
        one = self._share(self._signatures, (signature, source), self._signature_limit, now)
        of_all.fill(self._limit, now)
        is_quiet = of_source.left >= self._source_limit
        least = 1.0 if is_quiet else max(1.0, self._limit * KEPT_FOR_QUIET)
        if one.left < 1 or of_source.left < 1 or of_all.left < least:
            one.untold_count += 1
            return None
        for share in (one, of_source, of_all):
            share.left -= 1
        untold, one.untold_count = one.untold_count, 0
        return untold

    def untold(self, most_count: int) -> list[tuple[Hashable, bytes, int]]:
        """Return signatures and sources of which the most was not told since one was."""
        found = [
            (signature, source, share.untold_count)
            for (signature, source), share in self._signatures.items()
            if share.untold_count
        ]
        return sorted(found, key=lambda one: -one[2])[:most_count]

    def _share(
        self, table: OrderedDict[KeyT, _Share], key: KeyT, limit: float, now: float
    ) -> _Share:
        share = table.get(key)
        if share is None:
            if len(table) >= self._max_shares:
                table.popitem(last=False)
                self.forgotten_count += 1
            share = table[key] = _Share(limit, now)
        else:
            table.move_to_end(key)
            share.fill(limit, now)
        return share
