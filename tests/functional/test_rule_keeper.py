"""The keeper's process and the router's end of it, with a real child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from packetcloud.router.errors import RuleStoreError, RulesUnavailableError
from packetcloud.router.rules import keeper_link
from packetcloud.router.rules.keeper_link import MAX_LINE_BYTES, MAX_REQUESTS_COUNT, KeeperLink
from packetcloud.router.rules.keeper_process import line_of, lock_folder
from tests.unit.router.rules.keeping import POLICY, head
from tests.unit.router.rules.rule_documents import body_of, rule_record, signed

LIMIT_S = 30.0
SLOW = """
import json, socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
for line in link.makefile("rb"):
    message = json.loads(line)
    if message["do"] in ("open", "now"):
        answer = {"id": message["id"], "result": message}
        link.sendall(json.dumps(answer).encode() + b"\\n")
    elif message["do"] == "die":
        break
"""
"""A keeper that answers what it is asked `now`, and leaves everything else unanswered."""


def _link(folder: Path, **more: Any) -> KeeperLink:
    opened = more.pop("opened", lambda state: None)
    greeting = {"do": "open", "policy": POLICY.to_json(), "in_force": 0}
    return KeeperLink(folder, time.monotonic, lambda: greeting, opened, **more)


def _run(link: KeeperLink, use: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        try:
            await asyncio.wait_for(use(), LIMIT_S)
        finally:
            await link.stop()

    asyncio.run(run())


def _document(folder: Path, serial: int = 1) -> str:
    record = rule_record(name=f"r{serial}")
    lasting = head(serial=serial, valid_until_s=4e9)
    path = folder / f"document-{serial}"
    path.write_bytes(signed(body_of(record, head=lasting)))
    return str(path)


def test_a_keeper_installs_and_answers(tmp_path: Path) -> None:
    """Over its socket: the last version at the start, then documents and questions. Nobody else may
    read its files, also where somebody else made the folder."""
    (tmp_path / "rules").mkdir(mode=0o755)
    link = _link(tmp_path / "rules")

    async def use() -> None:
        assert link.open()["version"] == 0
        link.start()
        await _until(lambda: link.is_up)
        install = {"do": "install", "is_dry_run": False, "in_force": 0}
        done = await link.request(install | {"file": _document(tmp_path)})
        assert done["outcome"]["accepted"] == 1 and done["state"]["version"] == 1
        again = await link.request(install | {"file": _document(tmp_path)})
        assert again["refusal"]["reason"] == "replayed"
        question = {"do": "ask", "what": "rules", "filters": {}, "cursor": None, "limit": 9}
        (found,) = (await link.request(question))["rules"]
        assert found["name"] == "r1"
        made = {"lock", "rules.sqlite", "rules.sqlite-wal", "000000000001.segment"}
        files = [path for path in (tmp_path / "rules").rglob("*") if path.name in made]
        assert len(files) == len(made)
        assert not [path for path in files if path.stat().st_mode & 0o077], "a secret is in them"

    _run(link, use)


def test_a_keeper_that_dies_is_begun_anew(tmp_path: Path) -> None:
    """With the version that it had made; who waited for it is told at once."""
    states: list[Any] = []
    link = _link(tmp_path / "rules", opened=states.append)

    async def use() -> None:
        link.open()
        link.start()
        await _until(lambda: link.is_up)
        install = {"do": "install", "is_dry_run": False, "in_force": 0}
        await link.request(install | {"file": _document(tmp_path)})
        process_id = link.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGKILL)
        with pytest.raises(RulesUnavailableError):
            await link.request(install | {"file": _document(tmp_path, 2)})
        await _until(lambda: bool(states))
        assert states[0]["version"] in (1, 2) and link.restarts_count == 1
        done = await link.request(install | {"file": _document(tmp_path, 3)})
        assert done["outcome"]["accepted"] == 1

    _run(link, use)


def test_requests_are_bounded(tmp_path: Path) -> None:
    """At the cap all wait; one more is told to try again; when the keeper ends all are told."""
    link = _link(tmp_path, program=(sys.executable, "-c", SLOW))

    async def use() -> None:
        link.open()
        link.start()
        await _until(lambda: link.is_up)
        waiting = [
            asyncio.create_task(link.request({"do": "later"}))
            for _ in range(MAX_REQUESTS_COUNT - 1)
        ]
        await asyncio.sleep(0)
        assert (await link.request({"do": "now", "word": 7}))["word"] == 7
        waiting.append(asyncio.create_task(link.request({"do": "die"})))
        await asyncio.sleep(0)
        with pytest.raises(RulesUnavailableError, match="too many"):
            await link.request({"do": "now"})
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {RulesUnavailableError}
        await _until(lambda: link.is_up)
        assert (await link.request({"do": "now", "word": 8}))["word"] == 8

    _run(link, use)


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_without_a_keeper_nothing_begins(tmp_path: Path, program: str) -> None:
    """A router must not take chunks when its rules cannot be had."""
    link = _link(tmp_path, program=(sys.executable, "-c", program))
    with pytest.raises(RuleStoreError, match="ended before it answered"):
        link.open()
    assert link.process_id is None


def test_a_store_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """The keeper's answer says what is wrong with which file."""
    (tmp_path / "rules.sqlite").write_bytes(b"no database" * 1000)
    link = _link(tmp_path)
    with pytest.raises(RuleStoreError, match=r"rules\.sqlite"):
        link.open()


def test_an_answer_that_is_too_long_says_so() -> None:
    """At the cap it is sent, beyond it an error is, and the keeper goes on."""
    head_bytes = len(line_of({"id": 1, "result": ""}))
    fits = line_of({"id": 1, "result": "x" * (MAX_LINE_BYTES - head_bytes)})
    assert len(fits) == MAX_LINE_BYTES and b"error" not in fits
    over = json.loads(line_of({"id": 1, "result": "x" * (MAX_LINE_BYTES - head_bytes + 1)}))
    assert over["id"] == 1 and "ask for less" in over["error"]


def test_one_keeper_for_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is refused; it takes over when the first is gone."""
    monkeypatch.setattr("packetcloud.router.rules.keeper_process.LOCK_LIMIT_S", 0.1)
    descriptor = lock_folder(tmp_path)
    with pytest.raises(RuleStoreError, match="another router"):
        lock_folder(tmp_path)
    os.close(descriptor)
    os.close(lock_folder(tmp_path))


def test_keepers_that_die_at_once_are_not_begun_without_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause doubles from one to the next, up to its limit."""
    monkeypatch.setattr(keeper_link, "RESTART_S", (0.01, 0.04))
    pauses: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(duration_s: float) -> None:
        if duration_s in (0.01, 0.02, 0.04):
            pauses.append(duration_s)
        await really_sleep(min(duration_s, 0.01))

    monkeypatch.setattr(keeper_link.asyncio, "sleep", sleep)
    program = "import sys\nif sys.argv[-1] != 'go': sys.exit(1)"
    link = _link(tmp_path, program=(sys.executable, "-c", SLOW))

    async def use() -> None:
        link.open()
        link._program = (sys.executable, "-c", program)
        link.start()
        await _until(lambda: link.is_up)
        with pytest.raises(RulesUnavailableError):
            await link.request({"do": "die"})
        await _until(lambda: len(pauses) >= 4)
        assert pauses[:4] == [0.01, 0.02, 0.04, 0.04]

    _run(link, use)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
