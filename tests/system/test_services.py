"""`packetcloud service run` with real processes: restarts, limits, a clean end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import ensureDeferred

from packetcloud.chunk.identity import create_identity_file
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.scaffold import create_service
from tests.functional.service_router import TaskRouter

LIMIT_S = 60.0
WAIT_S = 20.0
COMMAND = [sys.executable, "-m", "packetcloud.cli", "service"]
MANIFEST = """\
manifest = 1
[service]
name = "probe"
version = "0.0.1"
entry_point = "probe_service:Probe"
[parameters.must_start]
type = "boolean"
default = true
[resources]
memory_mib = 64
open_files = 48
[behaviour]
fail_policy = "closed"
max_expansion_ratio = 1000
state = "export"
[supervision]
quarantine_crashes = 3
"""
MODULE = '''\
import os, resource, subprocess, sys, threading

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.sdk import NetworkService, Verdict


class Probe(NetworkService):
    """Answers with the value of the expression in the payload."""

    def start(self, context):
        self.seen = 0
        if not context.parameters.flag("must_start"):
            raise ServiceConfigError("told not to start")

    def process(self, chunk, context):
        self.seen += 1
        return Verdict.update(repr(eval(bytes(chunk.payload).decode())).encode())

    def hang(self):
        while True:
            pass

    def export_state(self):
        return str(self.seen).encode()

    def import_state(self, state):
        self.seen = int(state)
'''


class Probe:
    """A router, and the command that runs the probe service against it."""

    def __init__(self, reactor: Any, folder: Path, started: list[subprocess.Popen[bytes]]) -> None:
        self.router = TaskRouter(reactor)
        self.folder = folder
        self.state_dir = folder / "state"
        self.log = folder / "log"
        self.address = self.router.start()
        self._started = started
        (folder / "manifest.toml").write_text(MANIFEST)
        (folder / "probe_service.py").write_text(MODULE)
        if not (folder / "key").exists():
            create_identity_file(folder / "key")

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        arguments = [*COMMAND, "run", str(self.folder), "--router", self.address]
        arguments += ["--key", str(self.folder / "key"), "--state-dir", str(self.state_dir)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*arguments, *options],
                stderr=log,
                env=os.environ | {"SECRET": "not for services"},
            )
        self._started.append(process)
        return process

    async def attached(self, count: int = 1) -> None:
        await self.router.until(lambda: self.router.attached_count >= count, WAIT_S)

    async def ask(self, expression: str) -> Any:
        """Let the service evaluate an expression."""
        head, payload = await self.router.verdict(expression.encode())
        assert head.code is VerdictCode.UPDATE, head.detail
        return eval(payload)

    def listed(self) -> list[dict[str, Any]]:
        """Return the replicas that `service list` shows."""
        arguments = [*COMMAND, "list", "--state-dir", str(self.state_dir), "--format", "json"]
        document = json.loads(subprocess.check_output(arguments, timeout=30))
        return [replica for service in document["running"] for replica in service["replicas"]]

    async def until_listed(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def holds() -> bool:
            found[:] = [replica for replica in self.listed() if wanted(replica)]
            return bool(found)

        await self.router.until(holds, WAIT_S)
        return found[0]

    async def ended(self, process: subprocess.Popen[bytes]) -> int:
        await self.router.until(lambda: process.poll() is not None, WAIT_S)
        return process.returncode


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Callable[[Probe], Coroutine[Any, Any, None]]], None]]:
    """Return a function that runs a test with a probe; every process is ended whatever happens."""
    started: list[subprocess.Popen[bytes]] = []

    def run_test(test: Callable[[Probe], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.new_event_loop()
        try:
            reactor = AsyncioSelectorReactor(loop)
            probe = Probe(reactor, tmp_path, started)
            deferred = ensureDeferred(test(probe))
            loop.run_until_complete(asyncio.wait_for(deferred.asFuture(loop), LIMIT_S))
            loop.run_until_complete(ensureDeferred(probe.router.stop()).asFuture(loop))
        finally:
            loop.close()
            if (tmp_path / "log").exists():
                print((tmp_path / "log").read_text())

    yield run_test
    for process in started:
        process.kill()
        process.wait()


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_vi_killed_again_and_again_comes_back_at_once(run: Any) -> None:
    """20 SIGKILLs in the middle of a task: attached again each time, never quarantined."""

    async def test(probe: Probe) -> None:
        process = probe.start()
        await probe.attached()
        times = []
        for count in range(1, 21):
            pid = await probe.ask("os.getpid()")
            probe.router.give(b"__import__('time').sleep(5)")
            started = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await probe.attached(count + 1)
            times.append(time.monotonic() - started)
        print(f"attached again after {sorted(times)[10]:.3f} s (median), {max(times):.3f} s (most)")
        assert sorted(times)[10] < 3.0
        replica = await probe.until_listed(lambda replica: replica["restarts"] == 20)
        assert (replica["state"], replica["last_exit"]) == ("running", "killed by SIGKILL")
        process.terminate()
        assert await probe.ended(process) == 0

    run(test)


def test_a_vi_that_keeps_crashing_is_quarantined_until_released(run: Any) -> None:
    """Three crashes in a minute; `service list` shows it; SIGHUP tries again."""

    async def test(probe: Probe) -> None:
        process = probe.start()
        for count in range(1, 4):
            await probe.attached(count)
            probe.router.give(b"os._exit(7)")
        replica = await probe.until_listed(lambda replica: replica["state"] == "quarantined")
        assert replica["last_exit"] == "exit code 7"
        process.send_signal(signal.SIGHUP)
        await probe.attached(4)
        assert await probe.ask("6 * 7") == 42
        process.terminate()
        assert await probe.ended(process) == 0

    run(test)


def test_a_vi_that_hangs_is_killed_and_replaced(run: Any) -> None:
    """A `process` that never returns: no sign of life for ten seconds, then a new VI."""

    async def test(probe: Probe) -> None:
        process = probe.start("--execution", "inline")
        await probe.attached()
        probe.router.give(b"self.hang()")
        await probe.attached(2)
        replica = await probe.until_listed(lambda replica: replica["state"] == "running")
        assert (replica["restarts"], replica["last_exit"]) == (1, "killed by SIGKILL")
        assert "no sign of life" in probe.log.read_text()
        process.terminate()
        assert await probe.ended(process) == 0

    run(test)


def test_sigterm_finishes_tasks_and_leaves_nothing(run: Any) -> None:
    """Exit code 0, no process, no status file; the state went to its file and comes back."""

    async def test(probe: Probe) -> None:
        state = str(probe.folder / "seen")
        process = probe.start("--state", state)
        await probe.attached()
        pid = await probe.ask("os.getpid()")
        await probe.ask("self.seen")
        task_id = probe.router.give(b"__import__('time').sleep(0.3)")
        await probe.router.until(lambda: probe.router.services[-1].queued_bytes == 0)
        process.terminate()
        assert await probe.ended(process) == 0
        assert task_id in probe.router.verdicts
        assert not is_alive(pid)
        assert probe.listed() == []
        probe.start("--state", state)
        await probe.attached(2)
        assert await probe.ask("self.seen") == 4

    run(test)


def test_vis_die_with_their_supervisor(run: Any) -> None:
    """SIGKILL of the supervisor leaves no orphan, and its status file counts for nothing."""

    async def test(probe: Probe) -> None:
        process = probe.start("--replicas", "2")
        await probe.attached(2)
        await probe.until_listed(lambda replica: replica.get("pid"))
        pids = [replica["pid"] for replica in probe.listed()]
        assert len(set(pids)) == 2
        process.kill()
        process.wait()
        await probe.router.until(lambda: not any(is_alive(pid) for pid in pids))
        assert probe.listed() == []

    run(test)


def test_what_a_service_leaves_behind_ends_with_it(run: Any) -> None:
    """A process that it started goes too when the VI is killed."""

    async def test(probe: Probe) -> None:
        process = probe.start()
        await probe.attached()
        helper = await probe.ask("subprocess.Popen(['sleep', '300']).pid")
        pid = await probe.ask("os.getpid()")
        assert is_alive(helper)
        os.kill(pid, signal.SIGKILL)
        await probe.router.until(lambda: not is_alive(helper))
        process.terminate()
        assert await probe.ended(process) == 0

    run(test)


def test_a_vi_has_its_limits_and_little_of_our_environment(run: Any) -> None:
    """Memory, files, core, privileges, session, descriptors, environment, imports."""

    async def test(probe: Probe) -> None:
        process = probe.start()
        await probe.attached()
        head, _ = await probe.router.verdict(b"len(bytearray(1 << 30))")
        assert (head.code, head.detail) == (VerdictCode.FAILED, b"MemoryError: ")
        assert await probe.ask("len(bytearray(32 << 20))") == 32 << 20
        assert await probe.ask("resource.getrlimit(resource.RLIMIT_NOFILE)") == (48, 48)
        assert await probe.ask("resource.getrlimit(resource.RLIMIT_CORE)") == (0, 0)
        assert "NoNewPrivs:\t1" in await probe.ask("open('/proc/self/status').read()")
        assert await probe.ask("os.getsid(0) == os.getpid()")
        assert await probe.ask("'SECRET' in os.environ") is False
        descriptors = await probe.ask(
            "[os.readlink(f'/proc/self/fd/{n}') for n in range(3, 12) "
            "if os.path.exists(f'/proc/self/fd/{n}')]"
        )
        kinds = {name.split(":")[0] for name in descriptors}
        assert kinds <= {"pipe", "socket", "anon_inode"}, "a file of the supervisor's got through"
        loaded = await probe.ask("sorted({name.split('.')[0] for name in sys.modules})")
        heavy = {"fastapi", "pydantic", "click", "rich", "scapy", "matplotlib", "uvicorn", "httpx"}
        assert heavy & set(loaded) == set()
        process.terminate()
        assert await probe.ended(process) == 0

    run(test)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_service_that_cannot_start_ends_the_command(run: Any, isolation: str) -> None:
    """Exit code 2 with the service's own words, and no restart."""

    async def test(probe: Probe) -> None:
        process = probe.start("--set", "must_start=false", "--isolation", isolation)
        assert await probe.ended(process) == 2
        assert "packetcloud: told not to start" in probe.log.read_text()
        assert probe.listed() == []

    run(test)


def test_without_isolation_it_runs_in_the_commands_own_process(run: Any) -> None:
    """For a debugger; listed all the same, and SIGINT ends it in good order."""

    async def test(probe: Probe) -> None:
        process = probe.start("--isolation", "none")
        await probe.attached()
        assert await probe.ask("os.getpid()") == process.pid
        replica = await probe.until_listed(lambda replica: replica["attachment"] == "attached")
        assert replica["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        assert await probe.ended(process) == 0
        assert probe.listed() == []

    run(test)


def test_the_scaffold_passes_its_own_test(tmp_path: Path) -> None:
    """What an author starts from works as it is."""
    *_, test_file = create_service("hello-world", tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test_file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
