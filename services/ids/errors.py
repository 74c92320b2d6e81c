"""What is wrong with a rule file, an expression, or the work that a chunk asks for."""

from __future__ import annotations

from packetcloud.services.errors import ServiceConfigError


class RuleError(ServiceConfigError):
    """A rule cannot be taken as it is written. Source: docs/reference/ids.md.

    Args:
        at: where in the rule, in characters from its begin.
    """

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at


class RuleFileError(ServiceConfigError):
    """The rule file cannot be read, or has lines that are refused; the text names them."""


class UnreadableFileError(RuleFileError):
    """The rule file cannot be read now, though it may be right: mind its mode and owner, and how
    many files the process may open."""


class EngineError(ServiceConfigError):
    """The engine cannot compile an expression, or all of them together."""


class OverBudgetError(Exception):
    """A chunk has asked for more work than one may; what became of it is the operator's choice."""
