"""What a link mode switches."""

from __future__ import annotations

from packetcloud.testbed.links import GRO, SEGMENTATION, LinkMode


def test_the_three_modes() -> None:
    """Wire: MTU-sized frames that the receiver merges. Bare: not even merged. Else veth's own."""
    assert LinkMode.SUPERFRAME.features == dict.fromkeys(SEGMENTATION, True) | {GRO: False}
    assert LinkMode.WIRE.features == dict.fromkeys(SEGMENTATION, False) | {GRO: True}
    assert LinkMode.BARE.features == dict.fromkeys(SEGMENTATION, False) | {GRO: False}
