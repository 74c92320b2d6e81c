"""Every cap holds: it stops what it bounds, says so, lets others go on, and comes free again.

The caps are those that the rooms declare; each is filled by its filler, and a container in the code
of a room that neither a cap bounds nor the room calls its own fails here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.chunk.caps import Cap, Room
from tests.unit.caps import (  # noqa: F401  # they fill the table
    body_fillers,
    cloudlet_fillers,
    datagram_fillers,
    duplicate_fillers,
    endpoint_fillers,
    file_fillers,
    handshake_fillers,
    ids_fillers,
    keeper_fillers,
    lane_fillers,
    router_fillers,
    rule_fillers,
    services_fillers,
    stream_fillers,
    table_fillers,
    translator_fillers,
)
from tests.unit.caps.containers import containers_of
from tests.unit.caps.filled import FILLERS
from tests.unit.caps.tables import ROOMS, table_in, table_of

EVERY_CAP = [(room, cap) for room in ROOMS for cap in room.caps]


@pytest.mark.parametrize(
    ("room", "cap"), EVERY_CAP, ids=[f"{r.name}-{c.name}" for r, c in EVERY_CAP]
)
def test_a_cap_stops_what_it_bounds(room: Room, cap: Cap) -> None:
    """At the cap nothing is lost, beyond it nothing grows: it is counted, others go on, and what
    was filled comes free."""
    filled = FILLERS[room.name, cap.name]()
    assert filled.cap == cap.limit or (cap.setting and filled.cap < cap.limit)
    assert filled.cap - filled.granularity < filled.at_cap <= filled.cap
    assert filled.counted_at_cap == 0
    assert filled.beyond <= filled.cap
    assert filled.counted_beyond > 0
    assert filled.others_go_on
    assert filled.left == 0


def test_every_filler_has_its_cap() -> None:
    """No filler is left of a cap that is gone."""
    assert set(FILLERS) == {(room.name, cap.name) for room, cap in EVERY_CAP}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_no_container_is_without_a_cap(room: Room) -> None:
    """Whatever can grow has a cap, or the room says why no remote byte makes it grow; and both
    name only what there is."""
    found = containers_of(ROOMS[room][0])
    named = {name for cap in room.caps for name in cap.bounds} | set(room.ours)
    modules = {name for name in named if ":" not in name}
    unnamed = {name for name in found - named if name.split(":")[0] not in modules}
    assert not unnamed, "give each a cap in the room's caps.py, or say there why it needs none"
    gone = {name for name in named - found if ":" in name}
    assert not gone, "the code has no such container"
    assert all(any(name.startswith(f"{module}:") for name in found) for module in modules)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_page_lists_the_caps(room: Room) -> None:
    """The table of the page is the registry: name, number, what happens beyond it, counter."""
    assert table_in(ROOMS[room][1]) == table_of(room), "write it: python -m tests.unit.caps.tables"


def test_a_container_without_a_cap_is_found(tmp_path: Path) -> None:
    """The walk sees every way in which the rooms make containers."""
    (tmp_path / "sample.py").write_text(
        "class Sample:\n"
        "    field: dict[str, int]\n"
        "    maybe: list[int] | None = None\n"
        "    made: deque[int] = field(default_factory=deque)\n"
        "    number: int = 0\n"
        "    def __init__(self):\n"
        "        self.plain = []\n"
        "        self.typed: set[int] = set()\n"
        "        self.called = collections.OrderedDict()\n"
        "        self.keyed = dict.fromkeys('ab')\n"
        "        self.heap = [0 for _ in range(9)]\n"
        "        self.ring = deque(maxlen=9)\n"
        "        self.count = 0\n"
        "        other.thing = []\n"
        "        local = []\n"
    )
    names = ("field", "maybe", "made", "plain", "typed", "called", "keyed", "heap")
    assert containers_of(tmp_path) == {f"sample:Sample.{name}" for name in names}
