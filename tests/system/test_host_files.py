"""`packetcloud host` as processes: a file through a real router, kills, Ctrl-C, errors."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import create_identity_file

LIMIT_S = 60.0
COMMAND = [sys.executable, "-m", "packetcloud.cli"]


class Stage:
    """A router process, two identities and a folder to receive into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        create_identity_file(folder / "router.key")
        self.sender = create_identity_file(folder / "a.key").guid
        self.receiver = create_identity_file(folder / "b.key").guid
        self.inbox = folder / "in"
        self.config = folder / "router.toml"
        self.router_process: subprocess.Popen[str] | None = None
        self.address = "127.0.0.1:0"
        self.start_router()

    def start_router(self) -> None:
        self.config.write_text(
            f'[router]\nname = "r"\nkey_file = "router.key"\nna = 1\nlisten = "{self.address}"\n'
            'control_listen = "127.0.0.1:0"\n'
        )
        process = self.start("router", "run", str(self.config), "--format", "json")
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.communicate()
            text += line
        self.address = json.loads(text)["listen"]
        self.router_process = process

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def start_receiver(self, *words: str) -> subprocess.Popen[str]:
        process = self.start(
            *("host", "receive", str(self.inbox), "--router", self.address),
            *("--key", str(self.folder / "b.key"), "--format", "json", *words),
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("receiving into"), (line, process.communicate())
        return process

    def start_sender(self, path: Path, *words: str) -> subprocess.Popen[str]:
        return self.start(
            *("host", "send", str(path), "--to", self.receiver.hex, "--router", self.address),
            *("--key", str(self.folder / "a.key"), "--format", "json", *words),
        )

    def make_file(self, size: int) -> Path:
        path = self.folder / "data.bin"
        rng = random.Random(size)
        with path.open("wb") as stream:
            for start in range(0, size, 10_000_000):
                stream.write(rng.randbytes(min(10_000_000, size - start)))
        return path

    def part_bytes(self) -> int:
        """How much of an unfinished file is on the disk."""
        parts = self.inbox.glob(".*.part") if self.inbox.exists() else []
        return sum(part.stat().st_blocks * 512 for part in parts)

    def visible(self) -> list[str]:
        names = [path.name for path in self.inbox.iterdir()]
        return sorted(name for name in names if name != ".packetcloud-received")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "condition did not come true"
        time.sleep(0.005)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def last_object(text: str) -> dict[str, Any]:
    start = text.rfind("\n{") + 1 if "\n{" in text else 0
    document: dict[str, Any] = json.loads(text[start:])
    return document


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_a_file_is_sent_and_received(stage: Stage) -> None:
    """Both ends exit 0 and name the same SHA-256, which is the file's."""
    path = stage.make_file(10_000_000)
    receiver = stage.start_receiver("--once")
    code, out, err = ended(stage.start_sender(path))
    assert code == 0, err
    sent = last_object(out)
    code, out, err = ended(receiver)
    assert code == 0, err
    received = last_object(out)
    assert sent["sha256"] == received["sha256"] == sha256(path)
    assert received["bytes"] == 10_000_000
    assert received["from"] == stage.sender.hex
    assert sha256(stage.inbox / "data.bin") == sha256(path)


def test_the_receiver_is_killed_and_comes_back(stage: Stage) -> None:
    """kill -9 in the middle, a new receiver: the running sender goes on, the file is whole."""
    path = stage.make_file(300_000_000)
    receiver = stage.start_receiver()
    sender = stage.start_sender(path)
    until(lambda: stage.part_bytes() > 20_000_000 or sender.poll() is not None)
    receiver.kill()
    ended(receiver)
    receiver = stage.start_receiver("--once")
    code, out, err = ended(sender)
    assert code == 0, err
    assert last_object(out)["sha256"] == sha256(path)
    ended(receiver)
    assert sha256(stage.inbox / "data.bin") == sha256(path)
    assert stage.visible() == ["data.bin"]


def test_the_sender_is_killed_and_resumes(stage: Stage) -> None:
    """kill -9 in the middle, then --resume: only the rest is sent, the file is whole."""
    path = stage.make_file(300_000_000)
    receiver = stage.start_receiver("--once")
    sender = stage.start_sender(path)
    until(lambda: stage.part_bytes() > 20_000_000 or sender.poll() is not None)
    sender.kill()
    ended(sender)
    code, out, err = ended(stage.start_sender(path, "--resume"))
    assert code == 0, err
    assert last_object(out)["had_bytes"] > 10_000_000
    assert last_object(out)["sha256"] == sha256(path)
    code, _, err = ended(receiver)
    assert code == 0, err
    assert stage.visible() == ["data.bin"]


def test_the_router_is_killed_and_comes_back(stage: Stage) -> None:
    """What the router held is gone; the sender sends it again and the file is whole."""
    path = stage.make_file(200_000_000)
    receiver = stage.start_receiver("--once")
    sender = stage.start_sender(path)
    until(lambda: stage.part_bytes() > 20_000_000 or sender.poll() is not None)
    assert stage.router_process is not None
    stage.router_process.kill()
    stage.router_process.wait()
    stage.start_router()
    code, _, err = ended(sender)
    assert code == 0, err
    ended(receiver)
    assert sha256(stage.inbox / "data.bin") == sha256(path)


def test_ctrl_c_tells_how_to_resume(stage: Stage) -> None:
    """130, the very command that goes on, and no traceback; that command then works."""
    path = stage.make_file(300_000_000)
    stage.start_receiver()
    sender = stage.start_sender(path)
    until(lambda: stage.part_bytes() > 20_000_000 or sender.poll() is not None)
    sender.send_signal(signal.SIGINT)
    code, out, err = ended(sender)
    assert code == 130, (out, err)
    assert "Traceback" not in err
    assert "--resume" in err
    assert f"--to {stage.receiver.hex}" in err
    code, out, err = ended(stage.start_sender(path, "--resume"))
    assert code == 0, err
    assert last_object(out)["had_bytes"] > 0


def test_a_stopped_receiver_ends_cleanly(stage: Stage) -> None:
    """Without a count Ctrl-C is the normal end (0); with one that was not reached it is 130."""
    for words, expected in [((), 0), (("--count", "2"), 130)]:
        receiver = stage.start_receiver(*words)
        receiver.send_signal(signal.SIGTERM)
        code, _, err = ended(receiver)
        assert code == expected, err
        assert "Traceback" not in err


def test_negative_answers_say_why(stage: Stage) -> None:
    """The receiver has not got the file: exit 1, the reason, and what to look at."""
    path = stage.make_file(10)
    code, _, err = ended(stage.start_sender(path))
    assert code == 1
    assert "unresolvable_guid" in err
    assert "is the destination attached" in err
    stage.start_receiver("--from", "00" * 20)
    code, _, err = ended(stage.start_sender(path))
    assert code == 1
    assert "not_allowed" in err
    code, _, err = ended(stage.start_sender(path, "--service", "11" * 20))
    assert code == 1
    assert "unknown_sid" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--service", "11"), "expected 40 hexadecimal digits"),
        (("--chunk-bytes", "10"), "allowed 1024"),
        (("--chunk-bytes", "much"), "expected bytes like"),
        (("--router", "nowhere"), "expected HOST:PORT"),
        (("--key", "none.key"), "packetcloud identity create"),
        (("--router", "127.0.0.1:1"), "no session with the router at 127.0.0.1:1"),
    ],
)
def test_what_cannot_run_says_what_to_do(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Exit 2, one line, the next step; no router is needed to find out."""
    create_identity_file(tmp_path / "a.key")
    file = tmp_path / "f"
    file.write_bytes(b"x")
    where = ("--router", "127.0.0.1:1", "--key", str(tmp_path / "a.key"))
    process = subprocess.run(
        [*COMMAND, "host", "send", str(file), "--to", "11" * 20, *where, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert process.returncode == 2
    assert said in process.stderr
    assert process.stderr.count("\n") == 1


def test_a_second_receiver_on_the_folder_is_refused(stage: Stage) -> None:
    """Another process on the same folder would mix up parts: exit 2, with words."""
    stage.start_receiver()
    create_identity_file(stage.folder / "c.key")
    second = stage.start(
        *("host", "receive", str(stage.inbox), "--router", stage.address),
        *("--key", str(stage.folder / "c.key")),
    )
    code, _, err = ended(second)
    assert code == 2
    assert "another receiver" in err


def test_ping(stage: Stage) -> None:
    """A host that runs answers; one that does not exits 1 with the reason."""
    words = ("--router", stage.address, "--key", str(stage.folder / "a.key"), "--format", "json")
    quick = ("--interval", "0", "--count", "3")
    code, out, _ = ended(stage.start("host", "ping", stage.receiver.hex, *words, *quick))
    assert code == 1
    assert "unresolvable_guid" in last_object(out)["failures"][0]
    stage.start_receiver()
    code, out, _ = ended(stage.start("host", "ping", stage.receiver.hex, *words, *quick))
    assert code == 0
    assert last_object(out)["answered"] == 3
