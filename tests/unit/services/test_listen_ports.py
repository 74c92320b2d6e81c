"""The ports at which others reach a service go with its launch and are in its context."""

from __future__ import annotations

import json
import logging

from packetcloud.chunk.names import SID
from packetcloud.services.buffers import BufferPool
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import ChunkContext, ServiceContext


def test_ports_go_with_a_launch() -> None:
    """Also one of a controller that knows nothing of them."""
    spec = LaunchSpec("s", "1.0.0", "m:C", "", "127.0.0.1", 4700, listen=(8080, 8081))
    assert LaunchSpec.from_json(spec.to_json()).listen == (8080, 8081)
    older = json.loads(spec.to_json())
    del older["listen"]
    assert LaunchSpec.from_json(json.dumps(older)).listen == ()


def test_a_service_finds_its_ports() -> None:
    """At its start, and with each chunk."""
    log = logging.getLogger("test.service")
    context = ServiceContext(SID(b"s" * 20), Parameters({}), log, (8080,))
    assert context.listen == ChunkContext(context, BufferPool(1024), b"").listen == (8080,)
