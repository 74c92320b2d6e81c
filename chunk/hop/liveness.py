"""Whether the neighbour of a session lives: when it was heard, when it is asked, when it is gone.

Source: docs/protocol/hop.md, "Sessions".
"""

from __future__ import annotations

SUSPECT_TIMEOUT_S = 0.25
"""A neighbour whose host says that its port is closed has this long to answer a probe, or twice as
long as an answer may take on the path, whichever is more."""


class Liveness:
    """Signs of life of one neighbour.

    Args:
        idle_timeout_s: a neighbour that was not heard for so long is gone; so is one that has left
            something unanswered for so long.
        keepalive_s: a neighbour that was not heard for so long is asked.
    """

    def __init__(self, idle_timeout_s: float, keepalive_s: float, now: float) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._keepalive_s = keepalive_s
        self._heard_at = now
        self._asked_at = now
        self.is_suspect = False
        """Its host said that nobody listens, and it was not heard since."""

    def heard(self, now: float) -> None:
        """It lives."""
        self._heard_at = now
        self.is_suspect = False

    def suspect(self, patience_s: float, now: float) -> None:
        """The neighbour's host says that nobody listens: believe it unless it answers soon.

        Args:
            patience_s: how long an answer may take on the path.
        """
        if not self.is_suspect:
            self.is_suspect = True
            self._asked_at = float("-inf")
            answer_s = max(SUSPECT_TIMEOUT_S, 2 * patience_s)
            self._heard_at = min(self._heard_at, now - self._idle_timeout_s + answer_s)

    def is_gone(self, now: float) -> bool:
        """Tell whether it was not heard for too long."""
        return now >= self._heard_at + self._idle_timeout_s

    def is_withholding(self, waiting_since: float | None, now: float) -> bool:
        """Tell whether it has left something unanswered for too long, although it may be heard."""
        return waiting_since is not None and now >= waiting_since + self._idle_timeout_s

    def must_ask(self, now: float) -> bool:
        """Tell whether it is to be asked for a sign of life; whoever is told so asks."""
        if now < max(self._heard_at, self._asked_at) + self._keepalive_s:
            return False
        self._asked_at = now
        return True

    def next_timeout(
        self, waiting_since: float | None, silent_until: float = float("-inf")
    ) -> float:
        """Return when one of these has another answer at the latest.

        Args:
            waiting_since: when the oldest of what it has not answered left; None: nothing is.
            silent_until: nothing may be asked before, unless it is a suspect.
        """
        heard_at = self._heard_at
        ask_at = max(heard_at, self._asked_at) + self._keepalive_s
        if not self.is_suspect:
            ask_at = max(ask_at, silent_until)
        deadline = min(heard_at + self._idle_timeout_s, ask_at)
        if waiting_since is not None:
            deadline = min(deadline, waiting_since + self._idle_timeout_s)
        return deadline
