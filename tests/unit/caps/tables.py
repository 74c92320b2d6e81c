"""The tables of caps in docs/, made from the registry.

python -m tests.unit.caps.tables      # write them anew, after a cap has changed
"""

from __future__ import annotations

from pathlib import Path

from packetcloud.chunk.caps import Room, limit_text
from packetcloud.chunk.hop.caps import ROOM as HOP
from packetcloud.chunk.streams.caps import ROOM as STREAMS
from packetcloud.cloudlet.caps import ROOM as CLOUDLET
from packetcloud.host.caps import ROOM as HOST
from packetcloud.router.caps import ROOM as ROUTER
from packetcloud.services.caps import ROOM as SERVICES

ROOT = Path(__file__).parents[3]
HEAD = "| what | cap | why | beyond it | counter |\n|---|---|---|---|---|\n"
ROOMS = {
    HOP: (ROOT / "chunk" / "hop", ROOT / "docs" / "protocol" / "hop.md"),
    STREAMS: (ROOT / "chunk" / "streams", ROOT / "docs" / "protocol" / "stream.md"),
    HOST: (ROOT / "host", ROOT / "docs" / "reference" / "host.md"),
    SERVICES: (ROOT / "services", ROOT / "docs" / "reference" / "service-manifest.md"),
    ROUTER: (ROOT / "router", ROOT / "docs" / "reference" / "router.md"),
    CLOUDLET: (ROOT / "cloudlet", ROOT / "docs" / "protocol" / "control-link.md"),
}
"""Where the code of each room is, and the page with the table of its caps."""


def table_of(room: Room) -> str:
    """Return the table of a room's caps."""
    return HEAD + "".join(
        f"| {cap.name} | {limit_text(cap)}{f' (`{cap.setting}`)' if cap.setting else ''} "
        f"| {cap.reason} | {cap.beyond} "
        f"| {cap.counter if '`' in cap.counter else f'`{cap.counter}`'} |\n"
        for cap in room.caps
    )


def table_in(page: Path) -> str:
    """Return the table of caps as the page has it."""
    (_, rest) = page.read_text().split(HEAD)
    rows = []
    for line in rest.splitlines(keepends=True):
        if not line.startswith("|"):
            break
        rows.append(line)
    return HEAD + "".join(rows)


if __name__ == "__main__":
    for room, (_, page) in ROOMS.items():
        page.write_text(page.read_text().replace(table_in(page), table_of(room)))
