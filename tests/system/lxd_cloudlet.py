"""A whole cloudlet for tests: that of the testbed, asked by commands; its service counts chunks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.cloudlet.images.build import BuildRequest, build_image
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.testbed import lxd_cloudlet as testbed
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, CloudletService
from packetcloud.testbed.processes import packetcloud_command
from packetcloud.testbed.tally import NAME, lay_tally, tallied
from tests.system.vi_image import STORE

LIMIT_S = testbed.LIMIT_S
COMMAND = [sys.executable, "-m", "packetcloud.cli"]


class Traffic:
    """Chunks through the service to a host that keeps them all; each send waits for its report."""

    def __init__(self, router: tuple[str, int], sid: SID, interval_s: float, senders: int) -> None:
        self.sent: list[float] = []
        self.failed: list[str] = []
        self.received: list[tuple[float, int, bytes]] = []
        """When, the count that the service wrote, and the payload."""
        self._sid = sid
        self._interval_s = interval_s
        self._ends = threading.Event()
        self._source = BlockingEndpoint.open(router, Identity.generate())
        self._sink = BlockingEndpoint.open(router, Identity.generate())
        self._threads = [
            threading.Thread(target=self._send, args=[n], daemon=True) for n in range(senders)
        ]
        self._reader = threading.Thread(target=self._receive, daemon=True)

    def start(self) -> None:
        for thread in (self._reader, *self._threads):
            thread.start()

    def stop(self) -> None:
        """Send no more; return when every send has ended."""
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._sink.close()
        self._reader.join()
        self._source.close()

    def _send(self, sender: int) -> None:
        number = 0
        while not self._ends.is_set():
            number += 1
            payload = b"%d:%d" % (sender, number)
            result = self._source.send(self._sink.guid, payload, sid=self._sid, lifetime_s=60.0)
            self.sent.append(time.monotonic())
            if not result.ok:
                self.failed.append(f"{payload!r}: {result}")
            self._ends.wait(self._interval_s)

    def _receive(self) -> None:
        while (chunk := self._sink.receive()) is not None:
            self.received.append((time.monotonic(), *tallied(chunk.payload)))


class LxdCloudlet(testbed.LxdCloudlet):
    """One cloudlet; `run` waits for commands of its operators."""

    @property
    def sid(self) -> SID:
        return SID.from_hex(self.sids[NAME])

    def traffic(self, *, interval_s: float = 0.02, senders: int = 2) -> Traffic:
        return Traffic(self.router_address, self.sid, interval_s, senders)

    def exchange(self, size_bytes: int) -> None:
        """Send a chunk of this size through the service; it arrives as it was sent."""
        payload = os.urandom(size_bytes)
        source = BlockingEndpoint.open(self.router_address, Identity.generate())
        sink = BlockingEndpoint.open(self.router_address, Identity.generate())
        with ThreadPoolExecutor(1) as threads:
            taken = threads.submit(sink.receive)
            try:
                result = source.send(sink.guid, payload, sid=self.sid, lifetime_s=60.0)
                assert result.ok, result
                chunk = taken.result()
                assert chunk is not None and tallied(chunk.payload)[1] == payload
            finally:
                source.close()
                sink.close()

    def restart_router(self) -> None:
        """End the router in good order, and start it again with its key and its ports."""
        (config,) = self.folder.glob("router-*/router.toml")
        text = config.read_text()
        for key, address in (
            ("listen", self.router.address),
            ("control_listen", self.router.control),
        ):
            text = re.sub(f'(?m)^({key} = ".*):[0-9]+"', rf'\g<1>:{address[1]}"', text)
        config.write_text(text)
        self.router.child.ask_to_stop()
        self.router.child.wait_exit(30.0)
        words = packetcloud_command("router", "run", config, "--format", "json")
        child = self.children.start("router", words)
        child.wait_document(LIMIT_S)
        self._router = dataclasses.replace(self.router, child=child)

    def run(self, *words: object, code: int | None = 0) -> Any:
        """Run a command of an operator; returns what it says as JSON."""
        done = subprocess.run(
            [*COMMAND, "--format", "json", *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}\n{self.logs()}"
        return json.loads(done.stdout) if done.stdout else None

    def ask(self, *words: object, code: int | None = 0) -> Any:
        """The same for commands that ask the controller."""
        return self.run(*words, "--url", self.url, code=code)

    def text(self, *words: object) -> str:
        """The same for a command that prints plain text."""
        done = subprocess.run(
            [*COMMAND, *map(str, words), "--url", self.url],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        return done.stdout

    def vis(self) -> list[dict[str, Any]]:
        """Return all VIs; none while no controller answers."""
        return [one.model_dump() for one in self.list_vis()]

    def standby(self) -> dict[str, Any]:
        """Wait for the only standby to be ready, and return it."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [one for one in self.vis() if one["role"] == "standby"]
            return [one["state"] for one in found] == ["waiting"]

        self.until(is_there, "a standby waits")
        return found[0]

    def down(self) -> Any:
        """Take it down, as its operator does; returns what the command says."""
        return self.run("cloudlet", "down", self.config_file)


@contextlib.contextmanager
def lxd_cloudlet(
    folder: Path,
    *,
    nodes_count: int = 1,
    replicas: tuple[int, int] = (1, 2),
    declared: Mapping[str, Any] | None = None,
    network: Mapping[str, str] | None = None,
    standbys: int = 0,
    boot_vcpu: float = 1.0,
) -> Iterator[LxdCloudlet]:
    """A cloudlet that runs, with its router, on private LXD servers; nothing is left of it.

    Args:
        declared: more keys of its service.
        network: more keys of the [network] table.
    """
    service = lay_tally(folder)
    image, _ = build_image(STORE, BuildRequest(manifest=service), lambda progress: None)
    for older in STORE.images():  # the newest stays, for the next test and the next run
        if older.name == image.name and older.version != image.version:
            STORE.remove(older.version)
    table = {"replicas_min": replicas[0], "replicas_max": replicas[1], "standbys": standbys}
    plan = CloudletPlan(
        [CloudletService(NAME, str(service), image, table=table | dict(declared or {}))],
        nodes_count=nodes_count,
        table={"boot_vcpu": boot_vcpu},
        network=network or {},
    )
    with testbed.lxd_cloudlet(folder, plan, LxdCloudlet) as made:
        yield made
