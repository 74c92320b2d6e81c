"""The sample of chunks to and from VIs: what is in it, what it costs others, where it is kept."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from packetcloud.chunk.capture import CapturedPacket, read_packets
from packetcloud.chunk.messages import BodyKind, VerdictCode
from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import InspectionPlan
from packetcloud.router.inspection import MAX_INSPECTION_BYTES, Inspected, Inspection
from packetcloud.router.inspection_files import InspectionFiles
from packetcloud.router.tap import Point, Sight
from tests.unit.router.cloudlet_tables import cloudlet_network, entry, vi
from tests.unit.router.router_fakes import A, B, FakeNetwork, S, T, chunk
from tests.unit.router.service_visits import task_of

ALL = InspectionPlan(one_in=1, snap_bytes=100, keep_bytes=1 << 20)


def inspection_of(net: FakeNetwork) -> Inspection:
    assert net.core.cloudlet is not None
    return net.core.cloudlet.inspection


def service_of(net: FakeNetwork) -> CloudletService:
    found = net.core.dispatch.services[S.value]
    assert isinstance(found, CloudletService)
    return found


def sight(content: bytes = b"x" * 100) -> Sight:
    return Sight(0, Point.TASK, BodyKind.TASK, content, len(content), 0, None, "")


def packets(path: Path) -> list[CapturedPacket]:
    return list(read_packets(io.BytesIO(path.read_bytes()), path.name))


def files(folder: Path, max_bytes: int = 1 << 30) -> InspectionFiles:
    return InspectionFiles(folder, max_bytes, lambda: CaptureWriter("r1", ("127.0.0.1", 4700), 1))


def test_tasks_and_verdicts_of_a_vi_are_looked_at() -> None:
    """Both ways, with the name of the service and the instance; what passes is not changed."""
    net, _ = cloudlet_network(entry(vi(7), inspection=ALL))
    a, b, one = net.host(A), net.host(B), net.vi(S, 7)
    assert a.chunk(chunk(services=(S,), payload=b"before")) is None
    task = task_of(one)
    one.verdict(task, VerdictCode.UPDATE, b"behind it")
    assert b.accept_all()[0].payload == b"behind it"
    first, second = inspection_of(net).take()
    assert (first.service, first.instance, first.keep_bytes) == ("s", 7, 1 << 20)
    assert (first.sight.point, first.sight.content) == (Point.TASK, task.data)
    assert second.sight.point is Point.VERDICT
    assert second.sight.content.endswith(b"behind it")
    assert inspection_of(net).take() == []
    assert not net.core.tap.is_on, "captures of operators have nothing to do with it"


def test_nobody_looks_where_it_is_not_declared() -> None:
    """A service beside one that is inspected has no tap; nor has one that is not any more."""
    net, controller = cloudlet_network(entry(vi(1)), entry(vi(5), sid=T, inspection=ALL))
    a, one = net.host(A), net.vi(S, 1)
    net.host(B)
    assert service_of(net).tap is None
    assert a.chunk(chunk(services=(S,))) is None
    one.verdict(task_of(one))
    assert inspection_of(net).take() == []
    controller.put(entry(vi(1), inspection=ALL))
    tap = service_of(net).tap
    controller.put(entry(vi(1), inspection=ALL, priority=3))
    assert tap is not None and service_of(net).tap is tap
    controller.put(entry(vi(1), inspection=InspectionPlan(2, 100, 1 << 20)))
    assert service_of(net).tap is not tap
    controller.put(entry(vi(1)))
    assert service_of(net).tap is None


def test_a_share_of_the_chunks_is_looked_at_both_ways_or_not_at_all() -> None:
    """One of eight by declaration: some, far from all, and each of them with task and verdict."""
    net, _ = cloudlet_network(entry(vi(1), inspection=InspectionPlan(8, 0, 1 << 20)))
    a, b, one = net.host(A), net.host(B), net.vi(S, 1)
    for number in range(400):
        assert a.chunk(chunk(services=(S,), chunk_id=number)) is None
        one.verdict(task_of(one))
        b.accept_all()
    looks = inspection_of(net).take()
    assert [one.sight.point for one in looks] == [Point.TASK, Point.VERDICT] * (len(looks) // 2)
    assert 20 < len(looks) // 2 < 100


def test_what_finds_no_room_is_left_out_and_counted() -> None:
    """At the cap, and one more."""
    inspection = Inspection(lambda: 0)
    woken: list[bool] = []
    inspection.wake = lambda: woken.append(True)
    look = Inspected("s", 1, 1, sight(b"x" * (1 << 20)))
    while inspection.ring_bytes + look.sight.ring_bytes <= MAX_INSPECTION_BYTES:
        assert inspection.put(look)
    assert woken == [True]
    assert not inspection.put(look)
    assert (inspection.lost_count, inspection.taken_count) == (1, len(inspection.take()))
    assert inspection.put(look) and woken == [True, True]


def test_a_vi_has_the_newest_of_its_looks_within_its_room(tmp_path: Path) -> None:
    """Two files, each a capture of its own, together no larger than what was declared."""
    keep_bytes, written = 64_000, files(tmp_path)
    for number in range(300):
        written.write("s-1", keep_bytes, [sight(b"%04d" % number + b"x" * 600)])
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        assert sum(sizes) <= keep_bytes and len(sizes) <= 2
    numbers = [
        int(bytes(packet.data[packet.data.index(b"x" * 600) - 4 :][:4]))
        for name in ("s-1.old.pcapng", "s-1.pcapng")
        for packet in packets(tmp_path / name)
    ]
    assert numbers == list(range(numbers[0], 300)) and len(numbers) > 40
    assert (tmp_path / "s-1.pcapng").stat().st_mode & 0o777 == 0o600


def test_a_router_that_starts_again_puts_aside_what_was_there(tmp_path: Path) -> None:
    files(tmp_path).write("s-1", 1 << 20, [sight(), sight()])
    files(tmp_path).write("s-1", 1 << 20, [sight()])
    assert len(packets(tmp_path / "s-1.old.pcapng")) == 2
    assert len(packets(tmp_path / "s-1.pcapng")) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_all_files_together_have_their_room(tmp_path: Path, is_restarted: bool) -> None:
    """The oldest goes first; whose file went begins another."""
    max_bytes = 20_000
    written = files(tmp_path, max_bytes)
    for number in range(60):
        if is_restarted:
            written = files(tmp_path, max_bytes)
        written.write(f"s-{number % 30}", 1 << 20, [sight(b"x" * 1000)])
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= max_bytes
    newest = {f"s-{number}.pcapng" for number in range(20, 30)}
    assert newest <= {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        assert packets(path)


def test_a_file_that_could_not_be_written_whole_is_gone_on_with_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is torn stays behind what was put aside; the next look begins a capture."""
    written = files(tmp_path)
    written.write("s-1", 1 << 20, [sight()])
    with monkeypatch.context() as patched:
        patched.setattr("os.write", lambda descriptor, data: len(data) // 2)
        with pytest.raises(OSError, match="No space left"):
            written.write("s-1", 1 << 20, [sight()])
    written.write("s-1", 1 << 20, [sight()])
    assert len(packets(tmp_path / "s-1.pcapng")) == 1
