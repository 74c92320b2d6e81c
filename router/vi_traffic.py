"""What went to a VI of the cloudlet's table and came from it, whatever sessions it had.

Counted by the router, outside of the VI: a tenant is charged for it, so it must not depend on what
the VI says of itself. Source: MobiArch'13 paper, section 3.5; docs/reference/cloudlet-table.md.
"""

from __future__ import annotations


class ViTraffic:
    """Counts since the table lists the VI; they never go down while it does.

    A router that starts again counts from zero, under another boot identity.
    """

    __slots__ = ("from_bytes", "from_chunks", "to_bytes", "to_chunks")

    def __init__(self) -> None:
        self.to_chunks = 0
        """Tasks that it was given."""
        self.to_bytes = 0
        """Size of their chunks."""
        self.from_chunks = 0
        """Verdicts that it gave."""
        self.from_bytes = 0
        """Their size, with the chunks in them."""
