"""What hostile code in a VI would try, one thing after the other: `python3 vi_probe.py [TARGETS]`.

Runs inside a container, with the standard library alone, and prints one JSON object: name of each
attempt -> `denied: why` or `ALLOWED`. What is allowed does no harm: it opens, reads and asks.
TARGETS is a JSON object of addresses to reach: name -> [kind, address, port].
Source: docs/security.md, "Against hostile code in a VI".
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_X86_64 = {
    "add_key": 248,
    "bpf": 321,
    "clock_settime": 227,
    "delete_module": 176,
    "finit_module": 313,
    "fsopen": 430,
    "init_module": 175,
    "io_uring_setup": 425,
    "iopl": 172,
    "kexec_load": 246,
    "keyctl": 250,
    "open_by_handle_at": 304,
    "perf_event_open": 298,
    "ptrace": 101,
    "quotactl": 179,
    "setns": 308,
    "swapon": 167,
    "syslog": 103,
    "unshare": 272,
    "userfaultfd": 323,
}
"""Numbers of system calls. Source: arch/x86/entry/syscalls/syscall_64.tbl."""
_NEW_USER = 0x10000000
_NEW_NETWORK = 0x40000000
_WAIT_S = 0.5
_MARK = b"packetcloud-probe"


def system_call(name: str, *arguments: object) -> None:
    """Raises: OSError: refused."""
    ctypes.set_errno(0)
    if _LIBC.syscall(_X86_64[name], *arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, kind: str, flags: int = 0) -> None:
    """Mount on a folder of our own, and take it away again."""
    target = Path("/tmp/probe-mount")
    target.mkdir(exist_ok=True)
    result = _LIBC.mount(source.encode(), str(target).encode(), kind.encode(), flags, None)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _LIBC.umount2(str(target).encode(), 2)


def make_device(major: int, minor: int, kind: int) -> None:
    """Make a device and open it: one that exists and cannot be opened is no danger."""
    path = Path("/tmp/probe-device")
    path.unlink(missing_ok=True)
    os.mknod(path, 0o600 | kind, os.makedev(major, minor))
    try:
        read(str(path))
    finally:
        path.unlink()


def read(path: str, count: int = 1) -> None:
    with Path(path).open("rb", buffering=0) as stream:
        if not stream.read(count):
            raise OSError(errno.ENODATA, "empty")


def write(path: str, text: str) -> None:
    with open(path, "w") as stream:  # noqa: PTH123 (never creates: these are the kernel's)
        stream.write(text)


def see_foreign_processes() -> None:
    """Succeeds if a process is there that is not of this container."""
    names = [one / "comm" for one in Path("/proc").iterdir() if one.name.isdigit()]
    if not any(path.read_text().strip() in ("lxd", "systemd", "kthreadd") for path in names):
        raise OSError(errno.ESRCH, "only our own")


def reach(kind: str, address: str, port: int) -> None:
    """Succeeds if anybody there answers; over UDP the answer must be the question."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    style = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, style) as probe:
        probe.settimeout(_WAIT_S)
        probe.connect((address, port))
        if kind == "udp":
            probe.send(_MARK)
            probe.recv(100)


def send_frame(nic: str, frame: bytes) -> None:
    """Send a raw frame; whether it arrives is for the other side to say."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((nic, 0))
        probe.send(frame)


def spoofed_frames(nic: str) -> dict[str, bytes]:
    """Return frames that a VI must not send, each with a mark and its own name in it."""
    own = bytes.fromhex(Path(f"/sys/class/net/{nic}/address").read_text().strip().replace(":", ""))
    all_nodes = b"\xff" * 6
    other = bytes.fromhex("02a1a2a3a4a5")
    ipv4_source = socket.inet_aton("198.18.250.250")
    payload = {name: _MARK + b":" + name.encode() for name in ("mac", "ipv4", "ipv6", "other")}
    ipv4 = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + 8 + len(payload["ipv4"]),
        0,
        0,
        9,
        17,
        0,
        ipv4_source,
        b"\xff" * 4,
    ) + struct.pack("!HHHH", 9, 9, 8 + len(payload["ipv4"]), 0)
    ipv6 = struct.pack("!IHBB", 6 << 28, 8 + len(payload["ipv6"]), 17, 9)
    ipv6 += socket.inet_pton(socket.AF_INET6, "fd00:dead::1") + socket.inet_pton(
        socket.AF_INET6, "ff02::1"
    )
    ipv6 += struct.pack("!HHHH", 9, 9, 8 + len(payload["ipv6"]), 0)
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, own, ipv4_source, all_nodes, ipv4_source)
    return {
        "mac": all_nodes + other + b"\x08\x00" + payload["mac"],
        "ipv4": all_nodes + own + b"\x08\x00" + ipv4 + payload["ipv4"],
        "ipv6": bytes.fromhex("333300000001") + own + b"\x86\xdd" + ipv6 + payload["ipv6"],
        "arp": all_nodes + own + b"\x08\x06" + arp + _MARK + b":arp",
        "other": all_nodes + own + b"\x88\xb5" + payload["other"],
    }


ATTEMPTS: dict[str, Callable[[], None]] = {
    "mount a disk": lambda: mount("/dev/vda", "ext4"),
    "mount proc": lambda: mount("proc", "proc"),
    "mount sysfs": lambda: mount("sysfs", "sysfs"),
    "mount cgroup": lambda: mount("cgroup", "cgroup"),
    "mount cgroup2": lambda: mount("cgroup2", "cgroup2"),
    "mount tmpfs": lambda: mount("tmpfs", "tmpfs"),
    "make and open /dev/mem": lambda: make_device(1, 1, stat.S_IFCHR),
    "make and open a disk": lambda: make_device(254, 0, stat.S_IFBLK),
    "open /dev/mem": lambda: read("/dev/mem"),
    "open /dev/kmsg": lambda: read("/dev/kmsg"),
    "open /dev/kvm": lambda: read("/dev/kvm"),
    "open /dev/fuse": lambda: read("/dev/fuse"),
    "open /dev/net/tun": lambda: read("/dev/net/tun"),
    "open /dev/loop-control": lambda: read("/dev/loop-control"),
    "socket of LXD": lambda: read("/dev/lxd/sock"),
    "read /proc/kcore": lambda: read("/proc/kcore"),
    "write /proc/sysrq-trigger": lambda: write("/proc/sysrq-trigger", "h"),
    "write core_pattern": lambda: write("/proc/sys/kernel/core_pattern", "|/tmp/x"),
    "write modprobe": lambda: write("/proc/sys/kernel/modprobe", "/tmp/x"),
    "write uevent_helper": lambda: write("/sys/kernel/uevent_helper", "/tmp/x"),
    "write drop_caches": lambda: write("/proc/sys/vm/drop_caches", "1"),
    "write release_agent": lambda: write("/sys/fs/cgroup/memory/release_agent", "/tmp/x"),
    "write limits of memory": lambda: write(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", str(1 << 40)
    ),
    "read processes of others": see_foreign_processes,
    "load a module": lambda: system_call("init_module", 0, 0, b""),
    "load a module from a file": lambda: system_call("finit_module", -1, b"", 0),
    "unload a module": lambda: system_call("delete_module", b"veth", 0),
    "load a kernel": lambda: system_call("kexec_load", 0, 0, 0, 0),
    "open by handle": lambda: system_call("open_by_handle_at", -1, 0, 0),
    "load a BPF program": lambda: system_call("bpf", 5, 0, 0),
    "measure the machine": lambda: system_call("perf_event_open", 0, -1, 0, -1, 0),
    "handle page faults": lambda: system_call("userfaultfd", 0),
    "queue of system calls": lambda: system_call(
        "io_uring_setup", 1, ctypes.create_string_buffer(256)
    ),
    "keys of the kernel": lambda: system_call("keyctl", 1, 0),
    "add a key": lambda: system_call("add_key", b"user", b"probe", b"x", 1, -3),
    "user namespace": lambda: system_call("unshare", _NEW_USER),
    "network namespace": lambda: system_call("unshare", _NEW_NETWORK),
    "file systems by descriptor": lambda: system_call("fsopen", b"proc", 0),
    "ports of the machine": lambda: system_call("iopl", 3),
    "swap": lambda: system_call("swapon", b"/tmp", 0),
    "set the clock": lambda: system_call("clock_settime", 0, ctypes.create_string_buffer(16)),
    "log of the kernel": lambda: system_call("syslog", 3, ctypes.create_string_buffer(256), 256),
    "quotas": lambda: system_call("quotactl", 0, b"/dev/vda", 0, 0),
}


def outcome(attempt: Callable[[], object]) -> str:
    """Try it; what is not there cannot be reached either."""
    child = os.fork()
    # A child, because what succeeds may change the process that did it.
    if child == 0:
        try:
            attempt()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno if error.errno and error.errno < 256 else 255)
        except BaseException:  # a forked child must never go on as the probe
            os._exit(254)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return "ALLOWED"
    return f"denied: {errno.errorcode.get(code, 'no answer')}" if code > 0 else "denied: killed"


def main(arguments: list[str]) -> int:
    targets = json.loads(arguments[0]) if arguments else {}
    found = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
    for name, (kind, address, port) in targets.items():
        found[name] = outcome(functools.partial(reach, kind, address, port))
    nics = ("eth0", "eth1", "eth2")
    for nic in [one for one in nics if Path(f"/sys/class/net/{one}").exists()]:
        try:
            for frame in spoofed_frames(nic).values():
                send_frame(nic, frame)
        except OSError as error:
            found[f"raw frames by {nic}"] = f"denied: {errno.errorcode.get(error.errno or 0)}"
        else:
            found[f"raw frames by {nic}"] = "sent"
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
