"""Microseconds of router core per chunk, with neighbours that do nothing.

    PYTHONPATH=build/import:. python -m tests.unit.router.core_benchmark

Counted is everything between the hop's two calls (a body came, a body is settled), and about
0.6 microseconds for the stand-ins of bodies and neighbours. CPU time, the best of five runs.
After a MiB of payload the caches are cold, as they are in a real router.
"""

from __future__ import annotations

import time

from packetcloud.chunk.hop.api import Body, Buffer, Refusal, Role, Settlement
from packetcloud.chunk.messages import BodyKind, VerdictCode, VerdictHeader
from packetcloud.chunk.names import GUID, NA
from packetcloud.router.core import RouterCore
from packetcloud.router.rules.answer import RuleTable
from packetcloud.router.rules.rule import Action, Match, Pattern, Rule
from tests.unit.router.fake_bodies import PlainBody
from tests.unit.router.plain_table import PlainTable, installed
from tests.unit.router.router_fakes import (
    OTHER_ROUTER,
    A,
    B,
    C,
    S,
    T,
    U,
    chunk,
    service,
    settings,
    sid,
)

BURST_COUNT = 64
"""Chunks between two looks at the clock, about one train of a hop."""
SERVICES = (S, T, U, sid("w"))


class _Neighbour:
    queued_bytes = 0
    address = ("", 0)
    instance = 0
    is_up = True

    def __init__(self, guid: GUID, role: Role) -> None:
        self.guid = guid
        self.role = role
        self.queue: list[tuple[object, bytes]] = []

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self.queue.append((token, prefix))

    def send_body(
        self,
        kind: BodyKind,
        body: Body,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        self.queue.append((token, prefix))

    def is_busy(self, flow: int) -> bool:
        return False

    def decide(self, body: Body, refusal: Refusal | None = None) -> None:
        raise AssertionError("custody is never pending here")

    def cancel(self, token: object) -> None:
        pass

    def close(self, reason: str = "") -> None:
        pass

    def take(self) -> list[tuple[object, bytes]]:
        queue, self.queue = self.queue, []
        return queue


def core_us_per_chunk(
    service_count: int = 0,
    code: VerdictCode = VerdictCode.FORWARD,
    *,
    to_router: bool = False,
    payload_bytes: int = 1024,
    count: int = 20_000,
    rules: RuleTable | None = None,
) -> float:
    """Return the CPU time of one chunk of a known flow, in microseconds.

    Args:
        rules: lead no chunk to a service.
    """
    asked = SERVICES[:service_count]
    core = RouterCore(settings(*map(service, asked), names={C: NA(2)}), 1.0, 1, wall_s=lambda: 1.0)
    core.install_rules(rules)
    source, host = _Neighbour(A, Role.HOST), _Neighbour(B, Role.HOST)
    router = _Neighbour(OTHER_ROUTER, Role.ROUTER)
    vis = [_Neighbour(GUID(name.value), Role.SERVICE) for name in asked]
    for neighbour in (source, host, router, *vis):
        core.neighbour_up(neighbour, 1.0)
    out = router if to_router else host
    data = chunk(A, C if to_router else B, bytes(payload_bytes), asked)
    payload = bytes(payload_bytes) if code is VerdictCode.UPDATE else b""
    verdict_tail = VerdictHeader(0, code, 1000).to_bytes()[8:] + payload
    now, spent = 1.0, 0.0
    for _ in range(count // BURST_COUNT):
        now += 0.001
        bodies = [PlainBody(bytearray(data)) for _ in range(BURST_COUNT)]
        begun = time.process_time()
        for body in bodies:
            assert core.body_received(source, BodyKind.CHUNK, body, now) is None
        now += 0.0001
        for vi in vis:
            tasks = vi.take()
            for token, _ in tasks:
                core.body_settled(vi, token, Settlement.ACCEPTED, 0, now)
            for _, prefix in tasks:
                verdict = PlainBody(bytearray(prefix[:8] + verdict_tail))
                core.body_received(vi, BodyKind.VERDICT, verdict, now)
        for token, _ in out.take():
            core.body_settled(out, token, Settlement.ACCEPTED, 0, now)
        if core.next_timeout <= now:
            core.handle_timeout(now)
        spent += time.process_time() - begun
    sums = core.book.conservation()
    assert sums["held"] == sums["balance"] == sums["refused"] == 0
    return spent / (count // BURST_COUNT * BURST_COUNT) * 1e6


def main() -> None:
    update = VerdictCode.UPDATE
    rows = {
        "1 KiB to a host": [core_us_per_chunk() for _ in range(5)],
        "1 KiB to a router": [core_us_per_chunk(to_router=True) for _ in range(5)],
        "1 MiB to a host": [core_us_per_chunk(payload_bytes=1 << 20, count=640) for _ in range(5)],
        "1 KiB, 1 service, forward": [core_us_per_chunk(1) for _ in range(5)],
        "1 KiB, 1 service, update": [core_us_per_chunk(1, update) for _ in range(5)],
        "1 KiB, 4 services, update": [core_us_per_chunk(4, update) for _ in range(5)],
    }
    passing = PlainTable(installed([Rule("r", S, action=Action.PASS)]))
    large = PlainTable(installed([Rule("r", S, Match(size_min=1 << 30))]))
    rows["1 KiB, a rule passes"] = [core_us_per_chunk(rules=passing) for _ in range(5)]
    rows["1 KiB, a rule about size"] = [core_us_per_chunk(rules=large) for _ in range(5)]
    for pattern_count in (1, 1000):
        patterns = [Pattern(b"pattern %04d" % number) for number in range(pattern_count)]
        finding = [
            Rule(str(number), S, Match(patterns=(one,))) for number, one in enumerate(patterns)
        ]
        table = PlainTable(installed(finding))
        label = f"1 KiB, {pattern_count} rules with patterns"
        rows[label] = [core_us_per_chunk(rules=table) for _ in range(5)]
    for label, figures in rows.items():
        print(f"{label:32} {min(figures):6.2f} us")


if __name__ == "__main__":
    main()
