"""Looks at every node while a run goes: caps, the sums of the routers, and what is left at the end.

- L4  a router's sum of custody holds at every look; at the end nobody holds anything
- L9  no cap is ever passed; at the end every queue is empty
"""

from __future__ import annotations

from packetcloud.testbed.simulation.checker import Violation
from packetcloud.testbed.simulation.world import World

_EMPTY_AT_THE_END = ("held_bytes", "queued_bytes", "in_flight_bytes")
"""Of `HopCore.stats`."""


class Watch:
    """Looks at the nodes of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[Violation] = []
        self.looks_count = 0

    def look(self) -> None:
        """Compare every node with its caps, now."""
        self.looks_count += 1
        for router in self._world.routers:
            core = router.core
            if core is None:
                continue
            name = router.machine.name
            router.note_untold()
            sums = core.book.conservation()
            if sums["balance"]:
                self._violated("L4", f"the sum of {name} is off: {sums}")
            book, spool = core.book, core.book.spool
            memory_bytes = book.held_bytes - book.spilled_bytes + book.pending_bytes
            if memory_bytes > book.store_bytes:
                self._violated("L9", f"{name} stores {memory_bytes} bytes in memory")
            if spool.settings is not None and spool.used_bytes > spool.settings.max_bytes:
                self._violated("L9", f"{name} has {spool.used_bytes} bytes of chunks on disk")
        for name, program in self._world.programs.items():
            node = program.node
            if node is None or node.is_closed:
                continue
            held = node.stats()["held_bytes"]
            if held > node.config.max_held_bytes:
                self._violated("L9", f"the hop of {name} holds {held} bytes")

    def is_quiet(self) -> bool:
        """Tell whether every operation has ended and every queue is empty."""
        return not self._left()

    def finish(self) -> None:
        """Nothing is to be left anywhere."""
        for promise, text in self._left():
            self._violated(promise, text)

    def _left(self) -> list[tuple[str, str]]:
        left: list[tuple[str, str]] = []
        for host in self._world.hosts:
            if host.unended_count:
                left.append(("L9", f"{host.machine.name} waits for {host.unended_count} ends"))
        for router in self._world.routers:
            core, witness = router.core, router.witness
            if core is None or witness is None:
                continue
            name = router.machine.name
            router.note_untold()
            if core.book.held_count:
                left.append(("L4", f"{name} still holds {core.book.held_count} chunks"))
            elif witness.held:
                ops = sorted({chunk.op for chunk in witness.held})[:5]
                left.append(("L4", f"{name} took operations {ops} and never said what became"))
            if not core.book.held_count:
                left += [("L9", f"{name} has {text}") for text in router.left_on_disk()]
        for name, program in self._world.programs.items():
            node = program.node
            if node is None or node.is_closed:
                continue
            stats = node.stats()
            for key in _EMPTY_AT_THE_END:
                if stats[key]:
                    left.append(("L9", f"{key} of {name} is {stats[key]}"))
        return left

    def _violated(self, promise: str, text: str) -> None:
        self.violations.append(Violation(promise, 0, text, self._world.time.now_s))
