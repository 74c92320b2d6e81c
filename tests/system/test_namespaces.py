"""Network namespaces: link modes in force, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyroute2 import netns

from packetcloud.testbed import links
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.namespaces import (
    CONGESTION_CONTROL,
    LARGEST_MTU,
    Namespace,
    NetworkLab,
    sweep_stale,
)
from packetcloud.testbed.processes import Child, Children, python_command, wait_until

pytestmark = [pytest.mark.root, pytest.mark.alone]

_MAKE_AND_WAIT = """
import sys, time
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import NetworkLab
with NetworkLab() as lab:
    left, right = lab.namespace("a"), lab.namespace("b")
    lab.link(left, right, LinkMode.WIRE)
    print(left.name, right.name, flush=True)
    time.sleep(60)
"""


def _names() -> set[str]:
    return set(netns.listnetns())


@pytest.mark.parametrize("mode", list(LinkMode))
def test_a_link_mode_is_in_force_at_both_ends(mode: LinkMode) -> None:
    """The kernel itself reports every feature as the mode wants it, and the MTU."""
    with NetworkLab() as lab:
        left, right = lab.namespace("a"), lab.namespace("b")
        link = lab.link(left, right, mode)
        for end in link.in_force():
            assert end["features"] == mode.features
            assert end["mtu"] == 1500


@pytest.mark.needs("ethtool")
def test_ethtool_agrees() -> None:
    """What we read back is what the tool that people use shows."""
    with NetworkLab() as lab, Children() as children:
        left, right = lab.namespace("a"), lab.namespace("b")
        link = lab.link(left, right, LinkMode.WIRE)
        for end in (link.left, link.right):
            child = children.start("ethtool", ["ethtool", "-k", end.device], end.namespace)
            shown = child.wait_exit(10)
            for line in (
                "tcp-segmentation-offload: off",
                "generic-segmentation-offload: off",
                "tx-udp-segmentation: off",
                "generic-receive-offload: on",
            ):
                assert line in shown


def test_the_ends_reach_each_other_and_what_lies_behind() -> None:
    """Addresses, routes and forwarding join A - R - B."""
    with NetworkLab() as lab, Children() as children:
        a, router, b = (lab.namespace(role) for role in ("a", "router", "b"))
        lab.link(a, router, LinkMode.WIRE)
        lab.link(router, b, LinkMode.WIRE, mtu=LARGEST_MTU)
        router.set_sysctl("net.ipv4.ip_forward", "1")
        a.add_route("198.18.2.0/24", "198.18.1.2")
        b.add_route("198.18.1.0/24", "198.18.2.1")
        listen = "import socket; s = socket.create_server(('198.18.2.2', 7)); s.accept()"
        server = children.start("server", [sys.executable, "-c", listen], b)
        connect = (
            "import socket, time\n"
            "for _ in range(200):\n"
            "    try: socket.create_connection(('198.18.2.2', 7), 5); break\n"
            "    except OSError: time.sleep(0.05)\n"
            "else: raise SystemExit('no connection')"
        )
        children.start("client", [sys.executable, "-c", connect], a).wait_exit(30)
        server.wait_exit(10)


def test_peers_start_from_cubic() -> None:
    """Relays that cannot be told a congestion control use CUBIC, whatever the machine's default."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    before = allowed.read_text()
    with NetworkLab() as lab:
        assert lab.namespace("a").read_sysctl(CONGESTION_CONTROL) == "cubic"
    assert allowed.read_text() == before


def test_an_exception_leaves_nothing_behind() -> None:
    """Namespaces go when the `with` block ends, however it ends."""
    before = _names()
    with contextlib.suppress(ZeroDivisionError), NetworkLab() as lab:
        lab.link(lab.namespace("a"), lab.namespace("b"), LinkMode.BARE)
        raise ZeroDivisionError
    assert _names() <= before


def test_ctrl_c_leaves_nothing_behind() -> None:
    """An interrupted process removes its namespaces."""
    process, made = _start_maker()
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert not made & _names()


def test_what_a_killed_process_left_is_swept_by_the_next() -> None:
    """SIGKILL leaves namespaces; the sweep takes those of dead makers and no others."""
    process, made = _start_maker()
    other, living = _start_maker()
    try:
        process.kill()
        process.wait(20)
        assert made <= _names()
        assert made <= set(sweep_stale())
        assert not made & _names()
        assert living <= _names()
    finally:
        other.send_signal(signal.SIGINT)
        other.wait(20)


def test_a_reused_pid_does_not_protect_a_dead_makers_namespaces() -> None:
    """The start time in the name tells a new process with an old pid from the maker."""
    stale = Namespace("a", f"pctb-{os.getpid()}-1-abcdef-a")
    stale.create()
    assert stale.name in sweep_stale()
    assert stale.name not in _names()


def test_a_child_in_a_namespace_sees_only_its_devices() -> None:
    """The launcher really enters the namespace."""
    with NetworkLab() as lab, Children() as children:
        a, b = lab.namespace("a"), lab.namespace("b")
        lab.link(a, b, LinkMode.SUPERFRAME)
        code = "import socket; print(sorted(name for _, name in socket.if_nameindex()))"
        child = children.start("child", [sys.executable, "-c", code], a)
        assert child.wait_exit(10).strip() == "['lo', 'to-b']"
        assert a.run(links.read_features, "to-b")[links.GRO] is False


def _start_maker() -> tuple[subprocess.Popen[str], set[str]]:
    command = [sys.executable, "-c", _MAKE_AND_WAIT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    names = set(process.stdout.readline().split())
    assert len(names) == 2
    return process, names


def test_a_missing_namespace_is_an_error_of_the_launcher() -> None:
    """Nothing runs in the wrong place: the launcher fails instead."""
    module = "packetcloud.testbed.in_namespace"
    command = python_command(module, "no-such-namespace", os.getpid(), "--", "true")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no-such-namespace" in done.stderr


def test_the_launcher_starts_nothing_for_a_dead_parent() -> None:
    """Whoever was killed while starting a child leaves no child: its pid is no longer our parent's.

    Seen as a sender that outlived its benchmark.
    """
    module = "packetcloud.testbed.in_namespace"
    command = python_command(module, "-", 999_999_999, "--", "echo", "started")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_child_that_nobody_listens_to_ends() -> None:
    """An event that cannot be printed ends the process: who would stop it later?"""
    code = "from packetcloud.testbed.processes import emit_event\nwhile True: emit_event('x')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_the_meter_and_the_end_reach_a_childs_descendants() -> None:
    """CPU of a forked worker counts, and the worker ends with its parent."""
    code = (
        "import os, sys, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    while True: pass\n"
        'print(\'{"event": "forked", "pid": \' + str(pid) + "}", flush=True)\n'
        "time.sleep(60)"
    )
    with Children() as children:
        child: Child = children.start("forker", [sys.executable, "-c", code])
        worker = child.wait_event("forked", 10)["pid"]
        with Meter([child]):
            wait_until(lambda: child.cpu_seconds() > 0.2, 20, "the worker has used CPU")
    wait_until(lambda: _is_gone(worker), 10, "the worker has ended")
