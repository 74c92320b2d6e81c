"""nftables maps of names: as many entries as we have rules, looked up by packets of our own.

A packet carries twelve names of 20 bytes and leaves through twelve rules, each of which reads one
of them and looks it up. So looking up outweighs sending, and what sending alone costs is taken off
by packets that meet none of these rules. Nothing leaves the namespace: the last hook drops it.

Entries go to the kernel by netlink: `nft` itself takes seven times as long for a million of them,
and 1.3 KB of memory each. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import find_tool
from packetcloud.testbed.traffic.rule_traffic import NAME_BYTES, Names

NAMES_PER_PACKET = 12
"""Older kernels read no further than 255 bytes into a packet."""
_BARE_PORT = 20_000
"""Packets to this port meet no rule that looks anything up."""
_ENTRIES_PER_MESSAGE = 1400
"""44 bytes each: a netlink attribute is shorter than 64 KiB."""
_ENTRIES_PER_TRANSACTION = 100_000
_PACKETS_PER_CALL = 1024
_CHECKED_PACKETS = 100
_NO_MARK = "0xffffffff"
"""No entry has this value. A packet that still carries it after a question is refused: its name
was not found."""

_NETLINK_NETFILTER = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_NLM_REQUEST, _NLM_ACK, _NLM_CREATE = 0x1, 0x4, 0x400
_BATCH_BEGIN, _BATCH_END = 16, 17
_NFTABLES = 10
_NEW_ELEMENTS = _NFTABLES << 8 | 12
_NESTED = 0x8000
_KEY_AT, _VALUE_AT = 12, 40
"""Where key and value stand in an encoded entry."""

_RULESET = """\
table ip names {{
{maps}
    chain bare {{
    }}
    chain out {{
        type filter hook output priority 0; policy accept;
        udp dport vmap {{ {ports} }}
    }}
}}
table netdev nowhere {{
    chain egress {{
        type filter hook egress device lo priority 0; policy drop;
    }}
}}
"""
_MAP = """\
    map {map} {{
        typeof @ih,0,128 . @ih,128,32 : meta mark
        size {size}
    }}
    chain {map}_ask {{
{ask}
    }}
    chain {map}_check {{
{check}
    }}
"""


class NftablesMaps:
    """One map for each size, in a network namespace; use it in a `with` statement.

    Args:
        sizes: entries of each map.
    """

    name = "nftables"

    def __init__(self, place: Namespace, sizes: Sequence[int]) -> None:
        self._place = place
        self.sizes = tuple(sizes)

    def __enter__(self) -> Self:
        """Install the rules.

        Raises:
            MissingToolError: nft is not installed.
            TestbedError: this kernel does not take such rules.
        """
        self._install(ruleset(self.sizes))
        self._netlink = self._place.run(_netlink_socket)
        self._udp = self._place.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()
        self._udp.close()

    def load(self, size: int, names: Names) -> None:
        """Fill the map of `size` with names and see to it that they are found.

        Raises:
            TestbedError: the kernel refused an entry, or does not find one.
        """
        for first in range(0, size, _ENTRIES_PER_TRANSACTION):
            last = min(size, first + _ENTRIES_PER_TRANSACTION)
            self._netlink.send(transaction(f"m{size}", names[first:last], first))
            answer = self._netlink.recv(65536)
            (number,) = struct.unpack_from("=i", answer, 16)
            if number:
                raise TestbedError(f"nftables took no more than {first}: {os.strerror(-number)}")
        sample = np.linspace(0, size - 1, _CHECKED_PACKETS * NAMES_PER_PACKET)
        self.check(size, names[sample.astype(np.intp)])

    def check(self, size: int, names: Names) -> None:
        """See to it that the map holds all of these names.

        Raises:
            TestbedError: it does not.
        """
        try:
            self._send(packets(names), self._port(size) + 1)
        except PermissionError as error:
            raise TestbedError("nftables does not find a name that its map should hold") from error

    def lookup_s(self, size: int, names: Names) -> dict[str, float]:
        """Return the seconds of CPU time that it takes to read and look up one of these names.

        Args:
            names: a multiple of `NAMES_PER_PACKET` of them, all of which the map holds.
        """
        data = packets(names)
        bare_s = self._send(data, _BARE_PORT)
        asked_s = self._send(data, self._port(size))
        return {"nftables": (asked_s - bare_s) / len(names)}

    def _port(self, size: int) -> int:
        return _BARE_PORT + 1 + 2 * self.sizes.index(size)

    def _send(self, data: Names, port: int) -> float:
        """Send packets; return the CPU time, nearly all of it the kernel's on our behalf."""
        self._udp.connect(("127.0.0.1", port))
        parts, messages = _message_vector(data)
        call = ctypes.CDLL(None, use_errno=True).sendmmsg
        begin_s = time.thread_time()
        sent = 0
        while sent < len(data):
            where = ctypes.c_void_p(messages[sent:].ctypes.data)
            count = call(self._udp.fileno(), where, min(_PACKETS_PER_CALL, len(data) - sent), 0)
            if count < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            sent += count
        used_s = time.thread_time() - begin_s
        del parts  # the kernel read it until here
        return used_s

    def _install(self, rules: str) -> None:
        """Have `nft` read rules, in our namespace."""

        def run() -> subprocess.CompletedProcess[str]:
            command = [find_tool("nft"), "-f", "-"]
            return subprocess.run(command, input=rules, capture_output=True, text=True, check=False)

        done = self._place.run(run)
        if done.returncode != 0:
            first = (done.stderr.splitlines() or ["no reason given"])[0]
            raise TestbedError(f"nftables does not work here: {first}")


def ruleset(sizes: Sequence[int]) -> str:
    """Return what `nft -f` reads: for each size a map and the rules that ask it."""
    maps, ports = [], [f"{_BARE_PORT} : jump bare"]
    for place, size in enumerate(sizes):
        name = f"m{size}"
        asks = [
            f"        meta mark set @ih,{bit},128 . @ih,{bit + 128},32 map @{name}"
            for bit in range(0, NAMES_PER_PACKET * NAME_BYTES * 8, NAME_BYTES * 8)
        ]
        checks = [
            f"        meta mark set {_NO_MARK}\n{ask}\n        meta mark {_NO_MARK} drop"
            for ask in asks
        ]
        maps.append(_MAP.format(map=name, size=size, ask="\n".join(asks), check="\n".join(checks)))
        port = _BARE_PORT + 1 + 2 * place
        ports += [f"{port} : jump {name}_ask", f"{port + 1} : jump {name}_check"]
    return _RULESET.format(maps="\n".join(maps), ports=", ".join(ports))


def packets(names: Names) -> Names:
    """Return the payloads of the packets that carry these names, one a row."""
    return np.ascontiguousarray(names).reshape(-1, NAMES_PER_PACKET * NAME_BYTES)


def transaction(map_name: str, names: Names, first_value: int) -> bytes:
    """Encode one transaction that adds names, with ascending values, to a map."""
    template = np.frombuffer(_entry(), np.uint8)
    parts = [_message(_BATCH_BEGIN, 0, 0, _NFTABLES, b"")]
    for start in range(0, len(names), _ENTRIES_PER_MESSAGE):
        some = names[start : start + _ENTRIES_PER_MESSAGE]
        entries = np.tile(template, (len(some), 1))
        entries[:, _KEY_AT : _KEY_AT + NAME_BYTES] = some
        values = np.arange(first_value + start, first_value + start + len(some), dtype=np.uint32)
        entries[:, _VALUE_AT:] = values.view(np.uint8).reshape(-1, 4)
        body = _attribute(1, b"names\0") + _attribute(2, map_name.encode() + b"\0")
        body += _attribute(3 | _NESTED, entries.tobytes())
        parts.append(_message(_NEW_ELEMENTS, _NLM_CREATE, socket.AF_INET, 0, body))
    parts.append(_message(_BATCH_END, _NLM_ACK, 0, _NFTABLES, b""))
    return b"".join(parts)


def _entry() -> bytes:
    key = _attribute(1 | _NESTED, _attribute(1, bytes(NAME_BYTES)))
    value = _attribute(2 | _NESTED, _attribute(1, bytes(4)))
    return _attribute(1 | _NESTED, key + value)


def _attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def _message(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
    head = struct.pack("=IHHII", 20 + len(body), kind, flags | _NLM_REQUEST, 1, 0)
    return head + struct.pack("=BBH", family, 0, socket.htons(resource)) + body


def _netlink_socket() -> socket.socket:
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    found.bind((0, 0))
    try:
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            found.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
    except OSError as error:
        found.close()
        raise TestbedError(f"nftables needs root: {errno.errorcode[error.errno or 0]}") from error
    found.settimeout(60.0)
    return found


def _message_vector(data: Names) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Lay out the `iovec` and `mmsghdr` of every row of `data`, for `sendmmsg`."""
    count, row_bytes = data.shape
    rows = np.arange(count, dtype=np.uint64)
    parts = np.empty((count, 2), np.uint64)
    parts[:, 0] = data.ctypes.data + rows * np.uint64(row_bytes)
    parts[:, 1] = row_bytes
    messages: NDArray[Any] = np.zeros((count, 8), np.uint64)
    messages[:, 2] = parts.ctypes.data + rows * np.uint64(16)
    messages[:, 3] = 1
    return parts, messages
