"""The vectors of hop protocol 2: segments, bundles, control frames, handshake; good and bad ones.

`python -m tests.vectors.hop_v2` tells whether hop-v2.json is what the code encodes (exit code 1 if
not); with `--write` it writes the file anew. Do that only when the protocol changes on purpose.
Source: docs/protocol/hop.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.resets import Resets
from packetcloud.chunk.identity import Identity
from tests.vectors.fields import Fields, plain_fields
from tests.vectors.file import VectorFile
from tests.vectors.hop_v2_invalid import bad_datagrams
from tests.vectors.hop_v2_sealed import replay_tables, sealed_datagrams
from tests.vectors.hop_v2_valid import (
    SESSION,
    good_bundles,
    good_controls,
    good_handshakes,
    good_segments,
)

SEED = bytes(range(32))
INSTANCES = (0, 7)


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
        "resets": [_reset(instance) for instance in INSTANCES],
        "invalid": [
            {"name": name, "kind": kind, "bytes": data.hex(), "reason": reason}
            for kind, table in bad_datagrams().items()
            for name, (data, reason) in table.items()
        ],
    }


def _reset(instance: int) -> Fields:
    """Return what a bearer of the key of `SEED` says about a session that it does not know."""
    identity = Identity(SEED)
    reset = Resets(identity, instance, Counter()).reset(SESSION, wire.REJECT_BYTES, ("", 0), 0.0)
    assert reset is not None
    return {
        "name": f"instance {instance}",
        "seed": SEED.hex(),
        "public_key": identity.public_key.hex(),
        "instance": instance,
        "bytes": reset.hex(),
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
