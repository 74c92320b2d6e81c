"""A rogue VI beside a neighbour under a steady load, and the judgement of what it does to it.

The neighbour's load is far below what the machine can do. A fault is judged by a stretch of time
without and one with it; where that shows harm, more of both are taken, and all of them are judged
together: a machine that stumbled once has done no harm, a fault that harms does so each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID, SID
from packetcloud.chunk.reasons import Reason
from packetcloud.host.blocking import BlockingEndpoint
from packetcloud.host.results import SendOutcome, SendResult
from tests.system.fault_cloudlet import FaultCloudlet
from tests.system.paced_host import Paced, Window

RATE = 120.0
"""Chunks a second of the neighbour: about a tenth of what two cores can do."""
WINDOW_S = 2.0
RECEIVED_WITHIN_S = 30.0
GOODPUT_SHARE = 0.9
P99_RATIO = 2.0
P99_FLOOR_S = 0.05
"""A p99 below this is no harm, whatever it was without: two cores that begin a container beside
make somebody wait for a few tens of ms, and a neighbour that is starved waits for seconds."""


class Client:
    """Sends chunks to services; keeps what came of those that nobody waits for."""

    def __init__(self, cloudlet: FaultCloudlet) -> None:
        self.received: list[bytes] = []
        self.results: list[SendResult] = []
        self._source = BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
        self._sink = BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
        self._stranger = BlockingEndpoint.open(cloudlet.router_address, Identity.generate())
        self._astray: list[bytes] = []
        self._pool = ThreadPoolExecutor(128)
        self._readers = [
            threading.Thread(target=_read, args=[self._sink, self.received]),
            threading.Thread(target=_read, args=[self._stranger, self._astray]),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stranger(self) -> GUID:
        """Whom no service of these tests may send to, but for the one that is not watched."""
        return self._stranger.guid

    @property
    def astray_count(self) -> int:
        """Chunks that the stranger got."""
        return len(self._astray)

    def ask(self, sid: SID, text: str, lifetime_s: float = 30.0) -> SendResult:
        return self._source.send(self._sink.guid, text.encode(), sid=sid, lifetime_s=lifetime_s)

    def begin(self, sid: SID, text: str) -> Future[SendResult]:
        """Send without waiting."""
        future = self._pool.submit(self.ask, sid, text)
        future.add_done_callback(lambda ended: self.results.append(ended.result()))
        return future

    def answer(self, sid: SID, text: str) -> str:
        """Send a chunk and return what the service made of it."""
        before = len(self.received)
        result = self.ask(sid, text)
        assert result.ok, result.explain()
        end = time.monotonic() + RECEIVED_WITHIN_S
        while len(self.received) == before:
            assert time.monotonic() < end, "delivered, and not received"
            time.sleep(0.01)
        return self.received[-1].decode()

    def close(self) -> None:
        self._pool.shutdown()
        for endpoint in (self._source, self._sink, self._stranger):
            endpoint.close()
        for reader in self._readers:
            reader.join()


def _read(endpoint: BlockingEndpoint, into: list[bytes]) -> None:
    while (chunk := endpoint.receive()) is not None:
        into.append(chunk.payload)


@dataclass
class Comparison:
    """The neighbour without and with a fault beside it."""

    quiet: Window = field(default_factory=Window)
    faulty: Window = field(default_factory=Window)

    def harm(self) -> list[str]:
        """Return in words how the neighbour was harmed; empty: it was not."""
        before, after = self.quiet, self.faulty
        found = []
        share = after.goodput_share / min(1.0, max(GOODPUT_SHARE, before.goodput_share))
        if share < GOODPUT_SHARE:
            found.append(f"it has {share:.0%} of its goodput")
        if after.p99_s > max(P99_RATIO * before.p99_s, P99_FLOOR_S):
            found.append(
                f"its p99 went from {before.p99_s * 1e3:.1f} to {after.p99_s * 1e3:.1f} ms"
            )
        return found

    def __str__(self) -> str:
        return f"without: {self.quiet}; with: {self.faulty}"


@dataclass
class Scene:
    """A cloudlet with a neighbour under load and a rogue."""

    cloudlet: FaultCloudlet
    neighbour: Paced
    client: Client
    turns: int
    """After so many it is harm."""

    @property
    def rogue(self) -> SID:
        return self.cloudlet.sid_of("rogue")

    def compare(
        self, begin: Callable[[], object], between: Callable[[], object] = lambda: None
    ) -> Comparison:
        """Measure without and with what `begin` begins, again while it shows harm.

        A turn in which the sender itself came to a stop says something of the machine alone.

        Args:
            between: ends what was begun.
        """
        found, turns = Comparison(), 0
        for _ in range(4 * self.turns):
            self.neighbour.calm()
            before = self.neighbour.window(WINDOW_S)
            begin()
            after = self.neighbour.window(WINDOW_S)
            between()
            if min(before.sent_count, after.sent_count) < 0.8 * RATE * WINDOW_S:
                continue
            turns += 1
            found.quiet += before
            found.faulty += after
            if not found.harm() or turns == self.turns:
                return found
        pytest.fail("this machine is too busy: hardly anything was sent at its pace")

    def restarts(self) -> int:
        count: int = self.cloudlet.vi_of("rogue")["restarts"]
        return count

    def until_restarted(self, count: int) -> None:
        """Wait until it was brought down so often, and is back; an operator starts it, where it is
        left alone."""

        def is_so() -> bool:
            assert self.restarts() <= count
            is_over = self.cloudlet.is_running("rogue") or self.is_rogue_stopped
            return self.restarts() == count and is_over

        self.cloudlet.until(is_so)
        if self.is_rogue_stopped:
            self.renew_rogue()

    def until_answers(self, service: str = "rogue") -> None:
        """Wait until it has come to the end of what it was told to do."""
        sid = self.cloudlet.sid_of(service)
        self.cloudlet.until(lambda: self.client.ask(sid, "hello").ok)

    @property
    def is_rogue_stopped(self) -> bool:
        """Tell whether it is not started any more."""
        return bool(self.cloudlet.vi_of("rogue")["state"] == "quarantined")

    def renew_rogue(self) -> None:
        """Start it again as an operator does, without what it is charged with."""
        number = self.cloudlet.vi_of("rogue")["number"]
        assert self.cloudlet.ask("vi", "restart", number)["state"] == "done"

    def renew_stopped_rogue(self) -> None:
        """Wait until it is stopped for its conduct, then start it again."""
        self.cloudlet.until(lambda: self.is_rogue_stopped)
        assert "violations" in self.cloudlet.vi_of("rogue")["why"]
        self.renew_rogue()

    def surplus_count(self, service: str = "rogue") -> int:
        """Return how many verdicts the router has had of a service that it had not asked for."""
        services = self.cloudlet.router.get_json("/v1/cloudlet/table")["services"]
        sid = self.cloudlet.sids[service]
        (found,) = (one for one in services if one["sid"] == sid)
        return int(found["violations"].get("surplus", 0))

    def container(self, service: str = "rogue") -> dict[str, Any]:
        """Return what LXD says of what a service's VI uses."""
        return self.cloudlet.container_state(self.cloudlet.vi_of(service))

    def cpu_share(self, service: str = "rogue", duration_s: float = 1.0) -> float:
        """Return how much of a processor a service's VI uses for a moment."""
        before, at = self.container(service)["cpu"]["usage"], time.monotonic()
        time.sleep(duration_s)
        after = self.container(service)["cpu"]["usage"]
        return float(after - before) / 1e9 / (time.monotonic() - at)

    def said(self, service: str = "rogue") -> list[str]:
        return self.client.answer(self.cloudlet.sid_of(service), "said").split()

    def results_follow_the_policy(self) -> None:
        """Check a service of policy `closed`: what it did not serve is refused.

        Of what was sent once nothing is in doubt; what was sent again may have arrived.
        """
        results, self.client.results = self.client.results, []
        assert results
        for result in results:
            is_refused = result.outcome is SendOutcome.REFUSED and result.reason in (
                Reason.SERVICE_FAILED,
                Reason.UNKNOWN_SID,
            )
            is_known = not result.indeterminate or result.attempts_count > 1
            assert (result.ok or is_refused) and is_known, result.explain()
