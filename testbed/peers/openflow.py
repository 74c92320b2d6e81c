"""The few OpenFlow 1.3 messages that we exchange with Open vSwitch, for many names at once.

A name of 20 bytes is the exact match of a flow, in two of the switch's registers: `xxreg0` has its
first 16 bytes and `reg4` the others. A question sets both and looks the flow up (`resubmit`); one
packet-out asks a thousand. Source: OpenFlow 1.3.5, section 7; Nicira extensions,
openvswitch/include/openflow/nicira-ext.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.traffic.rule_traffic import Names

QUESTIONS_PER_PACKET = 1000
"""The switch gives up a packet that looks up more than 4096 flows; a message has 64 KiB."""
TIMEOUT_S = 120.0

_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY = 0, 1, 2, 3
_PACKET_OUT, _FLOW_MOD, _MULTIPART_REQUEST, _MULTIPART_REPLY = 13, 14, 18, 19
_BARRIER_REQUEST, _BARRIER_REPLY = 20, 21
_AGGREGATE = 2
_ANY = 0xFFFF_FFFF
_NO_BUFFER = 0xFFFF_FFFF
_CONTROLLER = 0xFFFF_FFFD
_PRIORITY = 100
_SET_FIELD = 25
_EXPERIMENTER = 0xFFFF
_NICIRA, _RESUBMIT_TABLE, _IN_PORT = 0x2320, 14, 0xFFF8
_NXM1 = 0x0001
_XXREG0 = struct.pack("!HBB", _NXM1, 111 << 1, 16)
_REG4 = struct.pack("!HBB", _NXM1, 4 << 1, 4)
_FRAME = bytes(12) + b"\x88\xb5" + bytes(46)
"""An Ethernet frame of no protocol: what carries the questions is not looked at."""


class OpenFlowConnection:
    """A connection to the switch at a Unix socket; use it in a `with` statement."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(path))
        self.send(_header(_HELLO, 8))

    def __enter__(self) -> OpenFlowConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes | memoryview) -> None:
        self._socket.sendall(data)

    def wait_done(self) -> None:
        """Return when the switch has done everything that was sent.

        Raises:
            TestbedError: it refused something, or says nothing.
        """
        self.send(_header(_BARRIER_REQUEST, 8))
        self._wait(_BARRIER_REPLY)

    def hits(self, table: int) -> int:
        """Return how often flows of a table have been found."""
        match = struct.pack("!HHI", 1, 4, 0)
        body = struct.pack("!HHI", _AGGREGATE, 0, 0)
        body += struct.pack("!BxxxIIxxxxQQ", table, _ANY, _ANY, 0, 0) + match
        self.send(_header(_MULTIPART_REQUEST, 8 + len(body)) + body)
        (count,) = struct.unpack_from("!Q", self._wait(_MULTIPART_REPLY), 8)
        return int(count)

    def _wait(self, wanted: int) -> bytes:
        try:
            for kind, body in self._messages():
                if kind == wanted:
                    return body
                if kind == _ERROR:
                    raise TestbedError(f"Open vSwitch refused a message: error {body[:4].hex()}")
        except OSError as error:
            raise TestbedError(f"Open vSwitch: {error}") from error
        raise TestbedError("Open vSwitch ended the connection")

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while head := self._read(8):
            _, kind, length, number = struct.unpack("!BBHI", head)
            body = self._read(length - 8)
            if kind == _ECHO_REQUEST:
                self.send(_header(_ECHO_REPLY, length, number) + body)
            else:
                yield kind, body

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                return b""
            data += more
        return data


def flows(table: int, names: Names) -> Names:
    """Encode one flow for each name, which matches that name alone; one a row."""
    match = struct.pack("!HH", 1, 32) + _XXREG0 + bytes(16) + _REG4 + bytes(4)
    message = _flow_head(table, 48 + len(match)) + match
    found = np.tile(np.frombuffer(message, np.uint8), (len(names), 1))
    found[:, 56:72] = names[:, :16]
    found[:, 76:80] = names[:, 16:]
    return found


def flow_for_all(table: int) -> bytes:
    """Encode a flow that matches everything."""
    return _flow_head(table, 56) + struct.pack("!HHI", 1, 4, 0)


def questions(table: int, names: Names) -> Names:
    """Encode packet-outs that look each name up in `table`; `QUESTIONS_PER_PACKET` a row."""
    one = struct.pack("!HH", _SET_FIELD, 24) + _XXREG0 + bytes(16)
    one += struct.pack("!HH", _SET_FIELD, 16) + _REG4 + bytes(8)
    one += struct.pack("!HHIHHBxxx", _EXPERIMENTER, 16, _NICIRA, _RESUBMIT_TABLE, _IN_PORT, table)
    actions_bytes = QUESTIONS_PER_PACKET * len(one)
    length = 24 + actions_bytes + len(_FRAME)
    head = _header(_PACKET_OUT, length)
    head += struct.pack("!IIHxxxxxx", _NO_BUFFER, _CONTROLLER, actions_bytes)
    message = np.frombuffer(head + one * QUESTIONS_PER_PACKET + _FRAME, np.uint8)
    found = np.tile(message, (len(names) // QUESTIONS_PER_PACKET, 1))
    actions = found[:, 24 : 24 + actions_bytes].reshape(-1, QUESTIONS_PER_PACKET, len(one))
    asked = names.reshape(-1, QUESTIONS_PER_PACKET, names.shape[1])
    actions[:, :, 8:24] = asked[:, :, :16]
    actions[:, :, 32:36] = asked[:, :, 16:]
    return found


def _flow_head(table: int, length: int) -> bytes:
    head = _header(_FLOW_MOD, length) + bytes(16)
    return head + struct.pack("!BBHHHIIIHxx", table, 0, 0, 0, _PRIORITY, _NO_BUFFER, _ANY, _ANY, 0)


def _header(kind: int, length: int, number: int = 1) -> bytes:
    return struct.pack("!BBHI", _VERSION, kind, length, number)
