"""VIs that come and go on real LXD: by load, by an operator, and none at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.reasons import Reason
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.host.results import SendOutcome, SendResult
from tests.system.fault_cloudlet import FaultCloudlet, fault_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
]


@pytest.fixture(scope="module")
def cloudlet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultCloudlet]:
    none = {"replicas_min": 0, "grace_s": 1}
    services = {
        "slow": {
            "replicas_max": 2,
            "scaling": {
                "up_penalty_s": 0.3,
                "up_after_s": 0.5,
                "down_busy_share": 0.7,
                "down_after_s": 2.0,
                "pause_s": 1.0,
            },
        },
        "tally": {"replicas_max": 2},
        "lenient": none,
        "strict": none,
    }
    with fault_cloudlet(tmp_path_factory.mktemp("scaling"), services) as made:
        made.until_running(2)
        yield made


def _count(cloudlet: FaultCloudlet, service: str) -> int:
    return len(cloudlet.vis_of(service)) if cloudlet.is_settled(service) else 0


def test_a_service_grows_with_its_load_and_shrinks_again(cloudlet: FaultCloudlet) -> None:
    """One VI takes 20 chunks a second: 30 call for a second one, 4 do without it; none is lost."""
    load = cloudlet.paced("slow", 30.0)
    try:
        cloudlet.until(lambda: _count(cloudlet, "slow") == 2)
        load.stop()
        assert load.broken_promises() == []
    finally:
        load.kill()
    rest = cloudlet.paced("slow", 4.0)
    try:
        cloudlet.until(lambda: _count(cloudlet, "slow") == 1)
        rest.flowing(8)
        rest.stop()
        assert rest.broken_promises() == []
    finally:
        rest.kill()


def test_a_vi_that_is_drained_leaves_no_chunk_behind(cloudlet: FaultCloudlet) -> None:
    """Whichever of two goes, the other serves on."""
    load = cloudlet.paced("tally", 60.0)
    try:
        for choose in (min, max):
            assert cloudlet.ask("vi", "launch", "tally")["state"] == "done"
            load.flowing(60)
            number = choose(one["number"] for one in cloudlet.vis_of("tally"))
            assert cloudlet.ask("vi", "drain", number)["state"] == "done"
            assert [one["number"] for one in cloudlet.vis_of("tally")] != [number]
            load.flowing(60)
        load.stop()
        assert load.broken_promises() == []
    finally:
        load.kill()


def test_chunks_follow_the_fail_policy_while_there_is_no_vi(cloudlet: FaultCloudlet) -> None:
    """Before the first, and after the last: `open` lets them pass as they are, `closed` refuses
    them; with a VI both are served."""
    with contextlib.ExitStack() as stack:
        source, sink = (
            stack.enter_context(
                contextlib.closing(
                    BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
                )
            )
            for _ in range(2)
        )

        pool = stack.enter_context(ThreadPoolExecutor(1))

        def begin(service: str) -> Future[SendResult]:
            sid = cloudlet.sid_of(service)
            return pool.submit(source.send, sink.guid, b"chunk", sid=sid, lifetime_s=30.0)

        def delivered(service: str) -> bytes:
            sending = begin(service)  # it ends when somebody has taken the chunk
            chunk = sink.receive()
            assert chunk is not None and sending.result().ok
            return chunk.payload

        def nobody_serves() -> None:
            assert delivered("lenient") == b"chunk"
            result = begin("strict").result()
            assert (result.outcome, result.reason) == (SendOutcome.REFUSED, Reason.SERVICE_FAILED)

        nobody_serves()
        for service in ("lenient", "strict"):
            assert cloudlet.ask("vi", "launch", service)["state"] == "done"
            assert delivered(service) == b"1 chunk"
            number = cloudlet.vi_of(service)["number"]
            assert cloudlet.ask("vi", "stop", number)["state"] == "done"
        nobody_serves()
