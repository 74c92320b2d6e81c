"""What compress was told of the caches behind the link, for one history.

A cache is that of one instance of decompress: another replica, or the same after a restart, is
another instance. Only what an instance says it keeps may be referred to, and only so many frames
at a time without hearing from it again: one that is gone costs that many chunks a second try.
Source: docs/decisions/0018-deduplication.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict, deque

from packetcloud.services.wan_optimizer.feedback import Feedback

MAX_INSTANCES = 16
"""Replicas of decompress, and those that were restarted; the one heard longest ago is forgotten."""
MAX_FLOWS = 4096
"""Flows of which it is known where they end; of others a frame refers to nothing."""
MAX_FRAMES = 1024
"""Frames of which it is known which flow they belong to: as many may be under way."""
MAX_UNANSWERED = 32
"""Frames that refer to a cache which has not answered any of them yet."""
FRESH_S = 10.0
"""Not heard for so long: it may have been restarted, and one frame that refers to it tries."""

Flow = bytes


class CacheView:
    """One cache, as it described itself last."""

    __slots__ = ("_ends", "_starts", "heard_at", "number", "unanswered")

    def __init__(self) -> None:
        self.number = -1
        self.heard_at = -math.inf
        self.unanswered: deque[int] = deque(maxlen=MAX_UNANSWERED)
        """Numbers of the frames that refer to it, until a later one is known to be restored."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def holds(self, block: int) -> bool:
        """Tell whether it keeps the block."""
        at = bisect_right(self._starts, block) - 1
        return at >= 0 and block < self._ends[at]

    def may_be_referred_to(self, now: float) -> bool:
        """Tell whether one more frame may count on it."""
        allowed = MAX_UNANSWERED if now - self.heard_at < FRESH_S else 1
        return bool(self._starts) and len(self.unanswered) < allowed

    def told(self, feedback: Feedback, now: float) -> None:
        """Take in what it says."""
        self.number = feedback.number
        self.heard_at = now
        self._starts = [kept.start for kept in feedback.kept]
        self._ends = [kept.stop for kept in feedback.kept]
        while self.unanswered and self.unanswered[0] <= feedback.newest_frame:
            self.unanswered.popleft()


class Peers:
    """All caches that keep blocks of one history."""

    def __init__(self) -> None:
        self._views: OrderedDict[bytes, CacheView] = OrderedDict()
        self._flows: OrderedDict[Flow, bytes] = OrderedDict()
        self._frames: OrderedDict[int, tuple[Flow, CacheView | None]] = OrderedDict()

    def view_of(self, flow: Flow, now: float) -> CacheView | None:
        """Return the cache that a frame of this flow may refer to.

        A flow that is new is taken to go where all others go, if that is one place.
        """
        instance = self._flows.get(flow)
        if instance is None and len(self._views) == 1:
            instance = next(iter(self._views))
        view = self._views.get(instance) if instance is not None else None
        return view if view is not None and view.may_be_referred_to(now) else None

    def sent(self, frame: int, flow: Flow, view: CacheView | None) -> None:
        """Note a frame that is on its way; `view`: what it refers to."""
        if view is not None:
            view.unanswered.append(frame)
        self._frames[frame] = flow, view
        if len(self._frames) > MAX_FRAMES:
            self._frames.popitem(last=False)

    def told(self, feedback: Feedback, now: float) -> CacheView:
        """Take in what a cache says of itself; return what is known of it now."""
        view = self._views.setdefault(feedback.instance, CacheView())
        self._views.move_to_end(feedback.instance)
        if len(self._views) > MAX_INSTANCES:
            self._views.popitem(last=False)
        if feedback.number > view.number:
            view.told(feedback, now)
        known = self._frames.get(feedback.frame)
        if known is None:
            return view
        flow, meant = known
        if feedback.is_lacking and meant is not None and meant is not view:
            meant.heard_at = -math.inf  # it is gone, or its flows went elsewhere
        self._flows[flow] = feedback.instance
        self._flows.move_to_end(flow)
        if len(self._flows) > MAX_FLOWS:
            self._flows.popitem(last=False)
        return view
