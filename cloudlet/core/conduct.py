"""What becomes of a VI that does what it must not. Source: MobiArch'13 paper, section 3.5."""

from __future__ import annotations

from enum import StrEnum

from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.core.values import ConductPolicy


class Judgement(StrEnum):
    """What follows from a VI's conduct."""

    NONE = "none"
    RESTRICT = "restrict"
    STOP = "stop"


def judge(vi: Vi, violations: int, policy: ConductPolicy, now: float) -> Judgement:
    """Add what the router counted since the last time, and say what follows.

    Args:
        violations: what the router counted since the VI attached.
    """
    news = violations - vi.seen_violations
    vi.seen_violations = violations
    if news < 0:  # the router, or the VI, began anew
        news = violations
    if news:
        vi.offences.append((now, news))
    while vi.offences and vi.offences[0][0] <= now - policy.window_s:
        vi.offences.popleft()
    total = sum(count for _, count in vi.offences)
    if total >= policy.stop_violations:
        return Judgement.STOP
    if total >= policy.restrict_violations and not vi.is_restricted:
        return Judgement.RESTRICT
    return Judgement.NONE
