"""What is counted about rules: numbers that the management API reads, by whoever changes rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from packetcloud.router.histogram import LogHistogram


@dataclass(slots=True)
class RuleFigures:
    """Of one router, since it began."""

    version: int = 0
    """In force."""
    active: int = 0
    shadow: int = 0
    suspended: int = 0
    third_party: int = 0
    revoked: int = 0
    revocations: int = 0
    files: int = 0
    """Of which the table in force is made."""
    is_keeper_up: bool = False
    keeper_restarts: int = 0
    uploads: int = 0
    uploads_refused: int = 0
    requests_refused: int = 0
    documents_refused: Counter[str] = field(default_factory=Counter)
    """By reason: whole documents."""
    items_refused: Counter[str] = field(default_factory=Counter)
    revocations_refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    items_accepted: int = 0
    installs: LogHistogram = field(default_factory=LogHistogram)
    """From the whole document to the rules in force."""
    loads: LogHistogram = field(default_factory=LogHistogram)
    """Reading the files of a version, beside the loop."""
