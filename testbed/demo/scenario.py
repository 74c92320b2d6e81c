"""What the file passes in each scenario, and the processes of one scenario.

Everything is started afresh for every scenario, through the same commands that people type, so each
router's sums begin at zero and belong to one file. Services are child processes here; `containers`
has them in containers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from packetcloud.chunk.identity import create_identity_file
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.daemons import (
    Router,
    RouterPlan,
    ServiceEntry,
    start_router,
    start_service,
    wait_attached,
    wait_host,
)
from packetcloud.testbed.demo.result import ScenarioResult
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.processes import Child, Children, packetcloud_command

LOCALHOST = "127.0.0.1"
POLL_S = 0.2
SETTLE_S = 5.0
"""How long the router may still hold the last reports after the file is complete."""
_DELIVERED = b"packetcloud_router_delivered_bytes_total "

Progress = Callable[[int], None]
"""Told how many bytes of chunks have been delivered."""


@dataclass(frozen=True, slots=True)
class Step:
    """One service on the way."""

    name: str
    manifest: str
    settings: Mapping[str, object]
    needs_key: bool = False


ENCRYPT = Step("encrypt", "secure-communication", {"direction": "encrypt"}, needs_key=True)
DECRYPT = Step("decrypt", "secure-communication", {"direction": "decrypt"}, needs_key=True)
COMPRESS = Step("compress", "wan-optimizer", {"direction": "compress"})
DECOMPRESS = Step("decompress", "wan-optimizer", {"direction": "decompress"})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name and the services in the order of the sequence."""

    name: str
    steps: Sequence[Step] = ()


SCENARIOS = (
    Scenario("plain"),
    Scenario("encrypt", (ENCRYPT, DECRYPT)),
    Scenario("compress, encrypt, decrypt, decompress", (COMPRESS, ENCRYPT, DECRYPT, DECOMPRESS)),
)


@dataclass(slots=True)
class Stage:
    """The processes of one running scenario."""

    children: Children
    folder: Path
    router: Router
    address: tuple[str, int]
    """Where hosts find the router."""
    watched: list[Child] = field(default_factory=list)
    """Who must not end before the transfer does, besides the router."""
    sids: dict[str, str] = field(default_factory=dict)
    """Of each step's service."""


class BackEnd(Protocol):
    """Where services run."""

    name: str
    protections: Sequence[Mapping[str, Any]]
    """What is between them and this machine, once a scenario ran: name, is_active, cost, remedy."""

    def open_stage(self, scenario: Scenario, folder: Path) -> AbstractContextManager[Stage]:
        """Start router and services of a scenario, which are attached then; end them afterwards."""
        ...


def run_scenario(
    scenario: Scenario,
    file: Path,
    sha256: str,
    folder: Path,
    progress: Progress | None,
    back_end: BackEnd,
) -> ScenarioResult:
    """Start the scenario's processes, send the file, look what became of it, stop everything.

    Args:
        sha256: of the file, counted by us and by nobody who takes part.
        folder: an empty folder for keys, logs and the received file.

    Raises:
        ChildError: a process could not be started, or the transfer did not end.
    """
    with back_end.open_stage(scenario, folder) as stage:
        sent, received = _transfer(stage, scenario, file, progress)
        info = _settled_info(stage.router)
        services = stage.router.get_json("/services")
        if not stage.router.child.is_running:
            raise ChildError(f"the router ended: {stage.router.child.last_words()}")
    by_sid = {one["sid"]: one for one in services}
    figures = {step.name: by_sid[stage.sids[step.name]] for step in scenario.steps}
    return ScenarioResult(scenario.name, sha256, sent, received, info["conservation"], figures)


class ChildProcesses:
    """Services as child processes of `packetcloud service run`: no boundary to hostile code."""

    name = "process"
    protections: Sequence[Mapping[str, Any]] = ()

    @contextmanager
    def open_stage(self, scenario: Scenario, folder: Path) -> Iterator[Stage]:
        with Children(folder) as children:
            yield _start_stage(children, folder, scenario)


def _start_stage(children: Children, folder: Path, scenario: Scenario) -> Stage:
    sids = {
        step.name: create_identity_file(folder / f"{step.name}.key").guid.hex
        for step in scenario.steps
    }
    entries = [ServiceEntry(sid, name) for name, sid in sids.items()]
    plan = RouterPlan((LOCALHOST, 0), (LOCALHOST, 0), entries)
    router = start_router(children, plan)
    stage = Stage(children, folder, router, router.address, sids=sids)
    key_file = folder / "aes.key"
    create_key_file(key_file)
    for step in scenario.steps:
        settings = {**step.settings, **({"key_file": key_file} if step.needs_key else {})}
        identity = folder / f"{step.name}.key"
        stage.watched.append(
            start_service(children, step.name, step.manifest, stage.address, identity, settings)
        )
    for step, child in zip(scenario.steps, stage.watched, strict=True):
        wait_attached(router, child, sids[step.name])
    return stage


def _transfer(
    stage: Stage, scenario: Scenario, file: Path, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send the file from host A to host B; return what each of the two says about it."""
    keys = {name: stage.folder / f"host-{name}.key" for name in ("a", "b")}
    guid_of_b = create_identity_file(keys["b"]).guid.hex
    create_identity_file(keys["a"])
    address = f"{stage.address[0]}:{stage.address[1]}"
    attach = ["--router", address, "--router-guid", stage.router.guid, "--format", "json"]
    inbox = stage.folder / "received"
    # The disk is not what is shown here, and the file is thrown away afterwards.
    options: list[object] = ["--once", "--no-sync", *attach]
    receive = packetcloud_command("host", "receive", inbox, "--key", keys["b"], *options)
    receiver = stage.children.start("host-b", receive)
    wait_host(stage.router, receiver, guid_of_b)
    options = ["--to", guid_of_b, "--key", keys["a"], *attach]
    for step in scenario.steps:
        options += ["--service", stage.sids[step.name]]
    sender = stage.children.start("host-a", packetcloud_command("host", "send", file, *options))
    _watch(stage, sender, progress)
    sent = json.loads(sender.wait_exit(SETTLE_S))
    received = json.loads(receiver.wait_exit(SETTLE_S))
    return sent, received


def _watch(stage: Stage, sender: Child, progress: Progress | None) -> None:
    """Wait until the sender ends; nobody waits for a transfer whose router or service died."""
    while sender.is_running:
        time.sleep(POLL_S)
        for child in (stage.router.child, *stage.watched):
            if not child.is_running:
                raise ChildError(f"{child.name} ended early: {child.last_words()}")
        if progress is not None:
            progress(_delivered_bytes(stage.router.get("/metrics")))


def _delivered_bytes(metrics: bytes) -> int:
    for line in metrics.splitlines():
        if line.startswith(_DELIVERED):
            return int(float(line[len(_DELIVERED) :]))
    return 0


def _settled_info(router: Router) -> dict[str, Any]:
    """Return the router's sums once it holds nothing any more, or what they are after a while."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        info: dict[str, Any] = router.get_json("/info")
        if info["conservation"]["held"] == 0 or time.monotonic() > deadline:
            return info
        time.sleep(POLL_S)
