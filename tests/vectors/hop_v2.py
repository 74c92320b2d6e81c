"""The vectors of hop protocol 2: segments, bundles, control frames, handshake; good and bad ones.

`python -m tests.vectors.hop_v2` tells whether hop-v2.json is what the code encodes (exit code 1 if
not); with `--write` it writes the file anew. Do that only when the protocol changes on purpose.
Source: docs/protocol/hop.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from packetcloud.chunk.hop import wire
from tests.vectors.fields import Fields, plain_fields
from tests.vectors.file import VectorFile
from tests.vectors.hop_v2_invalid import bad_datagrams
from tests.vectors.hop_v2_sealed import replay_tables, sealed_datagrams
from tests.vectors.hop_v2_valid import (
    good_bundles,
    good_controls,
    good_handshakes,
    good_segments,
)


def build() -> Fields:
    """Return the vectors as the code encodes them now."""
    good = {**good_segments(), **good_bundles(), **good_controls(), **good_handshakes()}
    return {
        "protocol": "packetcloud hop",
        "version": wire.HOP_VERSION,
        "datagrams": [
            {
                "name": name,
                "type": type(value).__name__.lower(),
                "bytes": value.to_bytes().hex(),
                "fields": plain_fields(value),
            }
            for name, value in good.items()
        ],
        "sealed": sealed_datagrams(),
        "replay": replay_tables(),
        "invalid": [
            {"name": name, "kind": kind, "bytes": data.hex(), "reason": reason}
            for kind, table in bad_datagrams().items()
            for name, (data, reason) in table.items()
        ],
    }


DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "control": lambda data: list(wire.decode_control(data)),
    "hello": wire.Hello.from_bytes,
    "retry": wire.Retry.from_bytes,
    "welcome": wire.Welcome.from_bytes,
    "confirm": wire.Confirm.from_bytes,
    "reject": wire.Reject.from_bytes,
}
"""The decoder for each `kind` of invalid vector."""

FILE = VectorFile(Path(__file__).with_name("hop-v2.json"), build)

if __name__ == "__main__":
    sys.exit(FILE.main(sys.argv[1:]))
