"""A service that only reads: it takes the checksum of every payload and lets the chunk go on."""

from __future__ import annotations

from pathlib import Path

NAME = "reader"
MANIFEST = """\
manifest = 1
[service]
name = "reader"
version = "1.0.0"
summary = "Reads every byte and changes none."
entry_point = "reader_service:Reader"
[behaviour]
fail_policy = "closed"
verdicts = ["forward"]
"""
MODULE = """\
import zlib

from packetcloud.services.sdk import NetworkService, Verdict


class Reader(NetworkService):
    def start(self, context):
        self.checksum = 0

    def process(self, chunk, context):
        self.checksum = zlib.crc32(chunk.payload, self.checksum)
        return Verdict.forward()
"""


def lay_reader(folder: Path) -> Path:
    """Write the service into `folder`/reader; return that."""
    service = folder / NAME
    service.mkdir(parents=True)
    (service / "manifest.toml").write_text(MANIFEST)
    (service / "reader_service.py").write_text(MODULE)
    return service
