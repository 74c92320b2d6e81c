"""50 handshakes over a link that loses and alters packets, as QUIC's interop runner asks for them.

Used by `bench loss` and `bench attack`. Source: docs/reference/bench.md, "loss".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from packetcloud.testbed.bench.emulated import (
    INTEROP_LINK,
    Conditions,
    EmulatedScene,
    emulated_hop,
)
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Children, Event, python_command

COUNT = 50
LIMIT_S = 300.0
"""For all of them together."""
SHARE = 0.3
LONGEST_RUN = 3
"""Packets lost, or altered, in a row at most."""
LOSS = replace(INTEROP_LINK, loss=SHARE, loss_run=LONGEST_RUN)
CORRUPTION = replace(INTEROP_LINK, corruption=SHARE, corruption_run=LONGEST_RUN)
FAULTS = {
    "loss": LOSS,
    "corruption": CORRUPTION,
    "both": replace(CORRUPTION, loss=SHARE, loss_run=LONGEST_RUN),
}
"""Each way. With both, half of all packets arrive as they were sent."""
_START_TIMEOUT_S = 20.0


def measure_handshakes(
    progress: Progress,
    faults: Mapping[str, Shape] = FAULTS,
    count: int = COUNT,
    limit_s: float = LIMIT_S,
    seed: int = 1,
) -> Document:
    """Make `count` handshakes under each kind of fault, each with a body that must be taken.

    `succeeded` is how many did under the worst kind: the figure `handshakes_of_50`.

    Raises:
        TestbedError: no namespaces or TUN devices here, or an end failed.
    """
    kinds: Document = {}
    with emulated_hop() as scene:
        for kind, shape in faults.items():
            progress(f"{count} handshakes, {kind}")
            kinds[kind] = _measure(scene, shape, count, limit_s, seed)
    return {
        "count": count,
        "limit_s": limit_s,
        "succeeded": min(found["succeeded"] for found in kinds.values()),
        "kinds": kinds,
    }


def _measure(scene: EmulatedScene, shape: Shape, count: int, limit_s: float, seed: int) -> Document:
    scene.restart(Conditions.both(shape), seed)
    listen = "{}:{}".format(*_listen_address(scene))
    with Children() as children:
        options = ["--listen", listen, "--payload-bytes", 1024, "--check"]
        command = python_command("packetcloud.testbed.traffic.receiver", *options)
        receiver = children.start("receiver", command, scene.place("b"))
        guid = receiver.wait_event("ready", _START_TIMEOUT_S)["guid"]
        options = ["--connect", listen, "--expect", guid, "--count", count, "--limit", limit_s]
        command = python_command("packetcloud.testbed.traffic.connector", *options)
        connector = children.start("connector", command, scene.place("a"))
        connector.wait_event("ready", _START_TIMEOUT_S)
        # One that began just before the limit may take as long as a handshake and a body may.
        output = connector.wait_exit(limit_s + 60.0)
        found = connector.taken_events()
        if not found or found[-1]["event"] != "done":
            raise ChildError(f"the connector ended early: {output} {connector.last_words()}")
    report = scene.report()
    tries = [event for event in found if event["event"] == "handshake"]
    return {**handshake_figures(tries, found[-1]["seconds"]), "emulator": report}


def handshake_figures(tries: list[Event], seconds: float) -> Document:
    """Return how many succeeded, how long they took, and why the others did not."""
    took = sorted(one["connect_s"] for one in tries if one["is_up"])
    return {
        "succeeded": len(took),
        "tried": len(tries),
        "seconds": seconds,
        "median_s": took[len(took) // 2] if took else None,
        "longest_s": took[-1] if took else None,
        "failures": [one["text"] for one in tries if not one["is_up"]],
    }


def _listen_address(scene: EmulatedScene) -> tuple[str, int]:
    return scene.address("b", "a"), scene.port()
