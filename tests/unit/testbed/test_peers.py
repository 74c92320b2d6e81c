"""The peers' configurations, the AES job, and the small HTTP server around it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from packetcloud.testbed.experiments.translated import FILE, lay_file
from packetcloud.testbed.peers import iperf3
from packetcloud.testbed.peers.aes_job import AesJob, decrypt
from packetcloud.testbed.peers.download import PERIOD_BYTES, Pattern
from packetcloud.testbed.peers.http_server import (
    MAX_BODY_BYTES,
    Connection,
    RequestError,
    content_length,
)
from packetcloud.testbed.peers.nginx import nginx_config
from packetcloud.testbed.peers.relays import Endpoints, HaproxyTuning, haproxy_config
from packetcloud.testbed.peers.tools import PACKAGES, find_tool
from packetcloud.testbed.traffic.pattern import make_payload

KEY = bytes(range(16))
ENDS = Endpoints(None, ("192.0.2.1", 80), ("192.0.2.2", 81))


def test_haproxy_as_it_comes_has_no_tuning() -> None:
    """The comparison with HAProxy's defaults changes none of them."""
    config = haproxy_config(ENDS, HaproxyTuning())
    assert "mode tcp" in config
    assert "bind 192.0.2.1:80" in config
    assert "server receiver 192.0.2.2:81" in config
    assert not any(word in config for word in ("nbthread", "tune.bufsize", "splice"))


def test_haproxy_tuned_says_each_setting() -> None:
    """Every setting of the tuning stands in the config and in its label."""
    tuning = HaproxyTuning(threads=1, buffer_bytes=262144, splice=True)
    config = haproxy_config(ENDS, tuning)
    assert "nbthread 1" in config
    assert "tune.bufsize 262144" in config
    assert "option splice-auto" in config
    assert tuning.label == "nbthread 1, bufsize 262144, splice-auto"


def test_nginx_keeps_connections_and_bodies_in_memory() -> None:
    """No log, no body file and no new upstream connection per request slow it down."""
    config = nginx_config(Path("/x"), ("192.0.2.1", 80), ("192.0.2.2", 81), request_buffering=False)
    for line in (
        "listen 192.0.2.1:80;",
        "server 192.0.2.2:81;",
        "access_log off;",
        "proxy_max_temp_file_size 0;",
        'proxy_set_header Connection "";',
        "proxy_request_buffering off;",
    ):
        assert line in config
    assert config.count("{") == config.count("}")


@pytest.mark.parametrize("payload_bytes", [0, 1, 15, 16, 17, 4096])
def test_the_aes_job_can_be_undone(payload_bytes: int) -> None:
    """IV, ciphertext, padding: what comes out decrypts to what went in."""
    payload = bytes(payload_bytes)
    result = AesJob(KEY, 4096).encrypt(payload)
    assert len(result) == 16 + payload_bytes + 16 - payload_bytes % 16
    assert decrypt(KEY, result) == payload


def test_the_aes_job_never_uses_an_iv_twice() -> None:
    """The same payload gives another ciphertext each time."""
    job = AesJob(KEY, 64)
    assert job.encrypt(bytes(64)) != job.encrypt(bytes(64))


def test_the_http_server_answers_a_request_that_comes_in_pieces() -> None:
    """Head and body may be cut anywhere; the connection stays open for the next request."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours, KEY)
        request = b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n" + bytes(20)
        for _ in range(2):
            for start in range(0, len(request), 7):
                theirs.sendall(request[start : start + 7])
                assert connection.readable()
            head, _, body = theirs.recv(4096).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert b"Content-Length: 48" in head
            assert decrypt(KEY, body) == bytes(20)
        theirs.shutdown(socket.SHUT_WR)
        assert not connection.readable()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nContent-Length: 1",
        b"POST / HTTP/1.1",
        b"POST / HTTP/1.1\r\nContent-Length: -1",
        b"POST / HTTP/1.1\r\nContent-Length: x",
        b"POST / HTTP/1.1\r\nContent-Length: %d" % (MAX_BODY_BYTES + 1),
    ],
)
def test_the_http_server_refuses_what_it_cannot_read(head: bytes) -> None:
    """Anything but a POST with a usable length ends the connection."""
    with pytest.raises(RequestError):
        content_length(head)


def test_the_largest_body_is_taken() -> None:
    """The cap itself is allowed."""
    assert content_length(b"POST / HTTP/1.1\r\nContent-Length: %d" % MAX_BODY_BYTES)


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks a peer is told what to install."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    for name, package in PACKAGES.items():
        with pytest.raises(Exception, match=f"apt-get install {package}"):
            find_tool(name)


def test_seconds_of_an_iperf3_server_are_read() -> None:
    """One line a second; the summary and the remainder at the end are none."""
    lines = """
[ ID] Interval           Transfer     Bitrate
[  5]   0.00-1.00   sec  3.62 MBytes  30406 Kbits/sec
[  5]   1.00-2.00   sec  0.00 Bytes  0.00 Kbits/sec
[  5]   2.00-2.03   sec   128 KBytes  30000 Kbits/sec
[  5]   0.00-2.03   sec  7.25 MBytes  30399 Kbits/sec                  receiver
""".splitlines(keepends=True)
    assert iperf3.parse_intervals(lines) == [
        iperf3.Interval(0.0, 1.0, 30_406_000.0),
        iperf3.Interval(1.0, 2.0, 0.0),
    ]


def test_a_download_is_compared_wherever_pieces_end() -> None:
    """The pattern begins anew after each MiB; one wrong byte is seen."""
    data = make_payload(PERIOD_BYTES) * 2
    pattern = Pattern()
    assert all(pattern.goes_on_with(data[at : at + 50_000]) for at in range(0, len(data), 50_000))
    altered = bytearray(data[:50_000])
    altered[-1] ^= 1
    assert not Pattern().goes_on_with(bytes(altered))


def test_the_file_that_is_downloaded_is_the_pattern(tmp_path: Path) -> None:
    """Who compares what curl brings knows every byte of it."""
    lay_file(tmp_path / "www", periods=2)
    data = (tmp_path / "www" / FILE).read_bytes()
    assert len(data) == 2 * PERIOD_BYTES
    assert Pattern().goes_on_with(data[:PERIOD_BYTES])
