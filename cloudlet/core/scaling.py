"""How many VIs a service should have: between its bounds, by how long chunks wait.

Source: MobiArch'13 paper, section 3.2 (elastic scaling); queue first, since waiting comes before
everything that a service's own figures show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from packetcloud.cloudlet.core.values import ServiceWish


@dataclass(slots=True)
class Load:
    """What was seen of one service, and since when."""

    busy_since: float = math.inf
    """Chunks have been waiting too long since then."""
    calm_since: float = math.inf
    """One VI less would have been enough since then."""
    not_before: float = -math.inf
    """After a change the next one waits until then."""


class Scaling:
    """Decides for each service whether it needs one VI more or less."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}

    def step(
        self,
        service: ServiceWish,
        count: int,
        busy_share: float | None,
        wait_s: float,
        penalty_p99_s: float | None,
        now: float,
    ) -> int:
        """Return how many VIs more the service should have: 1, 0 or -1.

        Args:
            count: how many it should have now; without bounds to move in, nothing changes.
            busy_share: what share of their time its VIs spend with chunks; None: not known.
            wait_s: for how long a chunk has waited, at the router or in the window of a VI.
            penalty_p99_s: its delay penalty; None: not known.
        """
        policy = service.scaling
        load = self._loads.setdefault(service.name, Load())
        is_late = (
            policy.up_penalty_s is not None
            and penalty_p99_s is not None
            and penalty_p99_s > policy.up_penalty_s
        )
        is_busy = wait_s >= policy.up_wait_s or is_late
        load.busy_since = min(load.busy_since, now) if is_busy else math.inf
        # With one VI less the others have its share too.
        is_calm = (
            not is_busy
            and busy_share is not None
            and count > 1
            and busy_share * count / (count - 1) < policy.down_busy_share
        )
        load.calm_since = min(load.calm_since, now) if is_calm else math.inf
        if now < load.not_before:
            return 0
        if count < service.replicas_max and now - load.busy_since >= policy.up_after_s:
            change = 1
        elif count > service.replicas_min and now - load.calm_since >= policy.down_after_s:
            change = -1
        else:
            return 0
        load.busy_since = load.calm_since = math.inf
        load.not_before = now + policy.pause_s
        return change

    def forget(self, service: str) -> None:
        """The service is no longer declared."""
        self._loads.pop(service, None)
