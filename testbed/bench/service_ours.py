"""Our contender in `bench service`: A -> R -> VI -> R -> B with AES-128-CBC in the VI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

from packetcloud.chunk.identity import create_identity_file
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.path import attach_ends, check_conservation, router_on_centre
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.bench.trial import Trial, Window, make_trial
from packetcloud.testbed.daemons import (
    Command,
    Router,
    ServiceEntry,
    start_service,
    wait_attached,
)
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.processes import (
    Child,
    Children,
    packetcloud_command,
    python_command,
)
from packetcloud.testbed.protections import protections_of
from packetcloud.testbed.sampled import BEGIN_SAMPLING
from packetcloud.testbed.visits import Look, delays_between, look_at

SERVICE = "secure-communication"
SUITE = "aes-128-cbc"
LIBRARY = "pycryptodome"
"""As in the paper; the peers and the measured limit of the cipher use it too."""
OUTSTANDING_BYTES = 16 << 20
MOST_OUTSTANDING = 256
OWN_MACHINE = ("127.0.0.0/8",)


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """A router with the encrypting service attached to it."""

    router: Router
    service: Child
    sid: str
    key_file: Path

    def look(self) -> Look:
        """Ask the router what it has counted of the service."""
        return look_at(self.router, self.sid)


def start_service_node(
    children: Children,
    scene: Scene,
    vi_role: str,
    library: str = LIBRARY,
    replicas: int = 1,
    command: Command = packetcloud_command,
    more_private: Sequence[str] = (),
) -> ServiceNode:
    """Start the router on the centre and the service's VIs at `vi_role`; wait until they attached.

    With `vi_role` the centre itself, the VI reaches the router over loopback.
    """
    identity_file, key_file = children.directory / "vi.key", children.directory / "aes.key"
    sid = create_identity_file(identity_file).guid.hex
    create_key_file(key_file)
    towards = "127.0.0.1" if vi_role == scene.centre else scene.address(scene.centre, vi_role)
    # The wire between a router and its cloudlet is ours.
    private_links = [f"{scene.address(vi_role, scene.centre)}/32", f"{towards}/32", *more_private]
    entries = [ServiceEntry(sid, "encrypt")]
    router = router_on_centre(children, scene, entries, command, private_links)
    settings = {"direction": "encrypt", "suite": SUITE, "library": library, "key_file": key_file}
    address = towards, router.address[1]
    place = scene.place(vi_role)
    service = start_service(
        children, "vi", SERVICE, address, identity_file, settings, place, private_links, replicas
    )
    wait_attached(router, service, sid, replicas)
    return ServiceNode(router, service, sid, key_file)


@dataclass(frozen=True, slots=True)
class OurService:
    """Chunks of one size through the service; at full rate, or at `rate` chunks per second."""

    scene: Scene
    payload_bytes: int
    name: str = "ours"
    rate: float = 0.0
    vi_role: str = "vi"
    library: str = LIBRARY
    replicas: int = 1
    samples_file: Path | None = None
    """Sample the router's functions into this file."""
    is_at_router: bool = False
    """The chunks begin and end at the router's machine, unsealed: R -> VI -> R, as in the paper."""

    def run(self, timing: Timing) -> Trial:
        # Each VI can have a window of them, or some would have nothing to do.
        wanted = self.replicas * OUTSTANDING_BYTES // self.payload_bytes
        outstanding = max(4, min(MOST_OUTSTANDING, wanted))
        load = Load(
            self.payload_bytes,
            outstanding,
            self.rate,
            keeps_times=self.rate > 0,
            is_open=self.is_at_router,
        )
        with Children() as children:
            command = packetcloud_command if self.samples_file is None else self._sampled
            node = start_service_node(
                children,
                self.scene,
                self.vi_role,
                self.library,
                self.replicas,
                command,
                OWN_MACHINE if self.is_at_router else (),
            )
            if self.samples_file is not None:
                node.router.child.signal(BEGIN_SAMPLING)
            load = replace(load, sids=(node.sid,), key_file=node.key_file)
            ends = attach_ends(children, self.scene, node.router, load, timing, *self._places())
            assert ends.sender is not None and ends.receiver is not None
            processes = [ends.sender, node.router.child, node.service, ends.receiver]
            with Meter(processes) as meter:
                ends.wait_opened()
                before = node.look()
                arrived, chunks = ends.wait_window()
                after = node.look()
                protections = protections_of("process", node.service)
            sent, received = ends.finish()
            check_conservation(sent, received, node.router)
            # What was put in counts, not the little that encryption adds.
            window = Window(arrived.begin_s, arrived.end_s, chunks * self.payload_bytes)
            details: dict[str, Any] = {**delays_between(before, after)}
            if self.rate > 0:
                details |= _end_to_end(ends, window) | {"skipped": sent["skipped"]}
            details |= {"chunks": chunks, "sender": sent, "receiver": received}
            details["protections"] = protections
            if self.samples_file is not None:
                node.router.child.stop()  # it writes them when it ends
            return make_trial(window, meter, **details)

    def _places(self) -> tuple[str, str]:
        """Where the chunks begin and end."""
        centre = self.scene.centre
        return (centre, centre) if self.is_at_router else ("a", "b")

    def _sampled(self, *arguments: object) -> list[str]:
        module = "packetcloud.testbed.sampled"
        return python_command(module, self.samples_file, "--", "packetcloud.cli", *arguments)


def delay_figures(delays_s: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in ms; empty for fewer than two values."""
    if len(delays_s) < 2:
        return {}
    cuts = quantiles(delays_s, n=100, method="inclusive")
    return {"delay_p50_ms": cuts[49] * 1e3, "delay_p99_ms": cuts[98] * 1e3}


def _end_to_end(ends: Ends, window: Window) -> dict[str, float]:
    """Delay from A's sending to B's receiving, for what left within the window."""
    return delay_figures(ends.delays_s(window.begin_s, window.end_s))
