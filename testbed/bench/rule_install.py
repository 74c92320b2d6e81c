"""Installing and withdrawing many rules in `bench rules`, under a stream of chunks.

A real router with its keeper; what is installed is a signed document, given to the management API
as `packetcloud rule install` does. Source: docs/reference/bench.md, "rules".
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from packetcloud.chunk.identity import Identity
from packetcloud.testbed.bench.ours import Ends, Load
from packetcloud.testbed.bench.path import attach_ends, check_conservation, router_on_centre
from packetcloud.testbed.bench.report import Document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.bench.scene import path_scene
from packetcloud.testbed.bench.service_ours import delay_figures
from packetcloud.testbed.daemons import Router, RulesEntry, wait_host
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.processes import Children, python_command
from packetcloud.testbed.traffic.rule_documents import header_rules, withdrawals, write_document
from packetcloud.testbed.traffic.rule_traffic import make_names

RULES = 1_000_000
CHUNKS_PER_S = 250
CHUNK_BYTES = 64
QUIET_S = 5.0
SETTLE_S = 2.0
STALL_MS = 5.0
KEEPER = "keeper_process"
SET_NAME = "bench"
_INSTALL_LIMIT_S = 900.0
_ALWAYS = Timing(seconds=10**6, warmup=0, repeats=1)

Lag = tuple[float, float, float]
"""When, how late, and how long of that the router waited for a processor; seconds."""


@dataclass(slots=True)
class _Phases:
    """What was done when, by CLOCK_MONOTONIC."""

    times: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin_s = time.monotonic()
        yield
        self.times[name] = begin_s, time.monotonic()


def measure_install(
    count: int, mode: LinkMode | None, progress: Progress, quiet_s: float = QUIET_S
) -> Document:
    """Install `count` rules and withdraw them one by one, while small chunks pass.

    Raises:
        ChildError: a rule was refused, or chunks were lost.
    """
    phases = _Phases()
    with path_scene(mode) as scene, Children() as children:
        progress(f"a document of {count} rules")
        identity = Identity.generate()
        install, withdraw = (children.directory / name for name in ("install", "withdraw"))
        rules = header_rules(make_names(count))
        document_bytes = write_document(install, identity, SET_NAME, 1, rules)
        write_document(withdraw, identity, SET_NAME, 2, withdrawals(count))
        lags = children.directory / "lags.json"
        router = router_on_centre(
            children,
            scene,
            command=partial(_lagged, lags),
            rules=rules_entry(children.directory / "rules", identity),
        )
        ends = _small_chunks(children, scene, router)
        time.sleep(SETTLE_S)
        before = memory_of(router)
        progress("small chunks through a router, nothing else")
        with phases.phase("quiet"):
            time.sleep(quiet_s)
        progress("small chunks through a router, beside a busy process")
        busy = ["nice", "-n", "10", sys.executable, "-c", "while True: pass"]
        other = children.start("busy", busy)
        with phases.phase("busy"):
            time.sleep(quiet_s)
        other.stop()
        progress(f"{count} rules are installed")
        with Meter([router.child]) as meter:
            with phases.phase("install"):
                installed = post_rules(router, install)
            time.sleep(SETTLE_S)
        after = memory_of(router)
        progress(f"{count} rules are withdrawn")
        with phases.phase("withdraw"):
            withdrawn = post_rules(router, withdraw)
        time.sleep(SETTLE_S)
        check_conservation(*ends.finish(), router)
        router.child.stop()
        found = {
            "rules": count,
            "document_bytes": document_bytes,
            "install_s": _seconds(phases, "install"),
            "withdraw_s": _seconds(phases, "withdraw"),
            "chunks_per_s": CHUNKS_PER_S,
            "phases": _figures(phases, ends, json.loads(lags.read_text())),
            "memory": _memory_figures(count, before, after)
            | {"peak_rss_bytes": max(rss for _, rss in meter.rss_series(router.child.name))},
        }
    _check_all(count, installed, "accepted")
    _check_all(count, withdrawn, "withdrawn")
    return found


def rules_entry(folder: Path, identity: Identity) -> RulesEntry:
    """Return where a router keeps rules that are signed by this key."""
    return RulesEntry(folder, identity.public_key.hex())


def post_rules(router: Router, file: Path) -> Any:
    """Give a signed document to a router; return what it says when the rules are in force.

    Raises:
        ChildError: it refuses the document, or does not answer.
    """
    try:
        if router.place is None:
            status, answer = _post(router.control, file)
        else:
            status, answer = router.place.run(_post, router.control, file)
    except OSError as error:
        raise ChildError(f"{router.child.name}: no answer to new rules: {error}") from error
    if status != 200:
        raise ChildError(f"{router.child.name}: {status} to new rules: {answer[:500]!r}")
    return json.loads(answer)


def memory_of(router: Router) -> dict[str, int]:
    """Return the memory of a router and of its keeper, each one's share of what they have in
    common with others included (PSS)."""
    process = psutil.Process(router.child.pid)
    found = {"router": process.memory_full_info().pss, "keeper": 0}
    for child in process.children(recursive=True):
        if any(KEEPER in word for word in child.cmdline()):
            found["keeper"] += child.memory_full_info().pss
    return found


def _lagged(file: Path, *arguments: object) -> list[str]:
    return python_command("packetcloud.testbed.lagged", file, "--", "packetcloud.cli", *arguments)


def _small_chunks(children: Children, scene: Any, router: Router) -> Ends:
    load = Load(CHUNK_BYTES, rate=CHUNKS_PER_S, keeps_times=True)
    ends = attach_ends(children, scene, router, load, _ALWAYS)
    assert ends.sender is not None and ends.receiver is not None
    wait_host(router, ends.receiver, ends.guid)
    return ends


def _post(address: tuple[str, int], file: Path) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=_INSTALL_LIMIT_S)
    try:
        with file.open("rb") as body:
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(file.stat().st_size),
            }
            connection.request("POST", "/v1/rules", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
    finally:
        connection.close()


def _check_all(count: int, answer: Any, what: str) -> None:
    if answer[what] != count:
        raise ChildError(f"{answer[what]} of {count} rules were {what}: {str(answer)[:500]}")


def _seconds(phases: _Phases, name: str) -> float:
    begin_s, end_s = phases.times[name]
    return end_s - begin_s


def _figures(phases: _Phases, ends: Ends, lags: Sequence[Lag]) -> Document:
    """For each phase how late the loop was, and how long chunks took."""
    found: Document = {}
    for name, (begin_s, end_s) in phases.times.items():
        delays_s = ends.delays_s(begin_s, end_s)
        found[name] = {
            "seconds": end_s - begin_s,
            **lag_figures(lags, begin_s, end_s),
            **delay_figures(delays_s),
            "delay_max_ms": max(delays_s, default=0.0) * 1e3,
            "chunks": len(delays_s),
        }
    return found


def lag_figures(lags: Sequence[Lag], begin_s: float, end_s: float) -> Document:
    """How late the loop was at the most, and how often by much; the same without what the router
    waited for a processor."""
    late = [one for one in lags if begin_s <= one[0] < end_s + one[1]]
    own_ms = [(at_s - begin_s, max(0.0, lag_s - waited_s) * 1e3) for at_s, lag_s, waited_s in late]
    stalls = [one for one in own_ms if one[1] > STALL_MS]
    return {
        "late_max_ms": max((lag_s for _, lag_s, _ in late), default=0.0) * 1e3,
        "stall_max_ms": max((stall_ms for _, stall_ms in own_ms), default=0.0),
        "stalls": len(stalls),
        "stalls_at_s": [[round(at_s, 3), round(stall_ms, 2)] for at_s, stall_ms in stalls],
    }


def _memory_figures(count: int, before: dict[str, int], after: dict[str, int]) -> Document:
    grown = {name: after[name] - before[name] for name in before}
    return {
        "before_bytes": before,
        "after_bytes": after,
        "router_bytes_per_rule": grown["router"] / count,
        "keeper_bytes_per_rule": grown["keeper"] / count,
    }
