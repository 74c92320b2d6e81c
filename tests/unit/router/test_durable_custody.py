"""Durable custody beside services, full disks and absent hosts: what was acknowledged arrives."""

from __future__ import annotations

import pytest

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import NA, SID_ZERO
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeNetwork,
    S,
)
from tests.unit.router.test_spool import KIB, accept_with_disk, ids, payload, send, spooled


@pytest.mark.parametrize("redirected", [False, True])
def test_a_spilled_chunk_keeps_what_its_service_wrote_into_the_header(redirected: bool) -> None:
    """The record is the chunk as it came; what comes back from it is the payload alone."""
    net = FakeNetwork(spooled(durable=True, memory_bytes=4 * KIB))
    a, vi = net.host(A), net.vi(S)
    target = C if redirected else B
    net.host(target).go_down()
    send(a, range(20), services=(S,))
    net.disk_turns()
    for task in vi.accept_all():
        if redirected:
            vi.verdict(task, VerdictCode.REDIRECT, detail=C.value + NA(1).to_bytes())
        else:
            vi.verdict(task, VerdictCode.FORWARD)
    net.disk_turns()
    assert net.core.spool.spilled_count > 10
    taken = accept_with_disk(net, net.host(target))
    assert ids(taken) == list(range(20))
    assert {sent.header.destination for sent in taken} == {target}
    assert {sent.header.sid for sent in taken} == {SID_ZERO}
    assert [sent.payload for sent in taken] == [payload(n) for n in range(20)]
    net.disk_turns()
    net.check_idle()
