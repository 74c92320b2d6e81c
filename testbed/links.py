"""Link modes of a veth pair: how large a piece of data passes the link at once.

Source: docs/reference/bench.md, "Link modes"; the features are ethtool's.
"""

from __future__ import annotations

from enum import Enum

from pyroute2.ethtool import Ethtool

from packetcloud.testbed.errors import TestbedError

SEGMENTATION = ("tx-tcp-segmentation", "tx-generic-segmentation", "tx-udp-segmentation")
"""What lets a frame of up to 64 KiB pass in one piece."""
GRO = "rx-gro"
"""What lets the receiving kernel merge frames. A veth has it off until somebody asks."""
REPORTED = (*SEGMENTATION, GRO)


class LinkMode(Enum):
    """How a veth pair treats large frames; set on both of its ends."""

    SUPERFRAME = "superframe"
    """veth's default: up to 64 KiB pass in one piece, which no real link does."""
    WIRE = "wire"
    """Frames of MTU size on the link, merged again by the receiver, as with a plain NIC."""
    BARE = "bare"
    """Frames of MTU size, and the receiver takes each alone."""

    @property
    def features(self) -> dict[str, bool]:
        """The settings that make the mode."""
        large = self is LinkMode.SUPERFRAME
        return dict.fromkeys(SEGMENTATION, large) | {GRO: self is LinkMode.WIRE}


def set_features(device: str, wanted: dict[str, bool]) -> None:
    """Set offload features of `device`, which is in the namespace of the calling thread.

    tx-tcp-segmentation stands for all its variants (IPv6, ECN), as in `ethtool -K dev tso`.

    Raises:
        TestbedError: the kernel did not take one of them.
    """
    tool = Ethtool()
    try:
        features = tool.get_features(device)
        for name, feature in features.features.items():
            for key, value in wanted.items():
                if name == key or (key == SEGMENTATION[0] and _is_tcp_variant(name)):
                    feature.enable = value
        tool.set_features(device, features)
    finally:
        tool.close()
    found = read_features(device)
    refused = [name for name, value in wanted.items() if found.get(name) is not value]
    if refused:
        raise TestbedError(f"the kernel did not change {', '.join(refused)} of {device}")


def read_features(device: str) -> dict[str, bool]:
    """Return the features in force that decide the link mode."""
    tool = Ethtool()
    try:
        features = tool.get_features(device).features
        return {name: bool(features[name].enable) for name in REPORTED if name in features}
    finally:
        tool.close()


def _is_tcp_variant(name: str) -> bool:
    return name.startswith("tx-tcp") and name.endswith("-segmentation")
