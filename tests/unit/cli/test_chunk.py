"""`packetcloud chunk decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.hop import wire
from packetcloud.cli.main import main
from tests.unit.chunk.captures import THERE, frame, pcap, pcapng
from tests.vectors.chunk_v1_valid import SIDS, SOURCE, make_header
from tests.vectors.hop_v2_valid import (
    Segment,
    good_datagrams,
)

FRAMES = [frame(datagram) for datagram in good_datagrams().values()]
Streams = pytest.CaptureFixture[str]


def decode(path: Path, *options: str) -> int:
    return main(["chunk", "decode", str(path), *options])


def decode_json(path: Path, capsys: Streams, *options: str) -> list[dict[str, Any]]:
    assert decode(path, "--format", "json", *options) == 0
    datagrams: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["datagrams"]
    return datagrams


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "hop.pcap"
    path.write_bytes(pcap(FRAMES))
    return path


def test_json_holds_every_datagram(capture: Path, capsys: Streams) -> None:
    """One object for each datagram, in the order of the capture, with chunk headers in it."""
    datagrams = decode_json(capture, capsys)
    assert [entry["packet"] for entry in datagrams] == list(range(1, len(FRAMES) + 1))
    assert {entry["type"] for entry in datagrams} >= {"hello", "data", "bundle", "control"}
    assert all(entry["error"] is None for entry in datagrams)
    sources = {
        body["chunk"]["source"]
        for entry in datagrams
        for body in entry.get("bodies", ())
        if "chunk" in body
    }
    assert sources == {SOURCE.hex}


def test_the_table_says_what_people_look_for(capture: Path, capsys: Streams) -> None:
    """Names, sizes, verdicts, reasons, handshakes; segments in a row share a line."""
    assert decode(capture) == 0
    streams = capsys.readouterr()
    for text in (
        SOURCE.short,
        "segments 0-2",
        "verdict update",
        "ack largest_burst 3",
        "role router",
        "reason unknown_sid",
        "192.0.2.2:4700",
        "close reason shutting down",
    ):
        assert text in streams.out
    assert f"{len(FRAMES)} hop datagrams shown, 0 of them malformed" in streams.err


def test_pcapng_and_standard_input(
    tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both formats, and a capture from a pipe."""
    path = tmp_path / "hop.pcapng"
    path.write_bytes(pcapng(FRAMES))
    assert len(decode_json(path, capsys)) == len(FRAMES)
    with path.open("rb") as stream:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stream})())
        assert main(["chunk", "decode", "-", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["datagrams"]) == len(FRAMES)


def test_filters_and_limit(capture: Path, capsys: Streams) -> None:
    """--guid, --sid, --port and --limit choose; a reached limit is told."""
    assert len(decode_json(capture, capsys, "--limit", "3")) == 3
    assert len(decode_json(capture, capsys, "--port", "4701")) == 0
    assert len(decode_json(capture, capsys, "--sid", SIDS[0].hex)) == 0
    of_chunks = decode_json(capture, capsys, "--guid", SOURCE.short.upper())
    assert {entry["type"] for entry in of_chunks} == {"data", "bundle"}
    assert decode(capture, "--limit", "1") == 0
    assert "Stopped after 1 datagrams" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--guid", "--sid"])
@pytest.mark.parametrize("text", ["xyz1", "abc", "0" * 41, ""])
def test_a_filter_must_be_hex_digits(
    capture: Path, capsys: Streams, option: str, text: str
) -> None:
    """A name that cannot be one is refused with what is allowed; exit code 2."""
    assert decode(capture, option, text) == 2
    assert "4 to 40 hexadecimal digits" in capsys.readouterr().err


def test_bad_bytes_are_shown_with_their_reason(tmp_path: Path, capsys: Streams) -> None:
    """On the given port everything is shown: what it is, or why it is nothing."""
    bad = make_header().to_bytes()[:-1] + b"\xff"
    damaged = Segment(1, 1, 88, 0, 1, b"\x07" + bad[1:])  # type: ignore[arg-type]  # a row of bytes
    path = tmp_path / "bad.pcap"
    path.write_bytes(pcap([frame(b"\xde\xad"), frame(damaged.to_bytes())]))
    assert decode(path, "--port", str(THERE[1])) == 0
    streams = capsys.readouterr()
    assert "first byte 0xde is no type of version 2: dead" in streams.out
    assert "! bad_version: chunk version 7, known: 1: 07" in streams.out
    assert "2 of them malformed" in streams.err


def test_text_of_a_neighbour_cannot_control_the_terminal(tmp_path: Path, capsys: Streams) -> None:
    """Escape sequences in a reason are shown as text."""
    close = wire.CloseFrame("\x1b[2J\r\nroot# ").to_bytes()
    path = tmp_path / "evil.pcap"
    path.write_bytes(pcap([frame(wire.encode_control(1, 1, [close]))]))
    assert decode(path) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J\\r\\nroot#" in out
    assert "\x1b" not in out


def test_a_damaged_file_shows_what_comes_before(capture: Path, capsys: Streams) -> None:
    """Exit code 1, a warning that says where, and the good packets on standard output."""
    capture.write_bytes(capture.read_bytes()[:-5])
    assert decode(capture, "--format", "json") == 1
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)["datagrams"]) == len(FRAMES) - 1
    assert f"after packet {len(FRAMES) - 1}: ends in the middle of a packet" in streams.err


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"hello world", "neither a pcap nor a pcapng"),
        (b"\x1f\x8b\x08", "gunzip"),
    ],
)
def test_other_files_are_errors(tmp_path: Path, capsys: Streams, data: bytes, text: str) -> None:
    """Exit code 2, one line that names the file; nothing on standard output."""
    path = tmp_path / "other.pcap"
    path.write_bytes(data)
    assert decode(path) == 2
    streams = capsys.readouterr()
    assert text in streams.err and str(path) in streams.err
    assert streams.out == "" and len(streams.err.splitlines()) == 1


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: Streams) -> None:
    """Exit code 2 and the file's name, for a file that is not there and for a folder."""
    for path in (tmp_path / "absent.pcap", tmp_path):
        assert decode(path) == 2
        assert str(path) in capsys.readouterr().err
