"""A file over a link that goes dark, by the real daemons: `bench loss --part outages`.

Host A sends 10 MB through a router to host B; the link from A to the router fails in mid-transfer.
Source: docs/reference/bench.md, "loss".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.bench.emulated import (
    INTEROP_LINK,
    LINK,
    EmulatedScene,
    emulated_path,
)
from packetcloud.testbed.bench.path import router_on_centre
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress
from packetcloud.testbed.daemons import Router, wait_host
from packetcloud.testbed.demo.payload import make_payload_file, sha256_of
from packetcloud.testbed.emulator.link import Link
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Child, Children, packetcloud_command, wait_until

VOLUME_BYTES = 10_000_000
BEGUN_BYTES = 500_000
"""The transfer is under way once the link has delivered so many bytes; then the fault begins."""
HEALED_LIMIT_S = 60.0
"""How long after healing a transfer is waited for."""
PATIENCE_S = 600
"""Lifetime of the chunks, and how long the sender waits for any progress."""
PAYLOAD_SHARE = 0.96
"""Most of a full packet that can be payload: 60 of 1500 bytes are headers."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One way for a link to fail, and the link."""

    name: str
    link: Shape
    down_s: float
    """Dark for so long, in the directions named."""
    up_s: float = 0.0
    """With it: dark for `down_s` after every `up_s`, again and again. Else dark once."""
    towards_router: bool = True
    towards_host: bool = True

    def shapes(self) -> tuple[Shape, Shape]:
        """What the link does while the fault lasts: from the sending host, and to it."""
        dark = replace(self.link, up_s=self.up_s, down_s=self.down_s)
        return (
            dark if self.towards_router else self.link,
            dark if self.towards_host else self.link,
        )


OUTAGES = (
    Outage("up_5_s_down_2_s", INTEROP_LINK, down_s=2.0, up_s=5.0),
    Outage("up_2_s_down_5_s", INTEROP_LINK, down_s=5.0, up_s=2.0),
    Outage("chunks_lost_20_s", LINK, down_s=20.0, towards_host=False),
    Outage("answers_lost_20_s", LINK, down_s=20.0, towards_router=False),
    Outage("all_lost_60_s", LINK, down_s=60.0),
)


def measure_outages(progress: Progress, outages: Sequence[Outage] = OUTAGES) -> Document:
    """Send the file once under each outage.

    Raises:
        TestbedError: no namespaces or TUN devices here, or a daemon did not start.
    """
    found: Document = {}
    with emulated_path() as scene:
        for outage in outages:
            progress(f"outage {outage.name}")
            found[outage.name] = _measure(scene, outage)
    return {"volume_bytes": VOLUME_BYTES, "outages": found, **outage_keys(found)}


def outage_keys(found: Document) -> Document:
    """Return the figure of all outages together."""
    times = [one["seconds_after_healing"] for one in found.values()]
    return {
        "all_delivered": all(one["is_delivered"] for one in found.values()),
        "worst_seconds_after_healing": None if None in times else max(times, default=None),
    }


def _measure(scene: EmulatedScene, outage: Outage) -> Document:
    link = scene.links["a"]
    link.restart(outage.link, outage.link, 1)
    with Children() as children:
        transfer = _start_transfer(children, scene)
        began_s = time.monotonic()
        _wait_begun(link, transfer.sender)
        with _fault(link, outage) as fault:
            _wait_end(transfer.sender, fault.healed_s)
        ended_s = time.monotonic()
        report = link.report()
        problem = transfer.problem()
    dropped = sum(report[way]["dropped"].get("down", 0) for way in ("to_right", "to_left"))
    if not dropped:
        problem = f"the outage met no packet: nothing was tested; {problem}".strip("; ")
    return {
        "is_delivered": not problem,
        "problem": problem,
        "seconds": ended_s - began_s,
        "ideal_s": ideal_s(outage, VOLUME_BYTES),
        "seconds_after_healing": None if problem else ended_s - fault.last_up_s(ended_s),
        "dropped_packets": dropped,
        "emulator": report,
    }


@dataclass(slots=True)
class _Transfer:
    """The two hosts, and the file on either side."""

    file: Path
    inbox: Path
    sender: Child
    receiver: Child

    def problem(self) -> str:
        """Say why the file is not at B as it was at A; empty: it is."""
        if self.sender.is_running:
            return f"not delivered {HEALED_LIMIT_S:g} s after healing"
        if self.sender.poll_exit() != 0:
            return self.sender.last_words()
        received = self.inbox / self.file.name
        if not received.is_file() or sha256_of(received) != sha256_of(self.file):
            return "the file at B differs"
        return ""


def _start_transfer(children: Children, scene: EmulatedScene) -> _Transfer:
    router = router_on_centre(children, scene)
    folder = children.directory
    file = folder / "volume"
    make_payload_file(file, VOLUME_BYTES)
    keys = {name: folder / f"{name}.key" for name in ("a", "b")}
    guids = {name: create_identity_file(key).guid.hex for name, key in keys.items()}
    attach = {name: _attachment(scene, router, name) for name in keys}
    inbox = folder / "inbox"
    command = packetcloud_command(
        *("host", "receive", inbox, "--once", "--no-sync", "--key", keys["b"], *attach["b"])
    )
    receiver = children.start("host-b", command, scene.place("b"))
    wait_host(router, receiver, guids["b"])
    patience = "--lifetime", PATIENCE_S, "--stall", PATIENCE_S
    command = packetcloud_command(
        *("host", "send", file, "--to", guids["b"], "--key", keys["a"], *patience, *attach["a"])
    )
    sender = children.start("host-a", command, scene.place("a"))
    return _Transfer(file, inbox, sender, receiver)


def _attachment(scene: EmulatedScene, router: Router, role: str) -> list[str]:
    address = f"{scene.address(scene.centre, role)}:{router.address[1]}"
    return ["--router", address, "--router-guid", router.guid, "--format", "json"]


def _wait_begun(link: Link, sender: Child) -> None:
    """Wait until the transfer is under way."""

    def is_begun() -> bool:
        if not sender.is_running:
            raise ChildError(f"{sender.name} ended early: {sender.last_words()}")
        return bool(link.report()["to_right"]["out_bytes"] >= BEGUN_BYTES)

    wait_until(is_begun, 30.0, "the transfer begins")


@dataclass(frozen=True, slots=True)
class _Fault:
    """When a fault began, and when it is over."""

    outage: Outage
    began_s: float

    @property
    def healed_s(self) -> float:
        """When the link is up for good, or for the first time."""
        return self.began_s + self.outage.up_s + self.outage.down_s

    def last_up_s(self, moment_s: float) -> float:
        """When the link came up for the last time before `moment_s`."""
        if not self.outage.up_s:
            return self.healed_s
        cycle_s = self.outage.up_s + self.outage.down_s
        return moment_s - (moment_s - self.began_s) % cycle_s


@contextmanager
def _fault(link: Link, outage: Outage) -> Iterator[_Fault]:
    """Break the link; one that is dark once is whole again when it has been dark for its time."""
    to_right, to_left = outage.shapes()
    link.change(to_right, to_left)
    fault = _Fault(outage, time.monotonic())
    if not outage.up_s:
        time.sleep(outage.down_s)
        link.change(outage.link, outage.link)
    yield fault


def _wait_end(sender: Child, healed_s: float) -> None:
    """Wait until the sender ends, not for ever."""
    deadline = healed_s + HEALED_LIMIT_S
    while sender.is_running and time.monotonic() < deadline:
        time.sleep(0.02)


def ideal_s(outage: Outage, volume_bytes: int) -> float:
    """How long the volume takes at least, with every moment used in which the link carries."""
    needed_s = volume_bytes * 8 / (outage.link.rate_bps * PAYLOAD_SHARE)
    if not outage.up_s:
        return needed_s + outage.down_s
    return needed_s + int(needed_s / outage.up_s) * outage.down_s
