"""Rules that change while chunks run: each chunk is decided by one version, none is lost."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import SID
from packetcloud.router.rules.rule import Action, Match, Mode, Pattern, Rule
from packetcloud.testbed.simulation import run as simulation
from packetcloud.testbed.simulation.payload import MAGIC
from packetcloud.testbed.simulation.program import identity_of
from packetcloud.testbed.simulation.scenario import draw_plan
from packetcloud.testbed.simulation.services import PASSING
from packetcloud.testbed.simulation.world import World
from tests.functional.router_network import Network, run
from tests.unit.router.plain_table import PlainTable, installed

SWITCH_S = 0.05
CHUNKS_COUNT = 400


def test_every_chunk_is_decided_wholly_by_one_version(tmp_path: Path) -> None:
    """While versions change every few chunks, each chunk bears the marks of exactly one of them."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        keys = {mark: Identity.generate() for mark in (b"<s>", b"<t>", b"<u>")}
        for mark, key in keys.items():
            await net.vi(router, key, mark)
        sids = {mark: SID(key.sid.value) for mark, key in keys.items()}
        by_sid = sorted(sids, key=lambda mark: sids[mark].value)
        wanted: list[set[bytes]] = [{b"<s>", b"<t>"}, {b"<u>"}, set(), {*sids}]
        marks = [b"".join(mark for mark in by_sid if mark in some) for some in wanted]
        tables = [
            PlainTable(installed(Rule(str(n), sids[mark]) for n, mark in enumerate(some)), version)
            for version, some in enumerate(wanted, 1)
        ]
        sent = {}
        rng = random.Random(1)
        for number in range(CHUNKS_COUNT):
            payload = rng.randbytes(rng.choice([10, 900, 5000, 60_000]))
            sent[a.send(b.guid, payload)] = payload
            if number % 8 == 0:
                # Of the eight sent since the last switch two at least have come: it had its chunks.
                await net.until(partial(b.has, number - 6))
                router.core.install_rules(tables[number // 8 % len(tables)])
        await net.until(lambda: len(b.received) >= len(sent))
        seen: Counter[bytes] = Counter()
        for header, payload in b.received:
            whole = sent.pop(header.chunk_id.value)
            assert payload.startswith(whole)
            seen[payload[len(whole) :]] += 1
        assert not sent
        assert set(seen) == set(marks), "every version had its chunks, and nothing between two"
        await net.close()

    run(test)


def test_a_late_rule_finds_its_pattern_wherever_a_payload_was_split(tmp_path: Path) -> None:
    """A large chunk lies scattered as it came; what is found in it does not depend on that."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        service, needle = Identity.generate(), b"find the needle"
        await net.vi(router, service, b"<found>")
        match = Match(patterns=(Pattern(needle),), size_min=100)
        router.core.install_rules(PlainTable(installed([Rule("late", service.sid, match)])))
        rng, expected = random.Random(2), {}
        for size in (90, 2_000, 70_000, 300_000):
            for at in [0, size - len(needle), *rng.sample(range(size - len(needle)), 12)]:
                hay = os.urandom(size)
                found = hay[:at] + needle + hay[at + len(needle) :]
                is_late = size >= 100
                expected[a.send(b.guid, found)] = found + b"<found>" * is_late
                expected[a.send(b.guid, hay)] = hay
            await net.until(lambda: len(b.received) == len(expected))
        assert {h.chunk_id.value: payload for h, payload in b.received} == expected
        counts = router.core.rule_counts
        assert counts.visits_count == 3 * 14
        assert counts.scanned_count == len(expected)
        await net.close()

    run(test)


class _RulesChange(World):
    """A world whose routers get another version of the rules every moment."""

    installed_count = 0
    visits_count = 0

    def start(self) -> None:
        super().start()
        at_s = 0.0
        while at_s < self.plan.healed_at_s:
            at_s += SWITCH_S
            self.time.at(at_s, self._switch)

    def _switch(self) -> None:
        version = type(self).installed_count = type(self).installed_count + 1
        for router in self.routers:
            if router.core is not None:
                type(self).visits_count += router.core.rule_counts.visits_count
                router.core.rule_counts.visits_count = 0
                router.core.install_rules(_VERSIONS[version % len(_VERSIONS)])


_PASSING, _UPPER = identity_of(PASSING).sid, identity_of("upper").sid
_IS_OURS = Match(patterns=(Pattern(MAGIC, end=8),), size_min=16)
_VERSIONS = [
    PlainTable(installed([Rule("all", _PASSING)])),
    PlainTable(installed([Rule("ours", _PASSING, _IS_OURS), Rule("u", _UPPER, mode=Mode.SHADOW)])),
    PlainTable(installed([Rule("none", _UPPER, action=Action.PASS)])),
    None,
]


@pytest.fixture
def quiet() -> Iterator[None]:
    """What broken networks make the daemons say is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "scenario", ["services", "kill_service", "durable_services", "kill_router"]
)
def test_no_promise_is_broken_while_rules_change(scenario: str) -> None:
    """Loss, kills and disks, and every 50 ms other rules: whatever was promised holds, and chunks
    did visit what the rules wanted."""
    _RulesChange.installed_count = _RulesChange.visits_count = 0
    failed = []
    for seed in range(8):
        plan = draw_plan(seed, scenario)
        some = next(link for name, link in plan.links.items())
        # Each router has its own: what rules want and nobody runs is refused, and that is right.
        routers = {"R1": "V9", "R2": "V8"} if plan.topology == "line" else {"R1": "V9"}
        services = plan.services | dict.fromkeys(routers.values(), PASSING)
        links = plan.links | {f"{name}-{router}": some for router, name in routers.items()}
        plan = replace(plan, services=services, links=links)
        result = simulation.run_plan(plan, build=_RulesChange)
        if not result.ok:
            failed.append((seed, result.violations, result.vacuous))
    assert not failed
    assert _RulesChange.installed_count > 100
    assert _RulesChange.visits_count > 50
