"""SIGKILLs of keepers and routers: what was acknowledged is in force, a change is whole or none.

The number of kills is an option: `pytest --rule-kills 200`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.http_api import trust_for
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.router.rules.document import Head, line_of
from tests.unit.router.rules.keeping import POLICY, Kept, head
from tests.unit.router.rules.rule_documents import ISP, SERVICE, body_of, rule_record, signed

SEED = 23
RULES_COUNT = 60
LARGE_COUNT = 5000
"""Rules of a change that takes some batches."""
MAX_LARGE_KILLS = 10
LIMIT_S = 30.0
COMMAND = [sys.executable, "-m", "packetcloud.cli"]


class RawKeeper:
    """The keeper's program, asked line by line, to be killed."""

    def __init__(self, folder: Path) -> None:
        self._socket, theirs = socket.socketpair()
        program = "packetcloud.router.rules.keeper_process"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, str(theirs.fileno()), str(folder)],
                pass_fds=[theirs.fileno()],
            )
        self._socket.settimeout(LIMIT_S)
        self._lines = self._socket.makefile("rb")
        self.ask({"do": "open", "policy": POLICY.to_json(), "in_force": 0})

    def say(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps({"id": 1} | message).encode() + b"\n")

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.say(message)
        answer: dict[str, Any] = json.loads(self._lines.readline())
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def has_answered_within(self, limit_s: float) -> bool:
        return bool(select.select([self._socket], [], [], limit_s)[0])

    def kill(self) -> bool:
        """Kill it; tell whether it had answered."""
        self.process.kill()
        self.process.wait()
        rest = b""
        with contextlib.suppress(ConnectionResetError):  # it had not read all that it was told
            while piece := self._socket.recv(1 << 16):
                rest += piece
        self._socket.close()
        return b'"result"' in rest


def _name(serial: int, number: int) -> bytes:
    return serial.to_bytes(4, "big") + number.to_bytes(16, "big")


def _document(folder: Path, serial: int) -> Path:
    """Return a change: new rules, and half of those of the change before withdrawn."""
    records: list[dict[str, Any]] = [
        rule_record(name=f"{serial}-{number}", destination=_name(serial, number).hex())
        for number in range(RULES_COUNT)
    ]
    records += [{"withdraw": f"{serial - 1}-{number}"} for number in range(RULES_COUNT // 2)]
    path = folder / f"document-{serial}"
    path.write_bytes(signed(body_of(*records, head=head(serial=serial, valid_until_s=4e9))))
    return path


def _expected(serials: set[int]) -> set[str]:
    return {
        f"{serial}-{number}"
        for serial in serials
        for number in range(RULES_COUNT // 2 if serial + 1 in serials else 0, RULES_COUNT)
    }


def test_what_was_acknowledged_is_in_force_after_kills(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A keeper killed at any moment of a change: the next one has the change whole, or not at all;
    whole if it was acknowledged. The table that the data plane would load says the same as the
    plain meaning of the rules in the store."""
    chance = random.Random(SEED)
    folder = tmp_path / "rules"
    done: set[int] = set()
    usual_s = 0.1
    half_done = 0
    for serial in range(1, pytestconfig.getoption("--rule-kills") + 1):
        path = _document(tmp_path, serial)
        keeper = RawKeeper(folder)
        began_at = time.monotonic()
        keeper.say({"do": "install", "file": str(path), "is_dry_run": False, "in_force": 0})
        if keeper.has_answered_within(chance.uniform(0, 1.2 * usual_s)):
            usual_s = time.monotonic() - began_at
        is_acknowledged = keeper.kill()
        kept = Kept(folder)
        names = {one.rule.name for one in kept.installed()}
        allowed = [_expected(done | {serial})] + ([] if is_acknowledged else [_expected(done)])
        assert names in allowed, f"seed {SEED}, kill {serial}"
        if names == allowed[0]:
            done.add(serial)
            half_done += not is_acknowledged
        for _ in range(20):
            kept.names_for(_name(chance.randint(1, serial), chance.randrange(RULES_COUNT)))
        for one in (1, serial):
            asked = kept.names_for(_name(one, RULES_COUNT - 1))
            assert asked == ({f"{one}-{RULES_COUNT - 1}"} if one in done else set())
        kept.close()


def test_a_large_change_is_whole_or_none_after_kills(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A keeper killed while one thread reads rules and another writes them: as many as before, or
    all; what the set says about itself is what is there."""
    chance = random.Random(SEED)
    folder = tmp_path / "rules"
    usual_s = 0.5
    kills = min(pytestconfig.getoption("--rule-kills"), MAX_LARGE_KILLS)
    for serial in range(1, kills + 1):
        records = [{"withdraw": f"{serial - 1}-{number}"} for number in range(LARGE_COUNT)]
        records += [
            rule_record(name=f"{serial}-{number}", destination=_name(serial, number).hex())
            for number in range(LARGE_COUNT)
        ]
        path = tmp_path / "document"
        path.write_bytes(signed(body_of(*records, head=head(serial=serial, valid_until_s=4e9))))
        keeper = RawKeeper(folder)
        began_at = time.monotonic()
        keeper.say({"do": "install", "file": str(path), "is_dry_run": False, "in_force": 0})
        if keeper.has_answered_within(chance.uniform(0, 1.2 * usual_s)):
            usual_s = time.monotonic() - began_at
        is_acknowledged = keeper.kill()
        kept = Kept(folder)
        store = kept.keeper.store
        names = {row.name for row in store.rules()}
        serials = {int(name.split("-")[0]) for name in names}
        whole = {f"{one}-{number}" for one in serials for number in range(LARGE_COUNT)}
        assert names == whole, f"seed {SEED}, change {serial}"
        assert sum(one.rules for one in store.sets()) == len(names)
        assert serial in serials or not is_acknowledged
        assert kept.names_for(_name(serial, LARGE_COUNT - 1)) == (
            {f"{serial}-{LARGE_COUNT - 1}"} if serial in serials else set()
        )
        kept.close()


class RuleRouter:
    """`packetcloud router run` with rules, killed and started again in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "router.log"
        create_identity_file(folder / "r.key")
        (folder / "r.toml").write_text(
            '[router]\nname = "r"\nkey_file = "r.key"\nna = 1\nlisten = "127.0.0.1:0"\n'
            'control_listen = "127.0.0.1:0"\n'
            f'[rules]\npath = "rules"\nisp_keys = ["{ISP.public_key.hex()}"]\n'
            f'[[service]]\nsid = "{SERVICE.sid.hex}"\nname = "ids"\n'
        )
        self.start()

    def start(self) -> None:
        """Start it, and return once it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "router", "run", str(self.folder / "r.toml"), "--format", "json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].strip() != "}":
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            lines.append(line)
        self.url: str = json.loads("".join(lines))["control"]

    def keeper_id(self) -> int | None:
        """Return the process id of its keeper."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = [int(word) for word in path.read_text().split()]
        return children[0] if children else None

    def metric(self, name: str) -> float:
        answer = httpx.get(f"{self.url}/metrics", verify=trust_for(self.url))
        for line in answer.text.splitlines():
            if line.startswith(f"packetcloud_router_{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def rule(self, *words: object) -> tuple[int, Any]:
        """Run `packetcloud rule`; return exit code and JSON."""
        verb, *rest = map(str, words)
        done = subprocess.run(
            [*COMMAND, "--format", "json", "rule", verb, *rest, "--url", self.url],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def names(self) -> set[str]:
        code, rules = self.rule("list", "--limit", 1000)
        assert code == 0
        return {f"{one['set']}/{one['name']}" for one in rules}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def router(tmp_path: Path) -> Iterator[RuleRouter]:
    running = RuleRouter(tmp_path)
    yield running
    running.kill()


def _signed_file(folder: Path, name: str, serial: int = 1, signer: Identity = ISP) -> Path:
    lasting = Head(name, serial, None, valid_until_s=4e9)
    body = lasting.to_bytes() + b"".join(
        line_of(rule_record(name=f"r{number}")) for number in range(5)
    )
    path = folder / f"{name}-{serial}.signed"
    path.write_bytes(signed(body, signer))
    return path


def _until(condition: Any) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "condition did not come true"
        time.sleep(0.02)


def test_sets_installed_by_command_outlive_router_and_keeper(
    router: RuleRouter, tmp_path: Path
) -> None:
    """Three sets; SIGKILL of the keeper and of the router; all in force; an old document, a forged
    one and a stranger's are refused and in the log."""
    documents = [_signed_file(tmp_path, name) for name in ("one", "two", "three")]
    for document in documents:
        code, answer = router.rule("install", document)
        assert code == 0 and answer["accepted"] == 5, answer
    everything = {f"{name}/r{n}" for name in ("one", "two", "three") for n in range(5)}
    assert router.names() == everything
    version = answer["version"]

    keeper = router.keeper_id()
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    _until(lambda: router.metric("rule_keeper_restarts_total") == 1)
    _until(lambda: router.metric("rule_keeper_up") == 1)
    assert router.names() == everything

    router.kill()
    router.start()
    assert router.names() == everything
    assert router.metric("rules_version") == version
    assert router.metric('rules_in_force{mode="active"}') == 15

    forged = tmp_path / "forged"
    forged.write_bytes(_signed_file(tmp_path, "one", 2).read_bytes().replace(b'"r3"', b'"r9"'))
    for document, reason in ((documents[0], "replayed"), (forged, "forged")):
        code, answer = router.rule("install", document)
        assert code == 1 and answer["refused"]["reason"] == reason
    stranger = Identity(bytes(31) + b"\x77")
    code, answer = router.rule("install", _signed_file(tmp_path, "theirs", signer=stranger))
    assert (code == 1 and answer["reasons"] == {"service not granted": 5}) or answer["reasons"] == {
        "no proof": 5
    }
    log = router.log.read_text()
    assert "rules refused: replayed" in log and "rules refused: forged" in log
    assert "rules of set theirs" in log
    assert router.names() == everything

    (tmp_path / "isp.key").touch(0o600)
    assert router.rule("install", tmp_path / "absent")[0] == 2
    router.process.send_signal(signal.SIGTERM)
    assert router.process.wait(LIMIT_S) == 0
    assert "Traceback" not in router.log.read_text()


def test_two_installers_at_once_are_each_answered_rightly(
    router: RuleRouter, tmp_path: Path
) -> None:
    """Sets of their own both go in; of two documents with the same serial of one set, one does."""
    pairs = [
        [_signed_file(tmp_path, "a"), _signed_file(tmp_path, "b")],
        [_signed_file(tmp_path, "c"), _signed_file(tmp_path, "c")],
    ]
    codes = []
    for pair in pairs:
        running = [
            subprocess.Popen(
                [*COMMAND, "rule", "install", str(path), "--url", router.url],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for path in pair
        ]
        codes.append(sorted(one.wait(LIMIT_S) for one in running))
    assert codes == [[0, 0], [0, 1]]
    assert router.names() == {f"{name}/r{n}" for name in ("a", "b", "c") for n in range(5)}


def test_a_config_that_withdraws_the_isps_key_takes_its_rules_out_of_force(
    router: RuleRouter, tmp_path: Path
) -> None:
    """On SIGHUP, with a warning in the log; and puts them back when the key is back."""
    assert router.rule("install", _signed_file(tmp_path, "one"))[0] == 0
    config = tmp_path / "r.toml"
    text = config.read_text()
    for isp_keys, active, suspended in (("", 0, 5), (f'"{ISP.guid.hex}"', 5, 0)):
        config.write_text(text.replace(f'"{ISP.public_key.hex()}"', isp_keys))
        router.process.send_signal(signal.SIGHUP)
        _until(lambda: router.metric("rules_suspended") == suspended)  # noqa: B023
        assert router.metric('rules_in_force{mode="active"}') == active
    assert "not in isp_keys" in router.log.read_text()
