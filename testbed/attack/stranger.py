"""A stranger who can send to a node and put any source address on what he sends.

    guess     datagrams of sessions with random ids, from the address of a neighbour
    flood     HELLOs from random addresses, as many as he can
    reflect   every kind of message, a few of each, from the address of a third party

Prints `ready`, begins at SIGUSR1, and prints `done` with what was sent.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.handshake import ClientHandshake
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID
from packetcloud.testbed.attack.go import wait_for_go
from packetcloud.testbed.attack.packets import encode_packet, open_raw_socket
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import parse_address, parse_guid

FIRST_PORT = 40_000
"""Of the third party: one port for each kind of message, so that the answers can be told apart."""
OF_EACH = 20
_PACE_S = 0.25
"""Between the kinds of messages: what is answered at most so often a second is answered."""
_HELLOS = 64
_SOURCES = 4096
"""Sources of a flood, out of 100.64.0.0/10, which is nobody's on the open Internet (RFC 6598)."""
_LATE = 1000
"""A number that a session has not come to yet, but may."""
_ID = slice(28 + 4, 28 + 12)
_SOURCE_ADDRESS = slice(12, 16)
_SOURCE_PORT = slice(20, 22)


def hello(guid: GUID | None, *, version: int = wire.HOP_VERSION) -> bytes:
    """Return a HELLO of a new key, towards the node with this name or to whom it may concern."""
    parameters = wire.Parameters(1, 1472, 1 << 20, 1 << 20, 1 << 20)
    local_id = int.from_bytes(os.urandom(8), "big") | 1
    client = ClientHandshake(
        Identity.generate(), parameters, None, guid, local_id, os.urandom, 1, 0.0
    )
    datagram = client.take_datagram()
    assert datagram is not None
    return bytes([version << 4 | datagram[0] & 15]) + datagram[1:]


def shortest(datagram: bytes) -> bytes:
    """Return a HELLO without its padding; only a node without that defence takes it."""
    tail = wire.MAC_BYTES + wire.COOKIE_BYTES
    return datagram[:-tail].rstrip(b"\0") + datagram[-tail:]


def messages(guid: GUID, is_short: bool) -> Iterator[tuple[str, bytes]]:
    """Yield every kind of message that a stranger can send, `OF_EACH` of each."""

    def of_type(kind: int, size: int) -> bytes:
        head = bytes([wire.HOP_VERSION << 4 | kind, 0, 0, 0])
        return (head + os.urandom(8)).ljust(size, b"\0")

    cut = shortest if is_short else bytes
    known, repeated = hello(guid), hello(guid)
    for _ in range(OF_EACH):
        yield "HELLO", cut(hello(guid))
        yield "HELLO, repeated", cut(repeated)
        yield "HELLO, no name", cut(hello(None))
        yield "HELLO, another's name", cut(hello(GUID(os.urandom(20))))
        yield (
            "HELLO, wrong cookie",
            cut(known[: -wire.COOKIE_BYTES] + os.urandom(wire.COOKIE_BYTES)),
        )
        yield "HELLO, version 1", cut(hello(guid, version=1))
        yield "HELLO, garbage", of_type(wire.DatagramType.HELLO, wire.MIN_DATAGRAM_BYTES)
        for kind in wire.DatagramType:
            for size in (12, wire.REJECT_BYTES, wire.MIN_DATAGRAM_BYTES, 1472):
                yield f"{kind.name}, {size} bytes", of_type(kind, size)
        for number in (0, *range(len(wire.DatagramType) + 1, 16)):
            yield "unknown types", of_type(number, 100)
        for size in range(1, 12):
            yield "cut short", os.urandom(size)


def session_datagrams() -> list[bytes]:
    """Return a DATA, a BUNDLE and a CONTROL that a node without seals takes under the right id.

    They begin a transfer, hand over a body, and end the session.
    """
    control = wire.encode_control(0, _LATE, [wire.CloseFrame("guessed").to_bytes()])
    body = b"guessed"
    data = wire.DATA_HEADER.pack(
        wire.DATA_BYTE, BodyKind.CHUNK, 0, 0, _LATE + 1, len(body), 0, _LATE, 0
    )
    bundle = wire.BUNDLE_HEADER.pack(wire.BUNDLE_BYTE, 0, 0, 0, _LATE, _LATE, 1, 0)
    record = wire.RECORD.pack(_LATE, len(body), BodyKind.CHUNK, 0, 0)
    return [data + body, bundle + record + body, control]


def reflect(sock: socket.socket, options: argparse.Namespace) -> dict[str, object]:
    """Send everything in the name of the third party; what is sent twice a second is spread."""
    names = list(dict.fromkeys(name for name, _ in messages(options.guid, options.short)))
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    sent = dict.fromkeys(names, 0)
    by_name: dict[str, list[bytes]] = {name: [] for name in names}
    for name, datagram in messages(options.guid, options.short):
        by_name[name].append(datagram)
    for name, datagrams in by_name.items():
        for datagram in datagrams:
            source = options.source[0], ports[name]
            sock.sendto(encode_packet(source, options.target, datagram), options.target)
            sent[name] += len(datagram)
        time.sleep(_PACE_S)
    counts = {name: len(datagrams) for name, datagrams in by_name.items()}
    return {"ports": ports, "sent_bytes": sent, "sent": counts}


def guess(sock: socket.socket, options: argparse.Namespace) -> dict[str, object]:
    """Send datagrams of sessions that may exist, from the address of one neighbour."""
    packets = [
        bytearray(encode_packet(options.source, options.target, datagram))
        for datagram in session_datagrams()
    ]
    send, target, count = sock.sendto, options.target, options.count
    ids = b""
    began = time.monotonic()
    for number in range(count):
        at = (number & 1023) * 8
        if not at:
            ids = os.urandom(8192)
        packet = packets[number % 3]
        packet[_ID] = (1 + number // 3).to_bytes(8, "big") if options.count_up else ids[at : at + 8]
        send(packet, target)
    return {"sent": count, "seconds": time.monotonic() - began}


def flood(sock: socket.socket, options: argparse.Namespace) -> dict[str, object]:
    """Send HELLOs that name the node, each from another address, for so many seconds."""
    hellos = [hello(options.guid) for _ in range(_HELLOS)]
    packets = [
        bytearray(encode_packet(options.source, options.target, datagram)) for datagram in hellos
    ]
    sources = [bytes([100, 64 | number[0] & 63, *number[1:3]]) for number in _randoms()]
    ports = [number[3:5] for number in _randoms()]
    send, target = sock.sendto, options.target
    began = now = time.monotonic()
    sent, rate = 0, options.rate
    while now - began < options.seconds:
        for _ in range(100):
            packet = packets[sent % _HELLOS]
            packet[_SOURCE_ADDRESS] = sources[sent % _SOURCES]
            packet[_SOURCE_PORT] = ports[sent // _HELLOS % _SOURCES]
            send(packet, target)
            sent += 1
        now = time.monotonic()
        ahead = sent / rate - (now - began)
        if ahead > 0.001:
            time.sleep(ahead)
            now = time.monotonic()
    return {"sent": sent, "seconds": now - began}


def _randoms() -> list[bytes]:
    return [os.urandom(5) for _ in range(_SOURCES)]


DEEDS = {"guess": guess, "flood": flood, "reflect": reflect}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deed", choices=DEEDS)
    parser.add_argument("--target", type=parse_address, required=True)
    parser.add_argument("--source", type=parse_address, required=True, help="in whose name")
    parser.add_argument("--guid", type=parse_guid, help="the name of the target")
    parser.add_argument("--count", type=int, default=0, help="guesses")
    parser.add_argument("--count-up", action="store_true", help="guess 1, 2, 3 ...")
    parser.add_argument("--short", action="store_true", help="HELLOs without padding")
    parser.add_argument("--rate", type=float, default=50_000.0, help="HELLOs per second at most")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the flood")
    options = parser.parse_args(arguments)
    with open_raw_socket() as sock:
        wait_for_go()
        emit_event("done", **DEEDS[options.deed](sock, options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
