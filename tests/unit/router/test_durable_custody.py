"""Durable custody beside services, full disks and absent hosts: what was acknowledged arrives."""

from __future__ import annotations

import pytest

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import NA, SID_ZERO
from tests.unit.router.router_fakes import (
    A,
    B,
    C,
    FakeDisk,
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


@pytest.mark.parametrize("is_disk_full", [False, True])
def test_what_has_a_record_is_not_refused_for_want_of_room(is_disk_full: bool) -> None:
    """A host goes away while nothing more can be written: what was acknowledged waits for it."""
    disk = FakeDisk()
    max_bytes = 256 * KIB if is_disk_full else 43_000
    given = spooled(durable=True, memory_bytes=32 * KIB, max_bytes=max_bytes)
    net = FakeNetwork(given, disk=disk)
    a, b = net.host(A), net.host(B)
    send(a, range(38))
    net.disk_turns()
    assert a.decisions == [None] * 38
    if is_disk_full:
        disk.storage.limit_bytes = disk.storage.used_bytes
        send(a, range(100, 101))
        net.disk_turns()
        assert net.core.spool.error
    b.go_down()
    assert not net.core.book.refused
    assert net.core.forwarder.waiting.memory_bytes <= 32 * KIB
    assert ids(accept_with_disk(net, net.host(B))) == list(range(38))
    net.disk_turns()
    net.check_idle()
