"""One crafted datagram in, and out comes exactly what the table says, or silence; and no more.

Source: reference, section 4.4: "frame in, exact reply or silence, state delta".
"""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop import wire
from tests.unit.caps.crafted import BODY_BYTES, CASES, OUTCOMES
from tests.unit.caps.hostile import VICTIM, Hostile, Scene


def meeting() -> tuple[Scene, Hostile]:
    """Return a victim that holds an unfinished transfer 0 and took transfer 1 of its neighbour."""
    scene = Scene()
    hostile = scene.hostile()
    hostile.data(0, BODY_BYTES)
    for index in range(3):
        hostile.data(1, BODY_BYTES, index)
    scene.step(0.05)
    scene.heard.clear()
    scene.victim.dropped.clear()
    return scene, hostile


def standing(scene: Scene, hostile: Hostile) -> dict[str, int]:
    receiver = hostile.theirs.receiver
    return {
        "begun": len(receiver.incoming.transfers),
        "refused": len(receiver.outcomes.refused),
        "taken": len(scene.uppers[VICTIM].bodies),
    }


@pytest.mark.parametrize("name", CASES)
def test_a_crafted_datagram(name: str) -> None:
    """It is counted under its reason, answered as the table says, and changes only what it says;
    the session stays, and others go on."""
    reason, says, changes = OUTCOMES[name]
    scene, hostile = meeting()
    before = standing(scene, hostile)
    held = hostile.theirs.receiver.credit.held_bytes
    hostile.send(CASES[name](hostile))
    after = standing(scene, hostile)
    scene.pump()
    dropped = {key: count for key, count in scene.victim.dropped.items() if count}
    assert dropped == ({reason: 1} if reason else {})
    heard = {datagram[0] & 15 for address, datagram in scene.heard if address == hostile.address}
    assert " ".join(sorted(wire.DatagramType(kind).name for kind in heard)) == says
    assert " ".join(key for key in before if before[key] != after[key]) == changes
    if changes != "begun":
        assert hostile.theirs.receiver.credit.held_bytes == held
    assert hostile.theirs.is_up and len(scene.victim.sessions) == 1
    assert scene.honest_goes_on()


def test_every_case_has_an_outcome() -> None:
    """The table is whole, and large enough to mean something."""
    assert set(CASES) == set(OUTCOMES) and len(CASES) >= 100
    assert sum(bool(reason) for reason, _, _ in OUTCOMES.values()) > 70
