"""A download by curl through a proxy: counts what comes, compares it with what it should be.

`python -m packetcloud.testbed.peers.download URL --proxy ADDRESS`: prints `window`, the payload
that came after the warm-up, and ends. The file is the pattern of `traffic.pattern`, over and over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.peers.tools import find_tool
from packetcloud.testbed.processes import emit_event
from packetcloud.testbed.traffic.node import now_s
from packetcloud.testbed.traffic.pattern import make_payload
from packetcloud.testbed.traffic.window import ArrivalWindow

PERIOD_BYTES = 1 << 20
"""After so many bytes the pattern begins anew."""
READ_BYTES = 1 << 16


class Pattern:
    """Tells whether bytes that come piece by piece are those of the file."""

    def __init__(self) -> None:
        # Twice, so that a piece that passes the end is in one piece here, too.
        self._twice = make_payload(PERIOD_BYTES) * 2
        self._offset = 0

    def goes_on_with(self, piece: bytes) -> bool:
        """Take the next piece, of at most a period."""
        begin = self._offset
        self._offset = (begin + len(piece)) % PERIOD_BYTES
        return self._twice[begin : begin + len(piece)] == piece


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Return what a stream brings, as it comes, until it ends."""
    while piece := stream.read1(READ_BYTES):  # type: ignore[attr-defined]  # of a BufferedReader
        yield piece


def download(url: str, proxy: str, warmup: float, seconds: float) -> None:
    """Download until the window has closed.

    Raises:
        ChildError: the download ended before, or brought other bytes.
    """
    command = [find_tool("curl"), "-sS", "-N", "--proxy", f"socks5h://{proxy}", url]
    window, pattern = ArrivalWindow(warmup, seconds), Pattern()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        try:
            for piece in pieces(curl.stdout):
                if not pattern.goes_on_with(piece):
                    raise ChildError(f"{url}: other bytes came than are in the file")
                closed = window.arrived(now_s(), len(piece))
                if closed is not None:
                    emit_event("window", **window.event(closed))
                    return
        finally:
            curl.terminate()
    raise ChildError(f"{url}: the download ended before {warmup + seconds:g} s were over")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--proxy", required=True, help="ADDRESS:PORT of a SOCKS5 proxy")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    try:
        download(options.url, options.proxy, options.warmup, options.seconds)
    except ChildError as error:
        emit_event("error", text=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
