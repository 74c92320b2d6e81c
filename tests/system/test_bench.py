"""The benchmarks in miniature: every promised key is there, and nothing is left behind.

What the figures are is not looked at: this machine may be doing anything else meanwhile.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import netns

from packetcloud.testbed.bench.attack import AttackPlan, bench_attack
from packetcloud.testbed.bench.changes import Change
from packetcloud.testbed.bench.chunks import bench_chunks
from packetcloud.testbed.bench.emulated import LINK
from packetcloud.testbed.bench.fairness import FairnessPlan, bench_fairness
from packetcloud.testbed.bench.hop import bench_hop
from packetcloud.testbed.bench.loss import CONTENDERS, PARTS, LossPlan, bench_loss
from packetcloud.testbed.bench.outages import Outage
from packetcloud.testbed.bench.path import bench_path
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.rules import RulesPlan, bench_rules
from packetcloud.testbed.bench.service import PROMISED, bench_service
from packetcloud.testbed.bench.translator import QUICK, bench_translator
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.namespaces import NetworkLab
from packetcloud.testbed.processes import packetcloud_command
from tests.system.bench_report import check_head

pytestmark = pytest.mark.timeout(300)
beside_others = pytest.mark.xdist_group("bench")
"""Their figures are not looked at, and they need no link that keeps to its times."""

BRIEF = Timing(seconds=1, warmup=0, repeats=1)
BRIEF_BESIDE = replace(BRIEF, warmup=1)
"""For flows beside each other: one that starts late has nothing in the first second."""


def _quiet(_: str) -> None:
    pass


@beside_others
@pytest.mark.root
@pytest.mark.needs("iperf3")
def test_bench_hop_has_every_key_and_its_command_writes_json_and_plot(tmp_path: Path) -> None:
    """`packetcloud bench hop` as people call it: a table; goodput, both congestion controls and the
    ratio, and the link mode that was in force."""
    options = ["--seconds", "1", "--repeats", "1", "--mode", "wire", "--json", "out/hop.json"]
    command = packetcloud_command("bench", "hop", *options, "--plot", "out/hop.png")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CUBIC" in done.stdout
    assert (tmp_path / "out/hop.png").exists()
    document = json.loads((tmp_path / "out/hop.json").read_text())
    wire = check_head(document, "hop", tmp_path)["modes"]["wire"]
    for key in (
        "goodput_gbps",
        "sealed_gbps",
        "sealed_over_open",
        "cubic_gbps",
        "bbr_gbps",
        "ratio",
    ):
        assert wire[key] is None or wire[key] > 0
    assert wire["goodput_gbps"] > 0
    assert len(wire["links"]) == 2
    assert all(end["features"] == LinkMode.WIRE.features for end in wire["links"])
    assert {"sender", "receiver"} <= set(wire["cpu_s_per_gb"]["ours"])


@beside_others
@pytest.mark.root
@pytest.mark.needs("iperf3", "socat", "haproxy")
def test_bench_path_has_every_key(tmp_path: Path) -> None:
    """Goodput, the ratios to every peer, CPU of every process, the router's memory."""
    document = bench_path([LinkMode.WIRE], BRIEF, 0.3, _quiet)
    found = check_head(document, "path", tmp_path)
    wire = found["modes"]["wire"]
    for key in (
        "goodput_gbps",
        "sealed_gbps",
        "sealed_over_open",
        "ratio_ip_forwarding",
        "ratio_socat",
        "ratio_haproxy",
    ):
        assert wire[key] > 0
    assert {"sender", "router", "receiver"} <= set(wire["cpu_s_per_gb"]["ours"])
    assert {"sender", "relay", "receiver"} <= set(wire["cpu_s_per_gb"]["socat"])
    assert found["memory"]["payload_bytes"] >= 0.3e9
    assert found["memory"]["rss_max_bytes"] > 0


@beside_others
@pytest.mark.root
@pytest.mark.needs("nginx")
def test_bench_service_has_every_key(tmp_path: Path) -> None:
    """Delays, sustained goodput, the steps to the knee, and both peers."""
    document = bench_service([LinkMode.WIRE], BRIEF, _quiet, sizes=(1 << 20,), shares=(0.3,))
    found = check_head(document, "service", tmp_path)
    for key in PROMISED:
        assert found[key] > 0
    size = found["sizes"][str(1 << 20)]
    for key in ("delay_penalty_p50_ms", "delay_penalty_p99_ms", "processing_p50_ms"):
        assert size[key] > 0
    assert "delivery_p50_ms" in size
    assert size["at_rest"]["delay_penalty_p50_ms"] > 0
    (step,) = size["steps"]
    assert {"offered_gbps", "goodput_gbps", "delay_p50_ms", "delay_penalty_p50_ms"} <= set(step)


@beside_others
@pytest.mark.root
def test_bench_chunks_has_every_key(tmp_path: Path) -> None:
    """Chunks per second, CPU per chunk by process and by stage of the router."""
    timing = replace(BRIEF, seconds=3)
    document = bench_chunks([LinkMode.WIRE], timing, _quiet, payload_sizes=(1024,))
    figures = check_head(document, "chunks", tmp_path)["sizes"]["1024"]
    assert figures["chunks_per_s"] > 0
    assert {"sender", "router", "receiver"} <= set(figures["cpu_us_per_chunk"])
    # Samples: on a busy machine what is short may be in none of them.
    stages = set(figures["router_stages_us"])
    assert "hop" in stages and stages & {"receive call", "send call"}
    assert figures["limit"]


@pytest.mark.alone
@pytest.mark.root
@pytest.mark.needs("iperf3")
def test_bench_loss_has_every_key(tmp_path: Path) -> None:
    """Goodput and share of every contender, on every link, from runs that the emulator vouches
    for."""
    outage = Outage("short", LINK, down_s=0.5)
    change = Change("slower", LINK, replace(LINK, rate_bps=20e6), observe_s=3.0)
    plan = LossPlan((1.0,), CONTENDERS, PARTS, 1, [outage], [change])
    found = check_head(bench_loss(plan, BRIEF, _quiet), "loss", tmp_path)
    for cell in (found["cells"]["1"], found["interop"], found["through_router"]["1"]):
        assert 0 < cell["ours_share"] < 2  # a second of bursts is not exact
        assert {"cubic_share", "bbr_share", "times_cubic", "times_bbr"} <= set(cell)
        for name in ("ours", "cubic", "bbr"):
            (details,) = cell["runs"][name]["details"]
            assert details["emulator"]["is_valid"]
    lost = found["cells"]["1"]["runs"]["ours"]["details"][0]["emulator"]["links"]["a"]["to_right"]
    assert lost["dropped"]["lost"] > 0
    assert found["times_cubic_1_percent"] > 0
    assert found["interop_share"] == found["interop"]["ours_share"]
    assert found["share_30_percent"] is None
    for kind in ("loss", "corruption", "both"):
        assert found["handshakes"]["kinds"][kind]["tried"] == 1
    assert found["handshakes_of_50"] is None
    short = found["outages"]["outages"]["short"]
    assert short["is_delivered"]
    assert short["dropped_packets"] > 0
    assert found["changes"]["slower"]["before_mbps"] > found["changes"]["slower"]["after_mbps"] > 0
    assert found["worst_seconds_after_healing"] == short["seconds_after_healing"] > 0


@pytest.mark.alone
@pytest.mark.root
@pytest.mark.needs("iperf3")
def test_bench_fairness_has_every_key(tmp_path: Path) -> None:
    """Every flow's share, ours beside both kinds of TCP, and what is sent while all is lost."""
    plan = FairnessPlan(flows=(2,), buffers_bdp=(1,), dark_s=2.0)
    found = check_head(bench_fairness(plan, BRIEF_BESIDE, _quiet), "fairness", tmp_path)
    for kind in ("ours", "cubic", "bbr"):
        figures = found["own_kind"]["2"]["mixes"][kind]
        assert 0.5 <= figures["jain"] <= 1
        assert 0 < figures["link_share"] < 2  # a second of bursts is not exact
        (details,) = found["own_kind"]["2"]["runs"][kind]["details"]
        assert [len(flow) for flow in details["per_second_mbps"][kind]] == [1, 1]
    beside = found["beside"]["1bdp"]["mixes"]["beside cubic"]["fair_shares"]
    assert beside["ours"] + beside["cubic"] == pytest.approx(2.0)
    assert found["share_beside_cubic_1bdp"] == beside["ours"]
    assert found["jain_2"] == found["own_kind"]["2"]["mixes"]["ours"]["jain"]
    assert found["jain_16"] is None
    assert found["cubic_keeps_beside_background"] > 0
    assert found["dark"]["timeouts"] > 0


@beside_others
@pytest.mark.root
@pytest.mark.needs("nft", "ovs-vswitchd")
def test_bench_rules_has_every_key(tmp_path: Path) -> None:
    """Lookups of all contenders, patterns, a change under traffic, the path with and without."""
    plan = RulesPlan(sizes=(100, 20_000), patterns=(10,), installed=2000, quiet_s=0.5)
    found = check_head(bench_rules(plan, BRIEF, _quiet), "rules", tmp_path)
    assert found["lookups"]["missing"] == {}
    for cell in found["lookups"]["sizes"].values():
        assert cell["table_bytes_per_rule"] > 0
        for spread in ("even", "zipf"):
            for figure in ("table", "decision", "cached", "nftables", "openvswitch"):
                assert cell[spread][f"{figure}_per_s"] > 0
    assert found["ratio_1m"] is None and found["install_1m_s"] is None
    ten = found["patterns"]["counts"]["10"]
    for kind in ("random", "text", "near_misses"):
        assert ten[f"{kind}_gbps"]["median"] > 0
    hurtful = found["patterns"]["hurtful"]
    assert 0 < hurtful["refused"] < hurtful["expressions"]
    assert all("scan_ms" in case for case in hurtful["cases"] if case["refused"] is None)
    for phase in ("quiet", "busy", "install", "withdraw"):
        figures = found["install"]["phases"][phase]
        assert figures["chunks"] > 0 and figures["delay_p50_ms"] > 0
    assert found["max_stall_ms"] >= 0
    assert found["bytes_per_rule"] == found["install"]["memory"]["router_bytes_per_rule"]
    for name in ("without", "header_rules", "header_rules_and_patterns"):
        assert found["path"][f"{name}_gbps"] > 0
    assert found["path_ratio_with_rules"] == found["path"]["ratio_with_rules"]


@beside_others
@pytest.mark.root
@pytest.mark.needs("curl", "nginx", "microsocks", "tc")
def test_bench_translator_has_every_key(tmp_path: Path) -> None:
    """Each way of the download, connections at once, and every file compared."""
    plan = replace(QUICK, download_bytes=1 << 20, files_count=30, connections_count=8)
    document = check_head(bench_translator(plan, BRIEF, _quiet), "translator", tmp_path)
    assert document["failures"] == [] and document["files_wrong"] == 0
    assert document["files"] == 30 and document["connections_whole"] == 8
    assert document["translator_share_of_direct"] > 0 and document["connections"] > 0
    (found,) = document["rates"].values()
    assert set(found["mbps"]) == {"direct", "ours", "microsocks"}
    assert {"router", "translator", "proxy", "nginx"} <= set(found["cpu_s"]["ours"])


@beside_others
@pytest.mark.needs("iperf3")
def test_without_root_loopback_is_measured_and_said(tmp_path: Path) -> None:
    """No namespaces: the report says so, and names its mode loopback."""
    found = check_head(bench_hop([None], BRIEF, _quiet), "hop", tmp_path)
    assert found["topology"] == "loopback"
    assert found["notes"]
    assert found["modes"]["loopback"]["goodput_gbps"] > 0


@beside_others
@pytest.mark.root
def test_bench_attack_has_every_key_and_its_controls_fail(tmp_path: Path) -> None:
    """Each attack fails, and succeeds as soon as the defence is gone that it is about."""
    parts = ("guesses", "flood", "amplification", "caps")
    plan = AttackPlan(parts, guesses=20_000, flood_per_s=20_000)
    found = check_head(bench_attack(plan, BRIEF, _quiet), "attack", tmp_path)
    assert found["failures"] == []
    assert found["state_changes"] == 0 and found["caps_passed"] == 0
    assert 0.0 < found["max_amplification"] <= 1.0
    assert found["handshakes_of_50"] is None
    for part in parts:
        assert found[part]["control"]["has_failed"], part
    for part in ("guesses", "flood", "caps"):
        assert found[part]["goodput_before_gbps"] > 0.0
        assert found[part]["goodput_kept"] is not None
    assert found["guesses"]["unshed"]["arrived"] > 1000
    assert "flood_shed" not in found["guesses"]["unshed"]["dropped"]
    assert found["flood"]["sessions_lost"] == 0
    unfinished = found["caps"]["in_use"]["unfinished transfers of one neighbour"]
    assert unfinished["largest"] == unfinished["limit"]


@pytest.mark.alone
@pytest.mark.root
@pytest.mark.needs("iperf3")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_nothing_behind(number: signal.Signals) -> None:
    """Processes and namespaces go at Ctrl-C; the exit code says that it was interrupted."""
    command = packetcloud_command("bench", "hop", "--seconds", "60", "--mode", "wire")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        children = _wait_children(process.pid)
        process.send_signal(number)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    _assert_all_ended(children)
    assert _namespaces_of(process.pid) == []


@pytest.mark.alone
@pytest.mark.root
@pytest.mark.needs("iperf3")
def test_what_a_killed_bench_leaves_is_gone_with_the_next() -> None:
    """Its children end at once, its namespaces with the next experiment."""
    command = packetcloud_command("bench", "hop", "--seconds", "60", "--mode", "wire")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = _wait_children(process.pid)
    process.kill()
    process.wait()
    _assert_all_ended(children)
    assert len(_namespaces_of(process.pid)) == 2
    with NetworkLab():
        assert _namespaces_of(process.pid) == []


def _namespaces_of(pid: int) -> list[str]:
    return [name for name in netns.listnetns() if name.startswith(f"pctb-{pid}-")]


def _is_running(pid: str) -> bool:
    """Whether the process has not ended; one that nobody has waited for yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _assert_all_ended(pids: list[str]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(_is_running(pid) for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError(f"still there: {pids}")


def _wait_children(pid: int) -> list[str]:
    """Wait until the bench has started both ends of a run."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(600):
        children = file.read_text().split()
        if len(children) >= 2:
            return children
        time.sleep(0.05)
    raise AssertionError("the bench started nothing")
