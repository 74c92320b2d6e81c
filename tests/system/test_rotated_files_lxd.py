"""A key file that changes while its service runs in a container."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import pytest

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.host.received import ReceivedChunk
from packetcloud.services.secure_communication.keys import create_key_file, rotate_key_file
from packetcloud.services.secure_communication.suites import decode_head
from packetcloud.testbed import lxd_cloudlet as testbed
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, CloudletService
from tests.system.lxd_cloudlet import LxdCloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S, vi_image

pytestmark = [
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.timeout(BUILD_TIMEOUT_S),
]
NAME = "secure-communication"


def test_a_new_key_reaches_the_container_that_runs(tmp_path: Path) -> None:
    """Chunks bear it when its time has come, the VI is the one that was there, nothing is lost; a
    VI that starts afterwards has it too."""
    key_file = tmp_path / "keys.json"
    first = create_key_file(key_file)
    settings = {"direction": "encrypt"}
    service = CloudletService(NAME, NAME, vi_image(), settings, {"key_file": key_file})
    with testbed.lxd_cloudlet(tmp_path, CloudletPlan([service]), LxdCloudlet) as cloudlet:
        cloudlet.until_running()
        source = BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
        sink = BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
        arrived: Queue[bytes] = Queue()
        sid = SID.from_hex(cloudlet.sids[NAME])

        def take(batch: list[ReceivedChunk]) -> None:
            for chunk in batch:
                arrived.put(bytes(chunk.payload))

        sink._thread.call(sink._endpoint.on_chunks, take, PayloadType.SEALED)

        def key_of_a_chunk() -> int:
            assert source.send(sink.guid, b"x" * 1000, sid=sid).ok
            return decode_head(memoryview(arrived.get(timeout=30)))[2]

        assert key_of_a_chunk() == first.key_id
        before = cloudlet.vis()
        second = rotate_key_file(key_file, 3.0)
        keys = {key_of_a_chunk()}
        cloudlet.until(lambda: keys.add(key_of_a_chunk()) or second.key_id in keys, "the new key")
        assert keys == {first.key_id, second.key_id}
        (was,), (vi,) = before, cloudlet.vis()
        assert (vi["number"], vi["restarts"]) == (was["number"], was["restarts"])
        cloudlet.ask("vi", "restart", vi["number"])
        cloudlet.until_running()
        assert key_of_a_chunk() == second.key_id
        source.close()
        sink.close()
