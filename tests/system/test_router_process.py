"""The router as a process: ready, signals, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from packetcloud.chunk.http_api import trust_for
from packetcloud.chunk.identity import create_identity_file

LIMIT_S = 30.0
COMMAND = [sys.executable, "-m", "packetcloud.cli"]


class RouterProcess:
    """`packetcloud router run` on free ports."""

    def __init__(self, folder: Path, more: str = "") -> None:
        create_identity_file(folder / "r.key")
        self.config = folder / "r.toml"
        self.write(more)
        self.process = subprocess.Popen(
            [*COMMAND, "router", "run", str(self.config), "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].strip() != "}":
            line = self.process.stdout.readline()
            assert line, self.process.communicate()
            lines.append(line)
        self.ready = json.loads("".join(lines))

    def write(self, more: str) -> None:
        self.config.write_text(
            '[router]\nname = "r"\nkey_file = "r.key"\nna = 1\nlisten = "127.0.0.1:0"\n'
            f'control_listen = "127.0.0.1:0"\n{more}\n'
        )

    def get(self, path: str) -> httpx.Response:
        url = self.ready["control"] + path
        return httpx.get(url, verify=trust_for(url))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, "condition did not come true"
            time.sleep(0.02)

    def stop(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, log


@pytest.fixture
def router(tmp_path: Path) -> Iterator[RouterProcess]:
    running = RouterProcess(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
    running.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_router_answers_and_stops_in_good_order(router: RouterProcess, number: int) -> None:
    """Ready once its line is printed; one signal drains and ends it with exit code 0."""
    assert router.get("/readyz").status_code == 200
    status = subprocess.run(
        [*COMMAND, "router", "status", "--url", router.ready["control"], "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(status.stdout)
    assert document["info"]["guid"] == router.ready["guid"]
    code, log = router.stop(number)
    assert code == 0, log
    assert "Traceback" not in log


def test_sighup_reads_the_config_again(router: RouterProcess) -> None:
    """A mistake is logged and changes nothing; then a good file is taken."""
    router.write("[hosts]\nacept = 3")
    router.process.send_signal(signal.SIGHUP)
    router.until(lambda: router.get("/info").json()["reload"] is not None)
    reload = router.get("/info").json()["reload"]
    assert not reload["succeeded"] and "[hosts] acept: unknown key" in reload["detail"]
    router.write('[services]\nunlisted = "accept"')
    router.process.send_signal(signal.SIGHUP)
    router.until(lambda: router.get("/info").json()["reload"]["succeeded"])
    assert router.get("/config").json()["services"] == {"unlisted": "accept"}
    code, log = router.stop(signal.SIGTERM)
    assert code == 0 and "config not read again" in log


def test_wrong_config_and_absent_router_exit_with_2(tmp_path: Path) -> None:
    """One line on standard error, exit code 2, never a traceback."""
    path = tmp_path / "r.toml"
    path.write_text('[router]\nname = "r"\nkey_file = "r.key"\nna = 0\n')
    for arguments, text in (
        (["check", str(path)], "[router] na = 0: allowed: a whole number from 1"),
        (["run", str(path)], "[router] na = 0: allowed: a whole number from 1"),
        (["check", str(tmp_path / "none.toml")], "config sample router"),
        (["status", "--url", "http://127.0.0.1:1"], "is the router running"),
    ):
        done = subprocess.run(
            [*COMMAND, "router", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done
        assert text in done.stderr
        assert done.stderr.count("\n") == 1 and not done.stdout
