"""What a look at a node's containers means: which are ours, and what is not as it must be.

Every look compares the whole live configuration of each container. What was found of one holds for
as long as neither that configuration nor what is wanted of the container is another one, so a
cloudlet in which nothing changes costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from packetcloud.cloudlet.container_config import ContainerConfig, build, live_differences
from packetcloud.cloudlet.containers import ContainerFacts, ContainerState, ContainerWish
from packetcloud.cloudlet.core.events import ContainerSeen
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.policy import NodeSite, live_violations, shared_id_maps

LABEL_CLOUDLET = "cloudlet"
LABEL_VI = "vi"
LABEL_INSTANCE = "instance"
WISH_FIELDS = ("number", "service", "vi_type", "instance", "token", "address", "allotted")
"""What of a VI decides how its container is to be configured."""
_wish_fields_of = attrgetter(*WISH_FIELDS)


class Declared(Protocol):
    """What is declared of VIs, as far as their containers are compared with it."""

    revision: int
    """Grows whenever the same VI might be given another container."""

    def number_of(self, container_name: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of a container, and what that follows from."""

    container: ContainerFacts
    wanted: tuple[Any, ...]
    seen: ContainerSeen


class ContainerChecks:
    """The containers of one cloudlet.

    Args:
        cloudlet: its name; containers of others are not judged.
        vis: by number.
        wish_of: returns the container that a VI is to have; may raise a `CloudletError`.
    """

    def __init__(
        self,
        cloudlet: str,
        vis: Mapping[int, Vi],
        declared: Declared,
        wish_of: Callable[[Vi], ContainerWish],
    ) -> None:
        self._cloudlet = cloudlet
        self._vis = vis
        self._declared = declared
        self._wish_of = wish_of
        self._found: dict[str, dict[str, _Found]] = {}
        """By node and name, those that were there at the last look."""
        self._shared: dict[str, tuple[Sequence[ContainerFacts], Mapping[str, tuple[str, ...]]]] = {}
        """By node, containers and which of them share what with others."""

    def look(
        self, node: str, site: NodeSite, containers: Sequence[ContainerFacts]
    ) -> tuple[ContainerSeen, ...]:
        """Return what the core wants to know of the containers of a node that are ours.

        One that has the name of a VI of ours is that, whatever its labels say: they can be taken
        away, and with them nobody's eye would be on it.
        """
        shared = self._shared_on(node, containers)
        before = self._found.get(node, {})
        found: dict[str, _Found] = {}
        for container in containers:
            number = self._declared.number_of(container.name)
            if number is None:
                continue
            vi = self._vis.get(number)
            is_known = vi is not None and vi.node == node
            if not is_known and container.labels.get(LABEL_CLOUDLET) != self._cloudlet:
                continue
            wanted = (
                self._declared.revision,
                site,
                shared.get(container.name, ()),
                _wish_fields_of(vi) if vi is not None else None,
            )
            known = before.get(container.name)
            if known is not None and known.container == container and known.wanted == wanted:
                found[container.name] = known
                continue
            seen = self._seen(number, vi, container, site, shared.get(container.name, ()))
            found[container.name] = _Found(container, wanted, seen)
        self._found[node] = found
        return tuple(one.seen for one in found.values())

    def _shared_on(
        self, node: str, containers: Sequence[ContainerFacts]
    ) -> Mapping[str, tuple[str, ...]]:
        before = self._shared.get(node)
        if before is None or before[0] != containers:
            # A copy: a node may go on with its own list.
            lives = {one.name: one.live for one in containers}
            before = self._shared[node] = (list(containers), shared_id_maps(lives))
        return before[1]

    def _seen(
        self,
        number: int,
        vi: Vi | None,
        container: ContainerFacts,
        site: NodeSite,
        shared: tuple[str, ...],
    ) -> ContainerSeen:
        instance = container.labels.get(LABEL_INSTANCE, "")
        return ContainerSeen(
            number,
            int(instance) if instance.isdecimal() else -1,
            container.state in (ContainerState.RUNNING, ContainerState.CHANGING),
            (*live_violations(container.live, site), *shared),
            self._differences(vi, container, site),
        )

    def _differences(
        self, vi: Vi | None, container: ContainerFacts, site: NodeSite
    ) -> tuple[str, ...]:
        """Return where a container is not what its VI was given."""
        if vi is None:
            return ()
        try:
            wanted: ContainerConfig = build(self._wish_of(vi), site)
        except CloudletError:
            return ()  # its service is about to be taken away; nothing is wished of it any more
        return tuple(live_differences(container.live, wanted))
