"""The program of a VI that is asked to end before it has a service: at once, with exit code 0."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from packetcloud.services.control_frames import FrameReader, encode_json

LIMIT_S = 60.0
PROGRAM = """\
import sys
from packetcloud.services import vi
vi.give_addresses = lambda settings: None  # this machine's interfaces have theirs
vi.bound_kernel_objects = lambda: None  # nor are the kernel's objects
vi.give_up_privileges = lambda: None  # it is not the VI's to change who runs this test
sys.exit(vi.main())
"""


@contextmanager
def _program(controller: tuple[str, int]) -> Iterator[subprocess.Popen[str]]:
    """Run the program with a test in the controller's place."""
    settings = {
        "VI": "c1-1",
        "TOKEN": "t",
        "CONTROLLER": "{}:{}".format(*controller),
        "DATA_IPV4": "10.210.0.16/20",
        "DATA_IPV6": "fd5a:7c1e:210::10/64",
        "CONTROL_IPV4": "10.211.0.16/20",
        "CONTROL_IPV6": "fd5a:7c1e:211::10/64",
    }
    environment = {f"PACKETCLOUD_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _hello(connection: socket.socket) -> dict[str, object]:
    frames = FrameReader()
    while True:
        data = connection.recv(1 << 16)
        assert data, "it hung up"
        for frame in frames.feed(data):
            assert isinstance(frame, dict)
            return frame


@pytest.mark.parametrize("how", ["SIGPWR", "SIGTERM", "stop"])
def test_a_vi_that_waits_for_its_launch_ends_when_it_is_asked_to(how: str) -> None:
    """By the signal that a container's init gets, or over its link, which it closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        with _program(server.getsockname()) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(LIMIT_S)
                assert _hello(connection)["is_launched"] is False
                if how == "stop":
                    connection.sendall(encode_json({"do": "stop"}))
                else:
                    process.send_signal(signal.Signals[how])
                assert process.wait(LIMIT_S) == 0
                assert connection.recv(1) == b""


def test_a_vi_whose_controller_is_away_ends_when_it_is_asked_to() -> None:
    """Between two calls, too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with _program(address) as process:
        assert process.stderr is not None
        assert "calling again" in process.stderr.readline()
        process.send_signal(signal.SIGPWR)
        assert process.wait(LIMIT_S) == 0
