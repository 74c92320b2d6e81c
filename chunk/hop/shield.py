"""Has the kernel shed a share of the strangers' datagrams before this process is woken for them.

A classic BPF program on the socket: what carries the id of a known session passes, of the rest one
in `1 << shift`, by lot. Source: Linux, Documentation/networking/filter.rst; linux/filter.h.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
from collections.abc import Collection

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_MEMINFO = 55
_DROPS = struct.Struct("=32xI")
"""SK_MEMINFO_DROPS, the ninth number: shed, or for want of room."""
MAX_KNOWN_COUNT = 1800
"""A program has at most 4096 instructions, and an id takes two."""
_UDP_HEADER_BYTES = 8
_ID_LOW_OFFSET = _UDP_HEADER_BYTES + 8
"""The low half of the session id: enough to tell a known one from a guess."""
_RANDOM_OFFSET = 0xFFFF_F000 + 56
"""SKF_AD_OFF + SKF_AD_RANDOM: a 32-bit random number."""
_LOAD_WORD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_PASS, _DROP = 0xFFFF_FFFF, 0
_INSTRUCTION = struct.Struct("=HBBI")

_log = logging.getLogger(__name__)


class Shield:
    """Sheds strangers' datagrams on one socket. Where the kernel cannot, nothing is shed."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._in_force: tuple[int, frozenset[int]] = 0, frozenset()

    def shed(self, shift: int, known: Collection[int]) -> None:
        """Let one in `1 << shift` strangers pass, and all that has one of the `known` ids."""
        wanted = (
            shift,
            frozenset(number & 0xFFFF_FFFF for number in known) if shift else frozenset(),
        )
        if wanted == self._in_force or len(wanted[1]) > MAX_KNOWN_COUNT:
            return
        before, self._in_force = self._in_force, wanted
        if bool(before[0]) != bool(shift):
            _log.warning("hop: a flood %s", "begins: strangers wait" if shift else "has ended")
        try:
            if shift:
                self._attach(program(*wanted))
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        except OSError as error:
            _log.warning("hop: the kernel sheds nothing: %s", error)

    def dropped_count(self) -> int:
        """Return what the kernel dropped at this socket so far; 0 where it does not say."""
        try:
            found = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _DROPS.size)
        except OSError:
            return 0
        dropped: int = _DROPS.unpack(found)[0] if len(found) == _DROPS.size else 0
        return dropped

    def _attach(self, code: bytes) -> None:
        held = ctypes.create_string_buffer(code, len(code))
        header = struct.pack("HP", len(code) // _INSTRUCTION.size, ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)


def program(shift: int, known: Collection[int]) -> bytes:
    """Return the filter; a datagram too short for an id is dropped by the kernel itself."""
    steps = [(_LOAD_WORD, 0, 0, _ID_LOW_OFFSET)]
    for number in sorted(known):
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _PASS)]
    steps += [
        (_LOAD_WORD, 0, 0, _RANDOM_OFFSET),
        (_AND, 0, 0, (1 << shift) - 1),
        (_JUMP_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _PASS),
        (_RETURN, 0, 0, _DROP),
    ]
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)
