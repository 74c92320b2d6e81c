"""Counts the UDP payload that arrives at this place from one port, by the port that it is for.

Prints `ready`, and `captured` at SIGUSR1; ends at SIGTERM. It sees what no socket asked for, too.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
from collections import Counter

from packetcloud.testbed.attack.packets import decode_packet
from packetcloud.testbed.processes import emit_event

_LONGEST_PACKET_BYTES = 65_535
_LOOK_S = 0.1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from-port", type=int, required=True)
    options = parser.parse_args(arguments)
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    captured: Counter[int] = Counter()
    packets: Counter[int] = Counter()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        sock.setblocking(False)
        emit_event("ready")
        while signal.SIGTERM not in asked:
            while select.select([sock], [], [], _LOOK_S)[0]:
                source, target, size = decode_packet(sock.recv(_LONGEST_PACKET_BYTES))
                if source == options.from_port:
                    captured[target] += size
                    packets[target] += 1
            if asked == [signal.SIGUSR1]:
                asked.clear()
                found = {str(port): (size, packets[port]) for port, size in captured.items()}
                emit_event("captured", by_port=found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
