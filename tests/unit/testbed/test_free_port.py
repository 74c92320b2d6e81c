"""Ports for daemons whose configuration has to name one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.peers import tools


def test_a_free_port_is_none_that_the_kernel_gives_to_somebody_else() -> None:
    """Between the choice and its use anybody may ask for any port."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(tools.free_port() < first for _ in range(20))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_is_not_given(
    monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    """Neither by TCP nor by UDP."""
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(tools, "_PORTS", range(port, port + 1))
        with pytest.raises(TestbedError, match=f"no free port of {port} to {port} was found"):
            tools.free_port()
