"""A VI that goes wrong in every way does not harm its neighbour, on real LXD.

Each fault is one that a service can bring about by itself (`faulty/rogue_service.py`). A neighbour
on the same node keeps at least 90 % of its goodput, and its p99 at most doubles; no chunk of it is
lost or doubled, and the router never stops. The last tests take each wall away: without it the same
fault gets further, or does harm. Source: reference T-22, T-23.

After how many turns it is harm is an option: `pytest --fault-turns 10`.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from packetcloud.cloudlet.lxd.project import PROJECT
from packetcloud.host.results import SendOutcome
from tests.system.fault_cloudlet import fault_cloudlet
from tests.system.fault_scene import RATE, WINDOW_S, Client, Comparison, Scene
from tests.system.lxd_places import needs_lxd
from tests.system.vi_image import BUILD_TIMEOUT_S

pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
    pytest.mark.alone,
]
PROCESSES = 48
MEMORY_MIB = 192
DISK_MIB = 400
VCPU = 0.5
STOP_VIOLATIONS = 20


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    services = {
        "tally": {},
        "rogue": {
            "max_attempts": 1,  # a chunk that brings it down does so once
            "grace_s": 0.3,
            "allowed_destinations": [],
            "conduct": {"restrict_violations": 5, "stop_violations": STOP_VIOLATIONS},
        },
        "unwatched": {
            "replicas_min": 0,
            "vi_type": "wide",
            "conduct": {"restrict_violations": 1_000_000, "stop_violations": 1_000_000},
        },
    }
    with contextlib.ExitStack() as stack:
        cloudlet = stack.enter_context(fault_cloudlet(tmp_path_factory.mktemp("vi"), services))
        cloudlet.until_running(2)
        neighbour = cloudlet.paced("tally", RATE)
        stack.callback(neighbour.kill)
        client = Client(cloudlet)
        stack.callback(client.close)
        made = Scene(cloudlet, neighbour, client, request.config.getoption("--fault-turns"))
        boot = _boot(made)
        yield made
        neighbour.stop()
        assert neighbour.broken_promises() == []
        counts = neighbour.counts()
        assert len(counts) == len(set(counts)), "one process served all the time"
        assert _boot(made) == boot, "the router stopped"


def _boot(scene: Scene) -> str:
    found: str = scene.cloudlet.router.get_json("/v1/cloudlet/table")["boot_id"]
    return found


def _unharmed(comparison: Comparison) -> None:
    print(comparison)
    assert comparison.harm() == [], str(comparison)


@pytest.mark.parametrize("words", ["crash", "memory 1000"])
def test_a_vi_that_comes_to_its_end(scene: Scene, words: str) -> None:
    """It crashes, or the kernel ends it, and nobody else, for want of memory; it starts again."""
    restarts = scene.restarts()

    def begin() -> None:
        nonlocal restarts
        restarts += 1
        scene.client.begin(scene.rogue, words)

    _unharmed(scene.compare(begin, lambda: scene.until_restarted(restarts)))
    scene.results_follow_the_policy()
    scene.renew_rogue()
    scene.until_answers()


def test_a_vi_that_forks_without_end(scene: Scene) -> None:
    """It gets as many processes as its type has, and no more."""
    counts: list[int] = []

    def begin() -> None:
        scene.client.begin(scene.rogue, f"fork {WINDOW_S}")
        end = time.monotonic() + WINDOW_S / 2
        while (count := scene.container()["processes"]) <= PROCESSES // 2:
            if time.monotonic() > end:
                break
        counts.append(count)

    _unharmed(scene.compare(begin, scene.until_answers))
    assert all(PROCESSES // 2 < count <= PROCESSES for count in counts), counts
    word, _, refusals = scene.said()
    assert word == "fork" and int(refusals) > 0
    scene.results_follow_the_policy()


def test_a_vi_that_fills_its_disk(scene: Scene) -> None:
    """It gets as much as its type has; its neighbour writes on."""
    words = f"disk {WINDOW_S} {DISK_MIB // 4}"
    _unharmed(scene.compare(lambda: scene.client.begin(scene.rogue, words), scene.until_answers))
    word, written_mib, failures = scene.said()
    assert word == "disk" and int(written_mib) < DISK_MIB
    assert failures in ("EDQUOT", "ENOSPC")
    scene.results_follow_the_policy()


def test_a_vi_that_loops(scene: Scene) -> None:
    """It gets its share of a processor and no more."""
    shares: list[float] = []

    def begin() -> None:
        scene.client.begin(scene.rogue, f"loop {WINDOW_S + 1}")
        shares.append(scene.cpu_share())

    _unharmed(scene.compare(begin, scene.until_answers))
    assert all(0.5 * VCPU < share < 1.2 * VCPU for share in shares), shares
    scene.results_follow_the_policy()


@pytest.mark.parametrize("word", ["hold", "drip"])
def test_a_vi_that_takes_chunks_and_answers_none(scene: Scene, word: str) -> None:
    """It says nothing, or begins a verdict that does not come to its end: both count as none."""

    def begin() -> None:
        for _ in range(60):
            scene.client.begin(scene.rogue, f"{word} {WINDOW_S}")

    _unharmed(scene.compare(begin, scene.until_answers))
    scene.results_follow_the_policy()
    assert scene.client.answer(scene.rogue, "hello") == "served hello"


@pytest.mark.parametrize("word", ["lie", "flood"])
def test_a_vi_that_lies(scene: Scene, word: str) -> None:
    """Its verdicts on tasks of others, on none, twice on one, and its chunks of others' names have
    no effect, and it is stopped for them; its own chunk gets one verdict. With `flood` they are the
    largest that there are."""
    stranger = scene.client.stranger.hex
    astray, surplus = scene.client.astray_count, scene.surplus_count()
    if word == "lie":
        assert scene.client.answer(scene.rogue, f"lie 0 {stranger}") == "lied"
        assert scene.client.received.count(b"lied") == 1
    words = f"{word} {WINDOW_S}" + (f" {stranger}" if word == "lie" else "")
    _unharmed(
        scene.compare(
            lambda: scene.client.begin(scene.rogue, words),
            scene.renew_stopped_rogue,
        )
    )
    assert scene.surplus_count() >= surplus + STOP_VIOLATIONS
    assert scene.client.astray_count == astray
    scene.results_follow_the_policy()
    scene.until_answers()


def test_a_vi_that_sends_chunks_astray(scene: Scene) -> None:
    """Nothing arrives where its service may not send; it is restricted, then stopped for good."""
    astray = scene.client.astray_count
    words = f"astray {scene.client.stranger.hex}"

    def state() -> dict[str, Any]:
        return scene.cloudlet.vi_of("rogue")

    results = [scene.client.ask(scene.rogue, words) for _ in range(6)]
    scene.cloudlet.until(lambda: state()["is_restricted"])
    assert state()["state"] == "running"
    results += [scene.client.ask(scene.rogue, words) for _ in range(20)]
    assert Counter(result.outcome for result in results) == {SendOutcome.REFUSED: 26}
    scene.renew_stopped_rogue()
    assert scene.client.astray_count == astray


def test_without_its_limits_the_same_service_gets_further(scene: Scene) -> None:
    """A VI of a larger type, with more time for a verdict, of which nothing is demanded."""
    assert scene.cloudlet.ask("vi", "launch", "unwatched")["state"] == "done"
    sid = scene.cloudlet.sid_of("unwatched")
    client = scene.client

    assert client.ask(sid, f"memory {MEMORY_MIB}").ok
    assert scene.said("unwatched") == ["memory", str(MEMORY_MIB)]
    for service, failures in (("rogue", 1), ("unwatched", 0)):
        scene.until_answers(service)
        client.ask(scene.cloudlet.sid_of(service), f"room {DISK_MIB}")  # a disk may be late
        scene.until_answers(service)
        assert len(scene.said(service)) == 2 + failures
    _until_it_gets(scene, "fork 2", lambda: scene.container("unwatched")["processes"] > PROCESSES)
    _until_it_gets(scene, "loop 4", lambda: scene.cpu_share("unwatched", 0.5) > 1.2 * VCPU)
    assert client.ask(sid, "hold 1.5").ok
    surplus, astray = scene.surplus_count("unwatched"), client.astray_count
    assert client.ask(sid, f"lie 1 {client.stranger.hex}").ok
    scene.cloudlet.until(lambda: scene.surplus_count("unwatched") > surplus + 10 * STOP_VIOLATIONS)
    client.ask(sid, f"astray {client.stranger.hex}")
    scene.cloudlet.until(lambda: client.astray_count > astray)
    vi = scene.cloudlet.vi_of("unwatched")
    assert (vi["state"], vi["is_restricted"], vi["restarts"]) == ("running", False, 0)


def _until_it_gets(scene: Scene, words: str, is_so: Callable[[], bool]) -> None:
    """Tell the VI that is not watched, again when it has come to an end: a machine that is busy
    elsewhere gives it less."""
    sid = scene.cloudlet.sid_of("unwatched")
    told = scene.client.begin(sid, words)

    def has_got() -> bool:
        nonlocal told
        if is_so():
            return True
        if told.done():
            assert told.result().ok
            told = scene.client.begin(sid, words)
        return False

    scene.cloudlet.until(has_got)
    assert told.result().ok


def test_without_a_wall_the_neighbour_is_harmed(scene: Scene) -> None:
    """Loops within the neighbour's own container are more than it bears: the measure shows harm
    where there is some."""
    (daemon,) = scene.cloudlet.daemons
    container = scene.cloudlet.vi_of("tally")["container"]
    processes = scene.container("tally")["processes"]

    def begin() -> None:
        end = time.monotonic() + WINDOW_S
        loop = f"import time\nwhile time.monotonic() < {end}: pass"
        loops = 16 * f"python3 -c '{loop}' >/dev/null 2>&1 &\n"
        daemon.run("lxc", "exec", container, "--project", PROJECT, "--", "sh", "-c", loops)

    def between() -> None:
        scene.cloudlet.until(lambda: scene.container("tally")["processes"] <= processes)

    comparison = scene.compare(begin, between)
    print(comparison)
    assert comparison.harm() != [], str(comparison)
