"""`packetcloud bench domain` in miniature: every key is there, nothing is found wrong, and each
control finds what it must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.cli.bench_domain import domain_tables
from packetcloud.testbed.bench.domain import bench_domain
from packetcloud.testbed.bench.domain_parts import PARTS, DomainPlan
from packetcloud.testbed.bench.plot import plot_document
from packetcloud.testbed.bench.report import write_document
from packetcloud.testbed.private_postgresql import lacking_for_postgresql

pytestmark = pytest.mark.timeout(300)

BRIEF = DomainPlan(
    rate_s=0.5,
    rounds=2,
    records=1280,
    reporting=50,
    failover_s=1.0,
    kill_every_s=1.0,
    control_s=1.0,
)


def test_bench_domain_has_every_key_and_its_controls_find_what_is_wrong(tmp_path: Path) -> None:
    """All parts on both databases; what the figures are is not looked at."""
    if (reason := lacking_for_postgresql()) is not None:
        pytest.skip(reason)
    document = bench_domain(BRIEF, lambda _: None)
    write_document(document, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["failures"] == [] and found["notes"] == []
    assert {"format", "machine", "commit", "peers", "kernel"} <= found.keys()
    for kind in ("sqlite", "postgresql"):
        assert found["reservations_per_s"][kind] > 0 and found["reserve_p99_ms"][kind] > 0
        assert found["databases"][kind]["rate"]["without_http"]["per_s"] > 0
        races = found["databases"][kind]["races"]
        assert (races["rounds"], races["control_oversold"]) == (2, 140)
        assert found["databases"][kind]["billing"]["records_count"] == 1280
    assert (found["oversold"], found["billing_errors"]) == (0, 0)
    assert found["report_core_share"] > 0
    failover = found["databases"]["postgresql"]["failover"]
    assert failover["kills_count"] >= 1
    assert found["failover_pause_s"] == failover["pause_s"] > 0
    assert found["databases"]["postgresql"]["stale"]["refused"] >= 20
    assert len(domain_tables(found)) == len(PARTS)
    plot_document(found, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
