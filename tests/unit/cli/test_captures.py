"""`packetcloud chunk capture|replay`; a router that runs: see tests/functional."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk import pcapng
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.open_frames import OpenBody
from packetcloud.cli.main import main
from packetcloud.router import capture_client
from tests.unit.router.router_fakes import A, B, S, chunk

Streams = pytest.CaptureFixture[str]
BEGINNING = pcapng.section("test") + pcapng.interface("r1", pcapng.LINK_RAW)


def packet_of(data: bytes, number: int, comment: str = "", kept: int | None = None) -> bytes:
    places = ("192.0.2.1", 1), ("192.0.2.2", 2)
    content = data if kept is None else data[:kept]
    body = OpenBody(*places, 7, number, BodyKind.CHUNK, content, len(data))
    return b"".join(
        pcapng.packet(kept, size, number, comment=comment) for kept, size in body.frames()
    )


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A capture: a taken chunk of text, the same as it left, one that is cut off, one for S."""
    text = chunk(payload=b"text " * 1000)
    asking = chunk(source=B, destination=A, payload=b"other" * 500, services=(S,))
    path = tmp_path / "seen.pcapng"
    path.write_bytes(
        BEGINNING
        + packet_of(text, 1, "taken; from=host x")
        + packet_of(text, 2, "left; to=host y")
        + packet_of(text, 3, "taken; from=host x", kept=300)
        + packet_of(asking, 4, "taken; from=host y")
    )
    return path


def replay(path: Path, *options: str) -> int:
    service = ("--service", "wan-optimizer", "--set", "direction=compress")
    return main(["chunk", "replay", str(path), *service, *options])


def replayed(path: Path, capsys: Streams, *options: str) -> list[int]:
    assert replay(path, "--format", "json", *options) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return [one["packet"] for one in document["chunks"]]


def test_replay_shows_each_verdict(seen: Path, capsys: Streams) -> None:
    """A row for each chunk; what was cut off is told."""
    assert replay(seen) == 0
    streams = capsys.readouterr()
    assert streams.out.count("update") == 2
    assert "1 chunks skipped: the capture has only the beginning" in streams.err
    assert "--snap" in streams.err


def test_replay_takes_what_was_asked_for(seen: Path, capsys: Streams) -> None:
    """By point, name, service and number."""
    assert replayed(seen, capsys) == [1, 4]
    assert replayed(seen, capsys, "--point", "left") == [2]
    assert replayed(seen, capsys, "--sid", S.hex[:6]) == [4]
    assert replayed(seen, capsys, "--guid", A.hex[:6], "--limit", "1") == [1]


def test_a_capture_without_comments_is_replayed_whole(tmp_path: Path, capsys: Streams) -> None:
    """tcpdump says nothing about points, so every chunk counts."""
    path = tmp_path / "plain.pcapng"
    path.write_bytes(BEGINNING + packet_of(chunk(), 1) + packet_of(chunk(), 2))
    assert replayed(path, capsys) == [1, 2]


def test_nothing_to_replay_is_a_no(seen: Path, capsys: Streams) -> None:
    """Exit code 1 when not a single chunk was given to the service, and where to look."""
    assert replay(seen, "--point", "ended") == 1
    assert "packetcloud chunk decode" in capsys.readouterr().err


def test_other_files_are_errors(tmp_path: Path, capsys: Streams) -> None:
    """A file that is no capture is named."""
    path = tmp_path / "text"
    path.write_text("hello")
    assert replay(path) == 2
    assert "neither a pcap nor a pcapng" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--sample", "2/3"], "expected 1/N"),
        (["--sample", "1/0"], "expected 1/N"),
        (["--snap", "5MiB"], "allowed: 0 to 4194304 bytes"),
        (["--guid", "xyz"], "4 to 40 hexadecimal digits"),
        (["--only-failures", "--point", "left"], "give one of the two"),
        (["--rule", "web"], "expected SET/NAME"),
        (["--signer", "00" * 20], "--signer is for --rule"),
        (["--rule", "web/cache", "--url", "127.0.0.1:1"], "is it running"),
        (["--router", "nowhere"], "expected HOST:PORT"),
        (["--router", "127.0.0.1:1"], "is the router running"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, capsys: Streams, options: list[str], text: str
) -> None:
    """Exit code 2, one line that says what is allowed; a capture of before stays as it is."""
    path, before = tmp_path / "x.pcapng", tmp_path / "before.pcapng"
    before.write_bytes(BEGINNING)
    for file in (path, before):
        assert main(["chunk", "capture", *options, "-o", str(file)]) == 2
        assert text in capsys.readouterr().err
    assert not path.exists()
    assert before.read_bytes() == BEGINNING


def test_ctrl_c_ends_a_capture_in_good_order(
    tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0, whole packets in the file, and the router hears of the end."""
    ended: list[bool] = []

    def stream(url: str, query: dict[str, object]) -> Iterator[bytes]:
        assert url == "http://[::1]:4701"
        assert query == {"point": ("ended",), "sample": 9, "snap": 64}
        whole = BEGINNING + packet_of(chunk(), 1)
        try:
            yield whole + packet_of(chunk(), 2)[:-3]
            raise KeyboardInterrupt
        finally:
            ended.append(True)

    monkeypatch.setattr(capture_client, "stream_capture", stream)
    path = tmp_path / "x.pcapng"
    options = ["--router", "[::1]:4701", "--only-failures", "--sample", "1/9", "-o", str(path)]
    assert main(["chunk", "capture", *options, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["packets"] == 1
    assert path.read_bytes() == BEGINNING + packet_of(chunk(), 1)
    assert ended == [True]


def test_decode_shows_comments_and_losses(tmp_path: Path, capsys: Streams) -> None:
    """What the router said of each look, and what it had no room for."""
    path = tmp_path / "seen.pcapng"
    body = OpenBody(("192.0.2.1", 1), ("192.0.2.2", 2), 7, 1, BodyKind.CHUNK, chunk(), len(chunk()))
    ((data, size),) = body.frames()
    comment = "ended; refused: unknown_sid: \x1b[2J"
    path.write_bytes(BEGINNING + pcapng.packet(data, size, 1, comment=comment, lost_count=5))
    assert main(["chunk", "decode", str(path)]) == 0
    streams = capsys.readouterr()
    assert "# ended; refused: unknown_sid: \\x1b[2J" in streams.out
    assert "5 packets were lost while the capture was made" in streams.err
    assert main(["chunk", "decode", str(path), "--format", "json"]) == 0
    (sighting,) = json.loads(capsys.readouterr().out)["datagrams"]
    assert sighting["comment"] == comment
