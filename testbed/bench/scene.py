"""Where a benchmark runs: places joined in a star, as namespaces in a link mode or on loopback."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import (
    BENCHMARK_NETWORK,
    DEFAULT_MTU,
    LARGEST_MTU,
    Namespace,
    NetworkLab,
)
from packetcloud.testbed.peers.tools import free_port

T = TypeVar("T")

LOOPBACK = "loopback"
LOOPBACK_ADDRESS = "127.0.0.1"
_FIRST_PORT = 20_000


class Scene:
    """A star: `centre` has a link to every leaf, and the leaves reach each other through it.

    Args:
        mode: link mode of all links; None puts every place on this machine's loopback.
        leaves: MTU of the link to each leaf.
    """

    def __init__(self, mode: LinkMode | None, centre: str, leaves: Mapping[str, int]) -> None:
        self.mode = mode
        self.centre = centre
        self.leaves = dict(leaves)
        self._lab = NetworkLab() if mode is not None else None
        self._places: dict[str, Namespace] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        self._ports = itertools.count(_FIRST_PORT)

    @property
    def name(self) -> str:
        """The mode's key in the report."""
        return self.mode.value if self.mode is not None else LOOPBACK

    @property
    def is_loopback(self) -> bool:
        return self._lab is None

    def __enter__(self) -> Self:
        if self._lab is not None:
            self._lab.__enter__()
            try:
                self._build(self._lab)
            except BaseException:  # Ctrl-C too: `__exit__` is not called for this
                self._lab.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lab is not None:
            self._lab.close()

    def place(self, role: str) -> Namespace | None:
        """The namespace of `role`; None on loopback."""
        return self._places.get(role)

    def address(self, role: str, towards: str) -> str:
        """The address that `role` has on its link to `towards`."""
        return self._addresses.get((role, towards), LOOPBACK_ADDRESS)

    def port(self) -> int:
        """A port that no earlier run of this scene has used.

        On loopback it is one that nobody uses for TCP; for UDP the chance of a clash is small.
        """
        return free_port() if self.is_loopback else next(self._ports)

    def run_in(self, role: str, function: Callable[..., T], *arguments: object) -> T:
        """Call a function inside the namespace of `role`."""
        place = self.place(role)
        return function(*arguments) if place is None else place.run(function, *arguments)

    def settings_in_force(self) -> list[dict[str, object]]:
        """What the kernel says about every link end."""
        return self._lab.settings_in_force() if self._lab is not None else []

    def _build(self, lab: NetworkLab) -> None:
        assert self.mode is not None
        centre = self._places[self.centre] = lab.namespace(self.centre)
        centre.set_sysctl("net.ipv4.ip_forward", "1")
        for number, (role, mtu) in enumerate(self.leaves.items(), 1):
            leaf = self._places[role] = lab.namespace(role)
            ends = self._join(lab, leaf, centre, mtu)
            self._addresses[role, self.centre], self._addresses[self.centre, role] = ends
            for other in range(1, len(self.leaves) + 1):
                if other != number:
                    leaf.add_route(f"{BENCHMARK_NETWORK}.{other}.0/24", ends[1])

    def _join(
        self, lab: NetworkLab, leaf: Namespace, centre: Namespace, mtu: int
    ) -> tuple[str, str]:
        """Make the link between a leaf and the centre; return their addresses on it."""
        assert self.mode is not None
        link = lab.link(leaf, centre, self.mode, mtu)
        return link.left.address, link.right.address


def hop_scene(mode: LinkMode | None) -> Scene:
    """A - B."""
    return Scene(mode, "b", {"a": DEFAULT_MTU})


def path_scene(mode: LinkMode | None) -> Scene:
    """A - R - B."""
    return Scene(mode, "router", {"a": DEFAULT_MTU, "b": DEFAULT_MTU})


def service_scene(mode: LinkMode | None) -> Scene:
    """A - R - B, and R - VI with the largest MTU there is: that wire is ours."""
    return Scene(mode, "router", {"a": DEFAULT_MTU, "b": DEFAULT_MTU, "vi": LARGEST_MTU})
