"""Scenarios: which topology, links, load and faults belong together, all drawn from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from packetcloud.testbed.simulation.application import Tempo
from packetcloud.testbed.simulation.draw import Draw, Flow
from packetcloud.testbed.simulation.journal import Entry
from packetcloud.testbed.simulation.network import LinkOptions
from packetcloud.testbed.simulation.plan import (
    AWAY_AFTER_S,
    LOAD_BEGINS_S,
    LONGEST_AIM_S,
    LONGEST_LIFETIME_S,
    Fault,
    Plan,
)
from packetcloud.testbed.simulation.services import PASSING, TURNING

LINE = ("A-R1", "R1-R2", "R2-B")
STAR = ("A-R1", "B-R1")
THREE = ("A-R1", "B-R1", "C-R1")
_BOTH_WAYS: list[Flow] = [("A", "B", ()), ("B", "A", ())]
AWAY_S = (AWAY_AFTER_S + 2.0, AWAY_AFTER_S + 7.0)
"""So long is a link cut for its neighbours to be away."""
SHORT_PAUSE_S = 0.1
"""In a pause up to this long it may be that nothing happens."""


def draw_plan(seed: int, scenario: str | None = None) -> Plan:
    """Return the plan of a seed; `scenario` None: the seed chooses."""
    names = list(SCENARIOS)
    name = scenario if scenario is not None else names[seed % len(names)]
    return SCENARIOS[name](Draw(seed, name))


def _line(draw: Draw, faults: tuple[Fault, ...] = (), **traits: bool) -> Plan:
    count = draw.rng.randint(20, 50)
    return draw.plan(
        "line",
        draw.operations(_BOTH_WAYS, count, faults=faults),
        links=draw.links(LINE, **traits),
        faults=faults,
    )


def _loss(draw: Draw) -> Plan:
    return _line(draw, lossy=True)


def _bursts(draw: Draw) -> Plan:
    return _line(draw, bursty=True)


def _crooked(draw: Draw) -> Plan:
    return _line(draw, crooked=True, lossy=draw.rng.random() < 0.5)


def _partition(draw: Draw) -> Plan:
    faults = []
    at_s = draw.moment()
    for _ in range(draw.rng.choice([1, 1, 1, 2, 3])):
        link = draw.rng.choice(LINE)
        for_s = draw.rng.choice([0.2, 1.0, 2.0, 5.0, 17.0])
        if draw.rng.random() < 0.4:
            one, other = link.split("-")
            way = f"{one}>{other}" if draw.rng.random() < 0.5 else f"{other}>{one}"
            faults.append(Fault("cut_one_way", way, at_s, for_s))
        else:
            faults.append(Fault("cut", link, at_s, for_s))
        at_s += for_s + draw.rng.uniform(0.5, 2.5)
    return _line(draw, tuple(faults), lossy=draw.rng.random() < 0.3)


def _flapping(draw: Draw) -> Plan:
    rng = draw.rng
    link, one_way = rng.choice(LINE), rng.random() < 0.3
    down_s, up_s = rng.choice([(0.2, 0.2), (1.0, 0.5), (5.0, 2.0)])
    kind, target = ("cut_one_way", link.replace("-", ">")) if one_way else ("cut", link)
    rounds = range(rng.randint(2, 4))
    at_s = draw.moment()
    faults = [Fault(kind, target, at_s + number * (down_s + up_s), down_s) for number in rounds]
    return _line(draw, tuple(faults))


def _narrow_path(draw: Draw) -> Plan:
    """What is larger than a path now takes vanishes without a word; who declares a link private
    answers for its MTU, so the sessions are sealed."""
    rng = draw.rng
    draw.is_private = False
    fault = Fault("narrow", rng.choice(LINE), draw.moment(), amount=rng.choice([1280, 1300, 1400]))
    plan = _line(draw, (fault,))
    # Something large after it, so that it is felt.
    large = [
        replace(
            o, size=rng.randint(10_000, 40_000), at_s=fault.at_s + 0.1 * (number + 1), op=o.op + 500
        )
        for number, o in enumerate(plan.operations[:6])
    ]
    return replace(plan, operations=(*plan.operations, *large))


def _roaming(draw: Draw) -> Plan:
    rng = draw.rng
    faults = [
        Fault("move", rng.choice(["A", "B"]), draw.moment()) for _ in range(rng.randint(1, 3))
    ]
    return _line(draw, tuple(faults), lossy=rng.random() < 0.4)


def _power_cut(draw: Draw) -> Plan:
    rng = draw.rng
    target = rng.choice(["A", "R1", "R2"])
    after = rng.choice([None, Entry.TOOK, Entry.PASSED])
    fault = Fault("power_cut", target, draw.moment(), rng.uniform(0.5, 5.0), after=after)
    return _line(draw, (fault,), lossy=rng.random() < 0.4)


def _durable(draw: Draw) -> Plan:
    """What a router took survives its end, whatever the end."""
    rng = draw.rng
    kind = rng.choice(["kill", "power_cut", "power_cut"])
    after = rng.choice([None, Entry.TOOK, Entry.TOOK, Entry.PASSED])
    target, for_s = rng.choice(["R1", "R2"]), rng.uniform(0.1, 4.0)
    at_s = draw.moment()
    faults = [Fault(kind, target, at_s, for_s, after=after)]
    if rng.random() < 0.3:
        # What is dated on disk, and numbered by the date, meets another date.
        by_s = rng.choice([-86_400.0, -2.0])
        faults.append(Fault("step_clock", target, at_s - 0.3, amount=by_s))
    plan = _line(draw, tuple(faults), lossy=rng.random() < 0.3)
    operations = tuple(
        replace(o, wants_report=o.op % 4 == 0, lifetime_s=max(o.lifetime_s, 30.0))
        for o in plan.operations
    )
    return replace(plan, operations=operations, spool="durable")


def _spill(draw: Draw) -> Plan:
    """A router's next hop is away, and its memory has little room for what waits."""
    rng = draw.rng
    faults = [Fault("cut", rng.choice(LINE[1:]), draw.moment(), rng.uniform(*AWAY_S))]
    if rng.random() < 0.5:
        at_s = faults[0].at_s + rng.choice([1.5, AWAY_AFTER_S + 0.5])
        faults.append(Fault("kill", "R1", at_s, 0.5))
    plan = replace(_line(draw, tuple(faults)), spool="spill", faults_overlap=True)
    return _spilling(draw, plan, rng.choice([60_000, 2 << 20]))


def _durable_services(draw: Draw) -> Plan:
    """Chunks that a service changed wait on disk, where they stand as they arrived."""
    rng = draw.rng
    at_s, for_s = draw.moment(), rng.uniform(*AWAY_S)
    faults = [Fault("cut", link, at_s, for_s) for link in ("B-R1", "C-R1")]
    if rng.random() < 0.4:
        kind = rng.choice(["kill", "power_cut"])
        faults.append(Fault(kind, "R1", at_s + rng.uniform(1.0, AWAY_AFTER_S + 2.0), 0.5))
    services = {"V1": PASSING, "V2": TURNING, "V3": "upper"}
    flows = [
        ("A", "B", (PASSING,)),
        ("A", "B", (TURNING,)),
        ("A", "B", ("upper", PASSING)),
        ("A", "C", (PASSING, "upper")),
    ]
    plan = draw.plan(
        "three",
        draw.operations(flows, rng.randint(30, 50), faults=tuple(faults)),
        links=draw.links([*THREE, *(f"{name}-R1" for name in services)]),
        services=services,
        faults=tuple(faults),
        faults_overlap=True,
        spool="durable",
    )
    return _spilling(draw, plan, 2 << 20)


def _full_disk(draw: Draw) -> Plan:
    """The disk of a router with durable custody takes nothing for a while; then the power goes."""
    rng = draw.rng
    target, at_s, for_s = rng.choice(["R1", "R2"]), draw.moment(), rng.uniform(0.5, 4.0)
    faults = [Fault(rng.choice(["disk_full", "disk_full", "disk_error"]), target, at_s, for_s)]
    if rng.random() < 0.7:
        cut_at_s = at_s + for_s + rng.choice([0.001, 0.2, 2.0])
        faults.append(Fault("power_cut", target, cut_at_s, rng.uniform(0.1, 2.0)))
        # What is not sent on before the power goes is on disk or nowhere.
        link = "R1-R2" if target == "R1" else "R2-B"
        faults.append(Fault("cut", link, at_s - 0.2, cut_at_s - at_s + 0.3))
    plan = replace(_line(draw, tuple(faults)), faults_overlap=True)
    operations = tuple(
        replace(
            o,
            at_s=o.at_s if number % 2 else at_s + draw.rng.uniform(-0.1, for_s),
            wants_report=o.op % 4 == 0,
            lifetime_s=max(o.lifetime_s, 30.0),
        )
        for number, o in enumerate(plan.operations)
    )
    return replace(plan, operations=operations, spool="durable")


def _spilling(draw: Draw, plan: Plan, spool_bytes: int) -> Plan:
    """Everything is sent while the next hop is away, large enough and with the time to wait."""
    fault = plan.faults[0]
    operations = tuple(
        replace(
            o,
            at_s=o.at_s if number % 3 == 0 else fault.at_s + draw.rng.uniform(0.1, 4.0),
            size=draw.rng.randint(2_000, 12_000),
            lifetime_s=LONGEST_LIFETIME_S,
            wants_report=o.op % 4 == 0,
        )
        for number, o in enumerate(plan.operations)
    )
    return replace(
        plan,
        operations=operations,
        spool_bytes=spool_bytes,
        waiting_bytes=4_000,
        must_spill=True,
        detached_hold_s=30.0,
    )


def _degrade(draw: Draw) -> Plan:
    fault = Fault("degrade", draw.rng.choice(LINE), draw.moment(), draw.rng.uniform(1.0, 6.0))
    return _line(draw, (fault,))


def _kill_router(draw: Draw) -> Plan:
    at_s = draw.moment()
    after = draw.rng.choice([None, Entry.TOOK, Entry.PASSED])
    target, for_s = draw.rng.choice(["R1", "R2"]), draw.rng.uniform(0.05, 4.0)
    faults = [Fault("kill", target, at_s, for_s, after=after)]
    if draw.rng.random() < 0.3:
        other = "R1" if faults[0].target == "R2" else "R2"
        near_s = at_s + draw.rng.choice([0.01, 0.05, 1.0])
        faults.append(Fault("kill", other, near_s, draw.rng.uniform(0.05, 4.0)))
    return _line(draw, tuple(faults), lossy=draw.rng.random() < 0.5)


def _kill_host(draw: Draw) -> Plan:
    rng = draw.rng
    at_s = draw.moment()
    target = rng.choice(["A", "B"])
    after = rng.choice([None, Entry.TOOK, Entry.TAKEN, Entry.TAKEN])
    faults = [Fault("kill", target, at_s, rng.uniform(0.02, 3.0), after=after)]
    if rng.random() < 0.3:
        by_s = rng.choice([-86_400.0, 3_600.0, 86_400.0])
        faults.append(Fault("step_clock", target, at_s + LONGEST_AIM_S, amount=by_s))
    plan = _line(draw, tuple(faults), lossy=rng.random() < 0.5)
    if rng.random() < 0.3:
        return replace(plan, tempos={target: Tempo(hold_s=rng.choice([0.1, 0.5]), defers=True)})
    return plan


def _pause(draw: Draw) -> Plan:
    target = draw.rng.choice(["A", "R1", "R2", "B"])
    fault = Fault("pause", target, draw.moment(), draw.rng.choice([0.1, 1.0, 5.0, 20.0]))
    plan = _line(draw, (fault,), lossy=draw.rng.random() < 0.3)
    if fault.for_s > SHORT_PAUSE_S:
        return plan
    # Enough on the way, in both directions, that so short a pause is felt.
    large = [
        replace(
            o,
            size=draw.rng.randint(10_000, 40_000),
            at_s=max(0.0, fault.at_s + 0.05 * (number - 4)),
            op=o.op + 500,
        )
        for number, o in enumerate(plan.operations[:6])
    ]
    return replace(plan, operations=(*plan.operations, *large))


def _clocks(draw: Draw) -> Plan:
    faults = [
        Fault(
            "step_clock",
            draw.rng.choice(["A", "R1", "R2", "B"]),
            draw.moment(),
            amount=draw.rng.choice([-86_400.0, -30.0, -2.0, 2.0, 30.0, 3_600.0, 3.15e8]),
        )
        for _ in range(draw.rng.randint(1, 4))
    ]
    return _line(draw, tuple(faults), lossy=draw.rng.random() < 0.5)


def _slow_destination(draw: Draw) -> Plan:
    rng = draw.rng
    tempo = Tempo(
        hold_s=rng.choice([0.05, 0.3, 1.0]),
        defers=rng.random() < 0.5,
        refuses_every=rng.choice([0, 0, 5]),
    )
    flows: list[Flow] = [("A", "B", ()), ("A", "C", ()), ("C", "A", ())]
    return draw.plan(
        "three",
        draw.operations(flows, rng.randint(30, 60)),
        links=draw.links(THREE, lossy=rng.random() < 0.3),
        tempos={"B": tempo},
        store_bytes=rng.choice([30_000, 300_000, 4 << 20]),
        max_unanswered_count=rng.choice([4, 64]),
    )


def _stopped_destination(draw: Draw) -> Plan:
    """B takes chunks and gives no buffer back for seconds, with far more sent than it may hold."""
    rng = draw.rng
    to_b = draw.operations([("A", "B", ())], 30)
    others = draw.operations([("A", "C", ()), ("C", "A", ())], 20)
    operations = [
        *(replace(operation, size=rng.randint(20_000, 60_000)) for operation in to_b),
        *(replace(o, op=o.op + 500, size=min(o.size, 5000)) for o in others),
    ]
    fast = LinkOptions(delay_s=rng.choice([0.0001, 0.002, 0.01]))
    return draw.plan(
        "three",
        tuple(operations),
        links=dict.fromkeys(THREE, (fast, fast)),
        tempos={"B": Tempo(hold_s=rng.choice([4.0, 10.0]), defers=rng.random() < 0.5)},
        isolated_flows=(("A", "C"), ("C", "A")),
    )


def _services(draw: Draw, faults: tuple[Fault, ...] = ()) -> Plan:
    rng = draw.rng
    second = rng.random() < 0.5
    services = {"V1": "upper", "V2": "upper"} if rng.random() < 0.5 else {"V1": "upper"}
    if second:
        services["V3"] = "lower"
    sequence = ("upper", "lower") if second else ("upper",)
    links = draw.links([*STAR, *(f"{name}-R1" for name in services)], lossy=rng.random() < 0.3)
    flows = [("A", "B", sequence), ("B", "A", ()), ("A", "B", sequence[:1])]
    return draw.plan(
        "star",
        draw.operations(flows, rng.randint(20, 40), faults=faults),
        links=links,
        services=services,
        faults=faults,
    )


def _kill_service(draw: Draw) -> Plan:
    at_s = draw.moment()
    faults = [Fault("kill", "V1", at_s, draw.rng.uniform(0.05, 3.0))]
    if draw.rng.random() < 0.4:
        faults.append(Fault("kill", "V1", at_s + 3.5, draw.rng.uniform(0.05, 1.0)))
    return _services(draw, tuple(faults))


def _everything(draw: Draw) -> Plan:
    rng = draw.rng
    faults: list[Fault] = []
    at_s = LOAD_BEGINS_S + 0.3
    for _ in range(rng.randint(2, 4)):
        at_s += rng.uniform(0.2, 1.2)
        kind = rng.choice(["cut", "kill", "kill", "pause", "step_clock", "degrade"])
        if kind in ("cut", "degrade"):
            faults.append(Fault(kind, rng.choice(LINE), at_s, rng.uniform(0.3, 4.0)))
        elif kind == "step_clock":
            target = rng.choice(["A", "R1", "R2", "B"])
            faults.append(Fault(kind, target, at_s, amount=rng.choice([-3600.0, 5.0, 3600.0])))
        else:
            target = rng.choice(["A", "R1", "R2", "B"])
            for_s = rng.uniform(0.05, 3.0)
            if all(fault.target != target or fault.at_s + fault.for_s < at_s for fault in faults):
                faults.append(Fault(kind, target, at_s, for_s))
    return replace(_line(draw, tuple(faults), lossy=True, crooked=True), faults_overlap=True)


SCENARIOS: dict[str, Callable[[Draw], Plan]] = {
    "loss": _loss,
    "bursts": _bursts,
    "crooked": _crooked,
    "partition": _partition,
    "flapping": _flapping,
    "roaming": _roaming,
    "narrow_path": _narrow_path,
    "degrade": _degrade,
    "kill_router": _kill_router,
    "power_cut": _power_cut,
    "durable": _durable,
    "spill": _spill,
    "durable_services": _durable_services,
    "full_disk": _full_disk,
    "kill_host": _kill_host,
    "pause": _pause,
    "clocks": _clocks,
    "slow_destination": _slow_destination,
    "stopped_destination": _stopped_destination,
    "services": _services,
    "kill_service": _kill_service,
    "everything": _everything,
}
"""By name; a seed's number modulo their count chooses among them."""
