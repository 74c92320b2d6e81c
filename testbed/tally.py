"""A service whose state is how many chunks it has seen: it writes the count before each payload.

One owner after the other counts 1, 2, 3 and so on without a gap. Two at a time, or one that did not
get the state of the one before, count the same twice.
"""

from __future__ import annotations

from pathlib import Path

NAME = "tally"
MANIFEST = """\
manifest = 1
[service]
name = "tally"
version = "1.0.0"
entry_point = "tally_service:Tally"
[parameters.forgets]
type = "boolean"
default = false
summary = "A broken promise: says that it took over a state, and did not."
[behaviour]
fail_policy = "closed"
state = "export"
deadline_ms = 20000
[supervision]
first_delay_s = 0.1
longest_delay_s = 1.0
"""
MODULE = """\
from packetcloud.services.sdk import NetworkService, Verdict


class Tally(NetworkService):
    def start(self, context):
        self.seen = 0
        self.forgets = context.parameters.flag("forgets")

    def process(self, chunk, context):
        self.seen += 1
        return Verdict.update(b"%d " % self.seen + bytes(chunk.payload))

    def export_state(self):
        return b"%d" % self.seen

    def import_state(self, state):
        if not self.forgets:
            self.seen = int(state)
"""


def lay_tally(folder: Path) -> Path:
    """Write the service into `folder`/tally; return that."""
    service = folder / NAME
    service.mkdir()
    (service / "manifest.toml").write_text(MANIFEST)
    (service / "tally_service.py").write_text(MODULE)
    return service


def tallied(payload: bytes) -> tuple[int, bytes]:
    """Return the count and the payload as it was sent.

    Raises:
        ValueError: there is no count.
    """
    count, _, sent = payload.partition(b" ")
    return int(count), sent
