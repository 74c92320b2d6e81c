"""The child of `service benchmark`: one service, made-up chunks, as fast as it can.

It says a line of JSON when the service is ready, and one at the end. Called with manifest, kind of
payload, chunk bytes, seconds and settings.
"""

from __future__ import annotations

import json
import resource
import sys
from time import monotonic

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.benchmark import MARK
from packetcloud.services.catalogue import find_service
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.parameters import parse_settings
from packetcloud.services.testing import ServiceHarness
from packetcloud.services.trial import GeneratedKind, generated_payloads

PAYLOADS_COUNT = 16
"""Different ones; they come again and again."""
SEED = 1


def run(manifest: str, kind: str, chunk_bytes: int, seconds: float, settings: list[str]) -> None:
    """Process chunks for so long.

    Raises:
        ServiceConfigError: the service cannot start, or fails on a chunk.
    """
    payloads = list(generated_payloads(GeneratedKind(kind), PAYLOADS_COUNT, chunk_bytes, SEED))
    with ServiceHarness(find_service(manifest), parse_settings(settings)) as harness:
        for payload in payloads:  # buffers and caches are as they stay
            _process(harness, payload)
        _say({"ready": True})
        began_s, chunks_count = monotonic(), 0
        while monotonic() < began_s + seconds:
            _process(harness, payloads[chunks_count % PAYLOADS_COUNT])
            chunks_count += 1
        took_s = monotonic() - began_s
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    said: dict[str, object] = {"chunks": chunks_count, "seconds": took_s, "peak_bytes": peak_bytes}
    _say(said)


def _say(what: dict[str, object]) -> None:
    print(MARK + json.dumps(what), flush=True)


def _process(harness: ServiceHarness, payload: memoryview) -> None:
    result = harness.process(payload)
    if result.code is VerdictCode.FAILED:
        raise ServiceConfigError(
            f"it fails on a chunk: {result.reason}; try it: packetcloud service test"
        )


if __name__ == "__main__":
    manifest_, kind_, chunk_bytes_, seconds_, *settings_ = sys.argv[1:]
    try:
        run(manifest_, kind_, int(chunk_bytes_), float(seconds_), settings_)
    except PacketCloudError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
