"""A whole cloudlet on this machine for tests: router, controller, LXD servers and a service.

Everything is the real thing: the commands, containers, bridges, filters. The service counts the
chunks that it sees and writes the count before each payload; the count is its state.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.chunk.names import SID
from packetcloud.cloudlet.images.build import BuildRequest, build_image
from packetcloud.cloudlet.images.recipe import ImageError
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.testbed.lxd_daemon import POOL, LxdDaemon
from packetcloud.testbed.peers.tools import free_port
from tests.system.vi_image import STORE

LIMIT_S = 120.0
COMMAND = [sys.executable, "-m", "packetcloud.cli"]
MANIFEST = """\
manifest = 1
[service]
name = "tally"
version = "1.0.0"
entry_point = "tally_service:Tally"
[behaviour]
fail_policy = "closed"
state = "export"
deadline_ms = 20000
[supervision]
first_delay_s = 0.1
longest_delay_s = 1.0
"""
MODULE = """\
from packetcloud.services.sdk import NetworkService, Verdict


class Tally(NetworkService):
    def start(self, context):
        self.seen = 0

    def process(self, chunk, context):
        self.seen += 1
        return Verdict.update(b"%d " % self.seen + bytes(chunk.payload))

    def export_state(self):
        return b"%d" % self.seen

    def import_state(self, state):
        self.seen = int(state)
"""


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
            count, _, payload = chunk.payload.partition(b" ")
            self.received.append((time.monotonic(), int(count), payload))


class LxdCloudlet:
    """One cloudlet; `run` waits for commands of its operators."""

    def __init__(
        self, folder: Path, daemons: Sequence[LxdDaemon], replicas: tuple[int, int]
    ) -> None:
        self.folder = folder
        self.daemons = daemons
        tag = os.getpid() % 60_000
        third = tag % 250
        service = folder / "tally"
        service.mkdir()
        (service / "manifest.toml").write_text(MANIFEST)
        (service / "tally_service.py").write_text(MODULE)
        self.sid = create_identity_file(folder / "tally.key").sid
        create_identity_file(folder / "r.key")
        self.image, _ = build_image(STORE, BuildRequest(manifest=service), lambda progress: None)
        self.router_port, self.api_port, control_port = _free_udp_port(), free_port(), free_port()
        router_api = free_port()
        (folder / "r.toml").write_text(
            '[router]\nname = "r"\nkey_file = "r.key"\nna = 1\n'
            f'listen = "0.0.0.0:{self.router_port}"\n'
            f'control_listen = "127.0.0.1:{router_api}"\n'
            f'private_links = ["127.0.0.0/8", "10.213.{third}.0/24"]\n[cloudlet]\npath = "table"\n'
        )
        nodes = "".join(
            f'[[node]]\nname = "n{number}"\nsocket = "{path}"\npool = "{POOL}"\n'
            for number, path in enumerate((one.socket for one in daemons), 1)
        )
        (folder / "c.toml").write_text(
            f'[cloudlet]\nname = "e{tag}"\nstate = "state"\nimages = "{STORE.folder}"\n'
            f'api_listen = "127.0.0.1:{self.api_port}"\ncontrol_port = {control_port}\n'
            f'[router]\nurl = "http://127.0.0.1:{router_api}"\nport = {self.router_port}\n'
            f'[network]\ndata_bridge = "pce{tag}d"\ncontrol_bridge = "pce{tag}c"\n'
            f'data_ipv4 = "10.213.{third}.0/24"\ncontrol_ipv4 = "10.214.{third}.0/24"\n'
            f'data_ipv6 = "fd5a:7c1e:{tag:x}:1::/64"\ncontrol_ipv6 = "fd5a:7c1e:{tag:x}:2::/64"\n'
            f'filter_table = "pce{tag}"\n{nodes}'
            f'[[service]]\nmanifest = "tally"\nkey = "tally.key"\nreplicas_min = {replicas[0]}\n'
            f"replicas_max = {replicas[1]}\n"
            "scaling = { up_wait_s = 600.0, down_after_s = 86400.0 }\n"
        )
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.router: subprocess.Popen[bytes] | None = None
        self.controller: subprocess.Popen[bytes] | None = None

    def start_router(self) -> None:
        self.router = self._start("router", "run", "r.toml")

    def start_controller(self, *more: str) -> None:
        self.controller = self._start("cloudlet", "run", "c.toml", *more)

    def stop_controller(self) -> None:
        """End it in good order."""
        assert self.controller is not None
        self.controller.send_signal(signal.SIGTERM)
        assert self.controller.wait(30) == 0, self.logs()
        self.controller = None

    def kill_controller(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.wait()
        self.controller = None

    def traffic(self, *, interval_s: float = 0.01, senders: int = 4) -> Traffic:
        return Traffic(("127.0.0.1", self.router_port), self.sid, interval_s, senders)

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
        found: list[dict[str, Any]] = self.ask("vi", "list")
        return found

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"condition did not come true\n{self.logs()}"
            for child in (self.router, self.controller):
                assert child is None or child.poll() is None, self.logs()
            time.sleep(0.05)

    def until_running(self, count: int = 1) -> None:
        def is_so() -> bool:
            vis = self.ask("vi", "list", code=None) or []
            attached = [one for one in vis if one["state"] == "running" and one["is_attached"]]
            return len(attached) == len(vis) == count

        self.until(is_so)

    def logs(self) -> str:
        """Return the ends of all logs, and what VIs wrote."""
        texts = [f"{path}:\n{path.read_text()[-6000:]}" for path in self.folder.glob("*.log")]
        if self.controller is not None and self.controller.poll() is None:
            for words in (["vi", "list"], ["cloudlet", "status"]):
                done = subprocess.run(
                    [*COMMAND, *words, "--url", self.url],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                texts.append(done.stdout + done.stderr)
        return "\n".join(texts)

    def close(self) -> None:
        """End everything, in order where that is possible."""
        for child in (self.controller, self.router):
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        with contextlib.suppress(AssertionError):
            self.run("cloudlet", "down", "c.toml")
        with contextlib.suppress(ImageError):  # another test had the same, and removed it
            STORE.remove(self.image.version)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        path = self.folder / f"{words[0]}.log"
        before = path.stat().st_size if path.exists() else 0
        out = self.folder / f"{words[0]}.out"
        out.write_bytes(b"")
        with path.open("ab") as log, out.open("ab") as answer:
            child = subprocess.Popen(
                [*COMMAND, "--format", "json", *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=log,
            )
        end = time.monotonic() + LIMIT_S
        while not out.read_bytes().endswith(b"}\n"):
            text = path.read_bytes()[before:].decode()
            assert child.poll() is None and time.monotonic() < end, text
            time.sleep(0.02)
        return child


@contextlib.contextmanager
def lxd_cloudlet(
    folder: Path, *, nodes_count: int = 1, replicas: tuple[int, int] = (1, 2)
) -> Iterator[LxdCloudlet]:
    """A cloudlet that runs, with its router, on private LXD servers; nothing is left of it."""
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(LxdDaemon()) for _ in range(nodes_count)]
        made = LxdCloudlet(folder, daemons, replicas)
        stack.callback(made.close)
        made.start_router()
        made.start_controller()
        yield made


def _free_udp_port() -> int:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        port: int = probe.getsockname()[1]
        return port
