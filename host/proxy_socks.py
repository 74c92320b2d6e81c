"""SOCKS5 (RFC 1928) and SOCKS4a, as a proxy understands them: CONNECT only, no authentication.

Names are not resolved here: they go to the translator as they are.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import Enum

from packetcloud.chunk.streams.wire import ResetCode
from packetcloud.host.errors import HostError

MAX_HEAD_BYTES = 1024
"""A SOCKS5 greeting has 257 bytes at most, a request 262."""
_CONNECT = 1
_NO_AUTHENTICATION = 0
_NOTHING_ACCEPTABLE = b"\x05\xff"
_GENERAL_FAILURE, _COMMAND_UNKNOWN, _ADDRESS_UNKNOWN = 1, 7, 8

_SOCKS5_CODES = {
    ResetCode.NOT_ALLOWED: 2,
    ResetCode.NETWORK_UNREACHABLE: 3,
    ResetCode.HOST_UNREACHABLE: 4,
    ResetCode.NAME_UNKNOWN: 4,
    ResetCode.CONNECTION_REFUSED: 5,
    ResetCode.TIMED_OUT: 6,
}


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """Where a client wants to be connected to; `rest` came after its request."""

    host: str
    port: int
    rest: bytes


class SocksRefusedError(HostError):
    """The client wants what there is not, or speaks no SOCKS; it gets `reply` and no more."""

    def __init__(self, text: str, reply: bytes = b"") -> None:
        super().__init__(text)
        self.reply = reply


class _State(Enum):
    GREETING = "greeting"
    REQUEST = "request"
    DONE = "done"


class SocksConversation:
    """What a client says until it is connected; the first byte tells the version."""

    def __init__(self) -> None:
        self._state = _State.GREETING
        self._version = 0
        self._data = b""

    def receive(self, data: bytes) -> tuple[bytes, SocksRequest | None]:
        """Take bytes of the client; return what to answer, and its request once it is whole.

        Raises:
            SocksRefusedError: see there.
        """
        self._data += data
        reply = b""
        if self._state is _State.GREETING and self._data:
            self._version = self._data[0]
            if self._version == 4:
                self._state = _State.REQUEST
            elif self._version != 5:
                raise SocksRefusedError(f"SOCKS version {self._version}; 4 and 5 are known")
            else:
                reply = self._greeting()
        request = None
        if self._state is _State.REQUEST:
            request = self._request_4() if self._version == 4 else self._request_5()
        if request is not None:
            self._state = _State.DONE
        elif len(self._data) > MAX_HEAD_BYTES:
            raise SocksRefusedError("a SOCKS request that does not end")
        return reply, request

    def connected(self) -> bytes:
        """Return the reply when the connection is up."""
        return _reply_4(True) if self._version == 4 else _reply_5(0)

    def failed(self, code: ResetCode) -> bytes:
        """Return the reply when it is not."""
        if self._version == 4:
            return _reply_4(False)
        return _reply_5(_SOCKS5_CODES.get(code, _GENERAL_FAILURE))

    def _greeting(self) -> bytes:
        data = self._data
        if len(data) < 2 or len(data) < 2 + data[1]:
            return b""
        methods = data[2 : 2 + data[1]]
        if _NO_AUTHENTICATION not in methods:
            raise SocksRefusedError(
                "the client insists on a password; this proxy has none", _NOTHING_ACCEPTABLE
            )
        self._data = data[2 + data[1] :]
        self._state = _State.REQUEST
        return bytes((5, _NO_AUTHENTICATION))

    def _request_5(self) -> SocksRequest | None:
        data = self._data
        if len(data) < 5:
            return None
        version, command, _, kind = data[:4]
        if version != 5:
            raise SocksRefusedError("a SOCKS5 request of another version")
        if command != _CONNECT:
            text = "UDP ASSOCIATE" if command == 3 else "BIND" if command == 2 else str(command)
            raise SocksRefusedError(
                f"SOCKS command {text}: only CONNECT is there", _reply_5(_COMMAND_UNKNOWN)
            )
        if kind not in (1, 3, 4):
            raise SocksRefusedError("an unknown kind of address", _reply_5(_ADDRESS_UNKNOWN))
        start = 5 if kind == 3 else 4
        end = start + (data[4] if kind == 3 else 4 if kind == 1 else 16)
        if len(data) < end + 2:
            return None
        raw = data[start:end]
        host = _name(raw, _reply_5(_GENERAL_FAILURE)) if kind == 3 else str(_address(raw))
        (port,) = struct.unpack(">H", data[end : end + 2])
        return _checked(host, port, data[end + 2 :], _reply_5(_GENERAL_FAILURE))

    def _request_4(self) -> SocksRequest | None:
        data = self._data
        user_end = data.find(b"\0", 8)
        if len(data) < 9 or user_end < 0:
            return None
        if data[1] != _CONNECT:
            raise SocksRefusedError("SOCKS4 BIND: only CONNECT is there", _reply_4(False))
        (port,) = struct.unpack(">H", data[2:4])
        if data[4:7] != b"\0\0\0" or not data[7]:
            return _checked(str(_address(data[4:8])), port, data[user_end + 1 :], _reply_4(False))
        name_end = data.find(b"\0", user_end + 1)
        if name_end < 0:
            return None
        host = _name(data[user_end + 1 : name_end], _reply_4(False))
        return _checked(host, port, data[name_end + 1 :], _reply_4(False))


def _checked(host: str, port: int, rest: bytes, reply: bytes) -> SocksRequest:
    if not port:
        raise SocksRefusedError("port 0", reply)
    return SocksRequest(host, port, rest)


def _name(raw: bytes, reply: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable() or len(raw) > 255:
        raise SocksRefusedError("a host name that is none", reply)
    return name


def _address(raw: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(raw)


def _reply_5(code: int) -> bytes:
    """Return a reply; the address that the translator connects from is nobody's business."""
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


def _reply_4(is_granted: bool) -> bytes:
    return bytes((0, 0x5A if is_granted else 0x5B, 0, 0, 0, 0, 0, 0))
