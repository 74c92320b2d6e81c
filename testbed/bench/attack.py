"""`packetcloud bench attack`: what strangers and hostile neighbours can do to a node.

Each part has a control run with the defence switched off that it is about: there the same attack
must succeed, else the part proves nothing. Source: docs/reference/bench.md, "attack".
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from packetcloud.chunk.hop.caps import ROOM as HOP
from packetcloud.testbed.attack.stranger import FIRST_PORT
from packetcloud.testbed.bench.emulated import emulated_hop
from packetcloud.testbed.bench.fairness import measure_dark
from packetcloud.testbed.bench.handshakes import COUNT, measure_handshakes
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing, ratio
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import DEFAULT_MTU
from packetcloud.testbed.processes import Child, Children, Event, python_command

PARTS = ("handshakes", "guesses", "flood", "amplification", "caps", "dark")
GUESSES = 1_000_000
CONTROL_GUESSES = 5000
FLOOD_PER_S = 50_000
CHUNKS_PER_S = 20
"""Of 1 MiB, from the honest neighbour: a sixth of a Gbit/s, which leaves room on two cores."""
LEGITIMATE_HANDSHAKES = 3
NETWORK_OF_NOBODY = "100.64.0.0/10"
SETTLE_S = 1.0
_START_TIMEOUT_S = 20.0
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """What to do, and how much of it."""

    parts: Collection[str] = PARTS
    guesses: int = GUESSES
    flood_per_s: int = FLOOD_PER_S
    handshakes: int = COUNT
    dark_s: float = 10.0


def bench_attack(plan: AttackPlan, timing: Timing, progress: Progress) -> Document:
    """Attack a node in every way of the plan, and without the defence again."""
    document = begin_document("attack", timing, False, ())
    document["failures"] = []
    document["parts"] = list(plan.parts)
    if "handshakes" in plan.parts:
        document["handshakes"] = measure_handshakes(progress, count=plan.handshakes)
    with _scene() as scene:
        if "guesses" in plan.parts:
            document["guesses"] = _guesses(scene, plan, timing, progress)
        if "flood" in plan.parts:
            document["flood"] = _flood(scene, plan, timing, progress)
        if "amplification" in plan.parts:
            document["amplification"] = _amplification(scene, progress)
        if "caps" in plan.parts:
            document["caps"] = _caps(scene, timing, progress)
    if "dark" in plan.parts:
        progress("everything is lost")
        with emulated_hop() as emulated:
            document["dark"] = measure_dark(emulated, plan.dark_s)
    document["failures"] += _failures(document)
    return {**document, **attack_keys(document)}


def attack_keys(document: Document) -> Document:
    """Return the figures that a reader looks for first; None where a part was not run."""
    handshakes = document.get("handshakes", {})
    return {
        "handshakes_of_50": handshakes.get("succeeded")
        if handshakes.get("count") == COUNT
        else None,
        "max_amplification": document.get("amplification", {}).get("max"),
        "state_changes": document.get("guesses", {}).get("state_changes"),
        "caps_passed": document.get("caps", {}).get("passed"),
    }


def controls(document: Document) -> Iterator[tuple[str, str, object, object, bool]]:
    """Yield defence, what is looked at, with it, without it, and whether the control run failed."""
    for part, defence, figure in (
        ("guesses", "unpredictable session ids", "state_changes"),
        ("flood", "cookies", "most_half_open"),
        ("amplification", "padding of HELLO", "max"),
        ("caps", "credit", "passed"),
    ):
        found = document.get(part)
        if found is not None:
            control = found["control"]
            yield defence, figure, found[figure], control[figure], control["has_failed"]


def _failures(document: Document) -> list[str]:
    """Return what an attacker achieved, and which control run he achieved nothing in."""
    texts = [
        f"{defence}: without it {figure} is {without}: this run proves nothing"
        for defence, figure, _, without, has_failed in controls(document)
        if not has_failed
    ]
    handshakes = document.get("handshakes")
    if handshakes is not None and handshakes["succeeded"] < handshakes["count"]:
        texts.append(f"{handshakes['succeeded']} of {handshakes['count']} handshakes succeeded")
    if document.get("guesses", {}).get("state_changes"):
        texts.append(f"{document['guesses']['state_changes']} state changes by blind guesses")
    if document.get("amplification", {}).get("max", 0.0) > 1.0:
        texts.append(f"answers are {document['amplification']['max']:.2f} times as long as asked")
    for name, found in document.get("caps", {}).get("in_use", {}).items():
        if found["largest"] > found["limit"]:
            texts.append(f"cap passed: {name}, {found['largest']} of {found['limit']}")
    return texts


# --- the place ------------------------------------------------------------------------------------


@contextmanager
def _scene() -> Iterator[Scene]:
    """The victim in the middle; around it an honest neighbour, an attacker, and a third party."""
    leaves = {"honest": DEFAULT_MTU, "attacker": DEFAULT_MTU, "third": DEFAULT_MTU}
    with Scene(LinkMode.WIRE, "victim", leaves) as scene:
        victim = scene.place("victim")
        assert victim is not None
        for device in ("all", *(f"to-{role}"[:15] for role in leaves)):
            # The network lets lies about the source pass, as most networks do.
            victim.set_sysctl(f"net.ipv4.conf.{device}.rp_filter", "0")
        victim.add_route(NETWORK_OF_NOBODY, scene.address("attacker", "victim"))
        yield scene


class Site:
    """A target, and who is around it, for one run."""

    def __init__(self, scene: Scene, children: Children, *options: object) -> None:
        self.scene = scene
        self.children = children
        self.port = scene.port()
        listen = f"0.0.0.0:{self.port}"
        command = python_command("packetcloud.testbed.attack.target", "--listen", listen, *options)
        self.target = children.start("target", command, scene.place("victim"))
        self.guid: str = self.target.wait_event("ready", _START_TIMEOUT_S)["guid"]
        self.sender: Child | None = None

    def towards(self, role: str) -> str:
        """Where the target is, seen from `role`."""
        return f"{self.scene.address('victim', role)}:{self.port}"

    def start_honest(self, *options: object) -> None:
        """Start the honest neighbour; returns once its chunks arrive."""
        command = python_command(
            "packetcloud.testbed.traffic.sender",
            *("--connect", self.towards("honest"), "--expect", self.guid),
            *("--destination", self.guid, "--rate", CHUNKS_PER_S, *options),
        )
        self.sender = self.children.start("sender", command, self.scene.place("honest"))
        self.sender.wait_event("ready", _START_TIMEOUT_S)
        until = time.monotonic() + _START_TIMEOUT_S
        while not self.state()["bodies"]:
            if time.monotonic() > until:
                raise ChildError(f"nothing arrives: {self.sender.last_words()}")
            time.sleep(0.1)

    def state(self) -> Event:
        """How the target stands."""
        self.target.signal(signal.SIGUSR1)
        return self.target.wait_event("state", _START_TIMEOUT_S)

    def steady(self, seconds: float) -> tuple[Event, Event]:
        """Let time pass; return how the target stood before and after."""
        before = self.state()
        time.sleep(seconds)
        return before, self.state()

    def attacker(self, module: str, *options: object) -> Child:
        """Start an attacker, who is ready and waits."""
        command = python_command(
            f"packetcloud.testbed.attack.{module}",
            *options,
            *("--target", self.towards("attacker"), "--guid", self.guid),
        )
        child = self.children.start(module, command, self.scene.place("attacker"))
        child.wait_event("ready", _START_TIMEOUT_S)
        return child


def _gbps(before: Event, after: Event) -> float:
    """Goodput between two states."""
    payload = after["payload_bytes"] - before["payload_bytes"]
    return float(payload * 8 / (after["at_s"] - before["at_s"]) / 1e9)


def _cores(before: Event, after: Event) -> float:
    """Cores that the target used between two states."""
    return float((after["cpu_s"] - before["cpu_s"]) / (after["at_s"] - before["at_s"]))


def _dropped(before: Event, after: Event) -> dict[str, int]:
    """What the target dropped between two states, by reason."""
    known = before["dropped"]
    grown = {key: count - known.get(key, 0) for key, count in after["dropped"].items()}
    return {key: count for key, count in sorted(grown.items()) if count}


# --- the attacks ----------------------------------------------------------------------------------


def _guesses(scene: Scene, plan: AttackPlan, timing: Timing, progress: Progress) -> Document:
    """Guess the session of the honest neighbour, with its address, on a link without seals."""
    progress(f"{plan.guesses} guesses at a live session")
    found = _guess_run(scene, timing, plan.guesses)
    progress(f"{plan.guesses} guesses, where the kernel sheds none")
    found["unshed"] = unshed = _guess_run(scene, timing, plan.guesses, "shedding")
    found["state_changes"] += unshed["state_changes"]
    progress("guesses, where session ids can be guessed")
    control = _guess_run(
        scene, timing, min(plan.guesses, CONTROL_GUESSES), "random_ids", "--count-up"
    )
    found["control"] = {**control, "has_failed": control["state_changes"] > 0}
    return found


def _guess_run(
    scene: Scene, timing: Timing, count: int, without: str = "", *options: object
) -> Document:
    with Children() as children:
        off = ("--without", without) if without else ()
        site = Site(scene, children, "--open", *off)
        site.start_honest("--open")
        quiet = site.steady(timing.seconds)
        (neighbour,) = quiet[1]["neighbours"]
        source = f"{neighbour[0]}:{neighbour[1]}"
        deed = "guess", "--source", source, "--count", count, *options
        stranger = site.attacker("stranger", *deed)
        before = site.state()
        stranger.signal(signal.SIGUSR1)
        done = stranger.wait_event("done", count / 10_000 + _SLACK_S)
        during = site.state()
        time.sleep(SETTLE_S)
        after = site.state()
        assert site.sender is not None
        site.sender.signal(signal.SIGTERM)
        with_sender = _end_of(site.sender)
        changes = (
            (after["sessions_lost"] - before["sessions_lost"])
            + (after["sessions_begun"] - before["sessions_begun"])
            + (after["hop"]["half_open"] - before["hop"]["half_open"])
            + abs(with_sender - site.state()["bodies"])
        )
        return {
            "sent": done["sent"],
            "per_s": done["sent"] / done["seconds"],
            "arrived": sum(_dropped(before, after).values()),
            "state_changes": changes,
            "dropped": _dropped(before, after),
            "goodput_before_gbps": _gbps(*quiet),
            "goodput_during_gbps": _gbps(before, during),
            "goodput_kept": ratio(_gbps(before, during), _gbps(*quiet)),
            "target_cores": _cores(before, during),
        }


def _end_of(sender: Child) -> int:
    """Return how many of its chunks the target took custody of, as far as the sender heard."""
    try:
        return int(sender.wait_event("done", _START_TIMEOUT_S)["settled"].get("accepted", 0))
    except ChildError:
        return -1  # its session was ended under it


def _flood(scene: Scene, plan: AttackPlan, timing: Timing, progress: Progress) -> Document:
    """HELLOs from random addresses, each of which names the node."""
    progress(f"{plan.flood_per_s} HELLOs a second from random addresses")
    found = _flood_run(scene, plan, timing)
    progress("the same where the kernel sheds none")
    found["unshed"] = _flood_run(scene, plan, timing, "--without", "shedding")
    progress("the same without cookies")
    control = _flood_run(scene, plan, timing, "--without", "cookie")
    limit = HOP.cap("half-open handshakes").limit
    found["control"] = {**control, "has_failed": control["most_half_open"] > limit}
    return found


def _flood_run(scene: Scene, plan: AttackPlan, timing: Timing, *options: object) -> Document:
    with Children() as children:
        site = Site(scene, children, *options)
        site.start_honest()
        quiet = site.steady(timing.seconds)
        seconds = max(2.0 * timing.seconds, 2.0)
        stranger = site.attacker(
            *("stranger", "flood", "--source", "100.64.0.1:1000"),
            *("--rate", plan.flood_per_s, "--seconds", seconds),
        )
        before = site.state()
        stranger.signal(signal.SIGUSR1)
        time.sleep(seconds / 4)
        command = python_command(
            "packetcloud.testbed.traffic.connector",
            *("--connect", site.towards("third"), "--expect", site.guid),
            *("--count", LEGITIMATE_HANDSHAKES, "--limit", seconds),
        )
        connector = children.start("connector", command, scene.place("third"))
        done = stranger.wait_event("done", seconds + _SLACK_S)
        during = site.state()
        newcomers = _handshakes_of(connector)
        after = site.state()
        return {
            "sent": done["sent"],
            "per_s": done["sent"] / done["seconds"],
            "goodput_before_gbps": _gbps(*quiet),
            "goodput_during_gbps": _gbps(before, during),
            "goodput_kept": ratio(_gbps(before, during), _gbps(*quiet)),
            "target_cores": _cores(before, during),
            # Newcomers come and leave meanwhile: only of those that were there before.
            "sessions_lost": len(set(before["sessions"]) - set(during["sessions"])),
            "new_handshakes": len([one for one in newcomers if one["is_up"]]),
            "longest_new_handshake_s": max(
                (one["connect_s"] for one in newcomers if one["is_up"]), default=None
            ),
            "most_half_open": after["largest"]["half-open handshakes"],
            "rss_grown_bytes": during["rss_bytes"] - before["rss_bytes"],
            "dropped": _dropped(before, during),
        }


def _handshakes_of(connector: Child) -> list[Event]:
    """Wait for the end of a series of handshakes; return them."""
    deadline = time.monotonic() + _SLACK_S
    events: list[Event] = []
    while time.monotonic() < deadline:
        events += connector.taken_events()
        if any(event["event"] in ("done", "error") for event in events):
            break
        time.sleep(0.05)
    return [event for event in events if event["event"] == "handshake"]


def _amplification(scene: Scene, progress: Progress) -> Document:
    """Send every kind of message in the name of a third party, and count what that one gets."""
    progress("every message type in the name of a third party")
    found = _amplification_run(scene)
    progress("the same, where a HELLO may be short")
    control = _amplification_run(scene, "--without", "padding")
    found["control"] = {**control, "has_failed": control["max"] > 1.0}
    return found


def _amplification_run(scene: Scene, *without: object) -> Document:
    """Return for each kind of message how long its answers are, by all that was sent and by what
    was answered at all, whichever is more: not everything is answered every time."""
    with Children() as children:
        site = Site(scene, children, *without)
        command = python_command("packetcloud.testbed.attack.capture", "--from-port", site.port)
        capture = children.start("capture", command, scene.place("third"))
        capture.wait_event("ready", _START_TIMEOUT_S)
        source = f"{scene.address('third', 'victim')}:{FIRST_PORT}"
        short = ("--short",) if without else ()
        stranger = site.attacker("stranger", "reflect", "--source", source, *short)
        stranger.signal(signal.SIGUSR1)
        done = stranger.wait_event("done", _SLACK_S)
        time.sleep(SETTLE_S)
        capture.signal(signal.SIGUSR1)
        captured = capture.wait_event("captured", _START_TIMEOUT_S)["by_port"]
        types: dict[str, Any] = {}
        for name, port in done["ports"].items():
            asked, sent = done["sent_bytes"][name], done["sent"][name]
            answered, answers = captured.get(str(port), (0, 0))
            each = answered / answers * sent / asked if answers else 0.0
            types[name] = {
                "asked_bytes": asked,
                "sent": sent,
                "answered_bytes": answered,
                "answers": answers,
                "ratio": max(each, answered / asked),
            }
        return {
            "types": types,
            "max": max(found["ratio"] for found in types.values()),
            "answered_types": sum(found["answers"] > 0 for found in types.values()),
        }


def _caps(scene: Scene, timing: Timing, progress: Progress) -> Document:
    """A neighbour fills everything it can, beside an honest one."""
    progress("a neighbour that keeps to nothing")
    found = _caps_run(scene, timing)
    progress("the same without credit")
    control = _caps_run(scene, timing, "--without", "credit")
    found["control"] = {**control, "has_failed": control["passed"] > 0}
    return found


def _caps_run(scene: Scene, timing: Timing, *options: object) -> Document:
    with Children() as children:
        site = Site(scene, children, "--open", *options)
        site.start_honest()
        quiet = site.steady(timing.seconds)
        seconds = max(2.0 * timing.seconds, 2.0)
        hostile = site.attacker("neighbour", "--seconds", seconds)
        before = site.state()
        hostile.signal(signal.SIGUSR1)
        done = hostile.wait_event("done", seconds + _SLACK_S)
        during = site.state()
        in_use = {
            name: {"largest": largest, "limit": HOP.cap(name).limit}
            for name, largest in during["largest"].items()
        }
        return {
            "sent": done["sent"],
            "in_use": in_use,
            "passed": sum(one["largest"] > one["limit"] for one in in_use.values()),
            "goodput_before_gbps": _gbps(*quiet),
            "goodput_during_gbps": _gbps(before, during),
            "goodput_kept": ratio(_gbps(before, during), _gbps(*quiet)),
            "target_cores": _cores(before, during),
            "rss_grown_bytes": during["rss_bytes"] - before["rss_bytes"],
            "dropped": _dropped(before, during),
        }
