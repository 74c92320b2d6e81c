"""What `bench vi` makes of its measurements, and its judge: each broken promise is seen."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

from packetcloud.cli.bench_vi import vi_tables
from packetcloud.testbed.bench import vi, vi_place
from packetcloud.testbed.bench.plot import plot_document
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.vi import top_figures
from packetcloud.testbed.bench.vi_cold import median_stages, stage_durations
from packetcloud.testbed.bench.vi_idle import idle_vcpu
from packetcloud.testbed.bench.vi_judge import Judgement, Moved, judge
from packetcloud.testbed.bench.vi_migration import SETTLE_S, migration_figures
from packetcloud.testbed.bench.vi_penalty import Visits, penalty_figures
from packetcloud.testbed.bench.vi_place import Servers, ViPlan, Workplace, spread
from packetcloud.testbed.bench.vi_resize import ControlGroups
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.simulation.journal import Entry, Line
from packetcloud.testbed.tally import tallied
from packetcloud.testbed.traffic.witness import Journal, Row, load_journal
from packetcloud.testbed.visits import Counted

DELAY_S = 0.01
PAUSE = Moved(2.0, 3.0)


def row(time_s: float, entry: Entry, op: int, count: int = 0, digest: str = "d") -> Row:
    node = "B" if entry is Entry.TAKEN else "A"
    outcome = "delivered" if entry is Entry.ENDED else ""
    return Line(time_s, node, 1, entry, op, "guid-a", op, 10, digest, outcome), count


def chunk(op: int, count: int | None = None, sent_s: float | None = None) -> list[Row]:
    """A chunk's way without fault: sent, taken with its count, reported."""
    begin_s = float(op) if sent_s is None else sent_s
    return [
        row(begin_s, Entry.SUBMITTED, op),
        row(begin_s + DELAY_S, Entry.TAKEN, op, op if count is None else count),
        row(begin_s + 2 * DELAY_S, Entry.ENDED, op),
    ]


def judged(*rows: Row) -> Judgement:
    return judge(rows, [PAUSE], 60.0)


GOOD = [one for op in (1, 2, 3) for one in chunk(op)]


def test_a_run_without_fault() -> None:
    """Nothing is found, and the pause is the longest delay of what was sent meanwhile."""
    found = judged(*GOOD)
    assert (found.sent, found.lost, found.doubled, found.problems) == (3, 0, 0, ())
    assert found.pauses_s == pytest.approx((DELAY_S,))


def test_a_pause_is_seen_by_the_chunks_that_waited() -> None:
    late = chunk(2)
    late[1] = row(2.75, Entry.TAKEN, 2, 2)
    late[2] = row(2.76, Entry.ENDED, 2)
    assert judged(*chunk(1), *late, *chunk(3)).pauses_s == pytest.approx((0.75,))


def test_a_chunk_that_was_never_taken_is_lost() -> None:
    """Also when its sender was told so honestly, and most of all when it was not."""
    rows = [one for one in GOOD if one[0].op != 2 or one[0].entry is Entry.SUBMITTED]
    found = judged(*rows)
    assert found.lost == 1
    assert found.pauses_s == pytest.approx((DELAY_S,)), "of those that came"
    assert any("never taken: chunk 2" in text for text in found.problems)
    assert any(text.startswith("L1") for text in found.problems)


def test_a_chunk_that_was_taken_twice_is_doubled_once() -> None:
    found = judged(*GOOD, row(2.5, Entry.TAKEN, 2, 2))
    assert found.doubled == 1
    assert any(text.startswith("L2") for text in found.problems)


def test_a_state_that_stayed_behind_is_seen() -> None:
    """The twin counts from the start: no chunk came twice, and two owners counted the same."""
    found = judged(*chunk(1), *chunk(2), *chunk(3, count=1))
    assert (found.lost, found.doubled) == (0, 1)
    assert "written twice by the service: count 1" in found.problems


def test_an_old_owner_that_was_not_held_is_seen() -> None:
    """It served on after its state was copied: both count on from there."""
    found = judged(*chunk(1), *chunk(2, count=2), *chunk(3, count=2), *chunk(4, count=3))
    assert found.doubled == 1


def test_a_count_that_is_missing_is_seen() -> None:
    found = judged(*chunk(1), *chunk(2, count=3))
    assert (found.lost, found.doubled) == (0, 0)
    assert found.problems == ("left out by the service: count 2",)


def test_an_altered_chunk_is_seen() -> None:
    found = judged(*chunk(1), row(2.0, Entry.SUBMITTED, 2), row(2.1, Entry.TAKEN, 2, 2, "other"))
    assert any(text.startswith("L3") for text in found.problems)


def test_a_journal_comes_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal("B")
    journal.write(Entry.TAKEN, 7, "guid-a", 9, 10, "digest", count=3)
    journal.write(Entry.ENDED, 7, "guid-a", 9, 10, "digest", outcome="x", is_indeterminate=True)
    journal.dump(tmp_path / "b.journal")
    assert load_journal(tmp_path / "b.journal") == journal.rows
    assert journal.rows[0][1] == 3


def test_what_a_tally_wrote() -> None:
    assert tallied(b"12 of these 3") == (12, b"of these 3")


def test_quantiles_of_few_and_of_none() -> None:
    assert spread([])["p95_s"] is None
    assert spread([0.5])["p50_s"] == spread([0.5])["p95_s"] == 0.5
    found = spread([float(number) for number in range(101)])
    assert (found["p50_s"], found["p95_s"], found["max_s"]) == (50.0, 95.0, 100.0)


def test_stages_add_up_to_the_whole() -> None:
    """In the order in which they ended; the end is host B's, not what the VI says of itself."""
    took_s = {"created": 0.3, "started": 0.9, "called": 0.8, "attached": 2.0, "first_chunk": 1.0}
    found = stage_durations(100.0, 100.1, took_s, 101.5)
    assert list(found) == ["begun", "created", "called", "started", "first_chunk"]
    assert found["called"] == pytest.approx(0.5)
    assert sum(found.values()) == pytest.approx(1.5)
    assert median_stages([found, {"begun": 0.3}])["begun"] == pytest.approx(0.2)


def test_many_vis_share_a_node() -> None:
    """They fit, and leave room for one that starts; of a few each has no more than it needs."""
    assert idle_vcpu(50, 2) == 0.02
    assert 50 * idle_vcpu(50, 2) + 0.5 <= 2
    assert idle_vcpu(3, 2) == 0.25
    with pytest.raises(ChildError, match="200 VIs do not fit 2 cores"):
        idle_vcpu(200, 2)


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        (
            "0::/a/b\n",
            {"a/b/memory.max": "268435456\n", "a/b/cpu.max": "50000 100000\n"},
            (256 << 20, 0.5),
        ),
        ("0::/a\n", {"a/memory.max": "max\n", "a/cpu.max": "max 100000\n"}, (None, None)),
        (
            "5:cpu,cpuacct:/c\n4:memory:/m\n0::/a\n",
            {
                "memory/m/memory.limit_in_bytes": "1048576\n",
                "cpu,cpuacct/c/cpu.cfs_quota_us": "100000\n",
                "cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            (1 << 20, 1.0),
        ),
        (
            "5:cpu,cpuacct:/c\n4:memory:/m\n",
            {
                "memory/m/memory.limit_in_bytes": "1048576\n",
                "cpu/c/cpu.cfs_quota_us": "-1\n",
                "cpu/c/cpu.cfs_period_us": "100000\n",
            },
            (1 << 20, None),
        ),
    ],
)
def test_limits_in_force(
    tmp_path: Path, groups: str, files: dict[str, str], limits: tuple[int | None, float | None]
) -> None:
    """Control groups of both versions, also where two controllers share a folder."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text(groups)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    found = ControlGroups.of(1, tmp_path / "groups", tmp_path / "proc")
    assert found.limits() == limits


def test_a_process_without_control_groups(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/cgroup").write_text("0::/\n")
    with pytest.raises(ChildError, match="no control groups of process 1"):
        ControlGroups.of(1, tmp_path, tmp_path)


def _visits(*durations_s: float) -> Visits:
    counted = Counted(len(durations_s), sum(durations_s), Counter(durations_s))
    return dict.fromkeys(("delay_penalty", "processing", "delivery"), counted)


def test_the_penalty_of_a_back_end_is_that_of_all_its_runs() -> None:
    """Medians over all chunks, and the mean of each run; without a run there is none."""
    figures = penalty_figures({"lxd": [_visits(0.002, 0.003), _visits(0.004)], "process": []})
    assert figures["lxd_delay_penalty_p50_ms"] == pytest.approx(3.0)
    assert figures["lxd_mean_ms"] == pytest.approx([2.5, 4.0])
    assert figures["process_delay_penalty_p50_ms"] is None
    assert figures["ratio"] is None and figures["ratio_of_means"] is None


def _document() -> Document:
    penalty = penalty_figures(
        {"lxd": [_visits(0.0024), _visits(0.0022)], "process": [_visits(0.002)]}
    )
    kept = Judgement(40, 0, 0, (), (0.2, 0.3))
    return {
        "benchmark": "vi",
        "machine": {"cpu": "c", "cores": 2},
        "commit": "c",
        "kernel": "k",
        "time": "t",
        "repeats": 1,
        "seconds": 1,
        "topology": "private LXD servers",
        "penalty": {"sizes": {"65536": penalty_figures(
            {"lxd": [_visits(0.002)], "process": [_visits(0.001)]}
        ), "1048576": penalty}, "ratio": penalty["ratio"]},
        "cold": {
            "launches": 2,
            "start": spread([0.8, 0.9]),
            "stages_p50_s": {"begun": 0.1, "created": 0.5, "first_chunk": 0.25},
        },
        "standby": {
            "launches": 2,
            "start": spread([0.1, 0.2]),
            "stages_p50_s": {"begun": 0.1, "launched": 0.05},
        },
        "resize": {"resizes": 1, "resize": spread([0.1])},
        "migration": migration_figures(kept, [Moved(1.0, 2.0 + SETTLE_S)] * 2, 200.0),
        "idle": {
            "vis": 50,
            "controller_core_share": 0.03,
            "router_core_share": 0.01,
            "whole_machine_cores": 0.5,
        },
    }  # fmt: skip


class _Server:
    """Stands for an LXD server: is there from its start until it is closed."""

    running: ClassVar[list[_Server]] = []

    def __init__(self, *, pool_mib: int) -> None:
        self.pool_mib = pool_mib

    def __enter__(self) -> _Server:
        self.running.append(self)
        return self

    def close(self) -> None:
        self.running.remove(self)


def test_parts_have_the_same_servers_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a part asks for run meanwhile; a larger pool is a fresh one, and after an error
    nothing is used again."""
    monkeypatch.setattr(vi_place, "LxdDaemon", _Server)
    running = _Server.running
    with Servers() as servers:
        with servers.lent(1, 4096) as lent:
            (first,) = lent
        with servers.lent(2, 4096) as lent:
            assert lent[0] is first and len(running) == 2
        with servers.lent(1, 2048) as lent:
            assert list(lent) == running == [first]
        with servers.lent(1, 8192) as lent:
            (larger,) = lent
            assert larger is not first and running == [larger]
        with pytest.raises(ChildError), servers.lent(1, 4096):
            raise ChildError("no VI")
        assert running == []
        with servers.lent(1, 4096) as lent:
            assert lent[0] is not larger
    assert running == []


def test_what_fails_stands_in_the_report_with_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what failed before the part itself did; the other parts are measured all the same."""

    def fails(place: Workplace) -> Document:
        place.failures.append("run 1: no chunk")
        raise ChildError("no VI")

    def goes_on(place: Workplace) -> Document:
        place.failures += ["L1", "L2"]
        return {"resize": spread([0.1])}

    monkeypatch.setattr(vi, "check_lxd", lambda: None)
    monkeypatch.setitem(vi._MEASURES, "cold", fails)
    monkeypatch.setitem(vi._MEASURES, "resize", goes_on)
    plan = ViPlan(parts=("cold", "resize"))
    found = vi.bench_vi(plan, vi.QUICK_TIMING, lambda text: None)
    assert found["failures"] == ["cold: run 1: no chunk", "cold: no VI", "resize: L1", "resize: L2"]
    assert "cold" not in found and found["resize_p95_s"] == 0.1


def test_every_promised_figure_stands_at_the_top() -> None:
    """Of the largest chunk; of parts that were not measured there is none."""
    found = top_figures(_document())
    assert found == pytest.approx(
        {
            "penalty_ratio_lxd": 1.1,
            "cold_start_p50_s": 0.85,
            "cold_start_p95_s": 0.895,
            "standby_start_p50_s": 0.15,
            "standby_start_p95_s": 0.195,
            "resize_p95_s": 0.1,
            "migration_lost": 0,
            "migration_doubled": 0,
            "migration_pause_p50_s": 0.25,
            "migration_pause_p95_s": 0.295,
            "idle_core_share": 0.03,
        }
    )
    assert top_figures({"idle": _document()["idle"]}) == {"idle_core_share": 0.03}
    assert _document()["penalty"]["sizes"]["1048576"]["ratio_of_means"] == pytest.approx(1.15)
    assert _document()["penalty"]["sizes"]["65536"]["ratio_of_means"] == pytest.approx(2.0)
    assert _document()["migration"]["duration"]["p50_s"] == pytest.approx(1.0)


def test_tables_of_the_parts_that_were_measured() -> None:
    tables = list(vi_tables(_document()))
    assert len(tables) == 5
    assert tables[2].columns == ("stage", "cold s", "standby s")
    assert ("created", 0.5, None) in tables[2].rows
    times = {row[0]: row[1:3] for row in tables[1].rows}
    assert times["migration: pause of chunks"] == (2, 0.25)
    assert [row[-1] for row in tables[0].rows] == [None, 2.0, None, pytest.approx(1.1)]
    assert list(vi_tables({})) == []


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_the_picture_of_all_parts_and_of_none(tmp_path: Path) -> None:
    for number, document in enumerate((_document(), {**_document(), "penalty": {}, "cold": {}})):
        plot_document(document, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")
