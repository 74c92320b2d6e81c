"""`packetcloud bench domain`: places, money and reports of a domain controller, and its end.

Source: docs/reference/bench.md, "domain".
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from packetcloud.testbed.bench.domain_parts import (
    PARTS,
    DomainPlan,
    Experiment,
    measure_part,
    wrong_with,
)
from packetcloud.testbed.bench.domain_place import DATABASES, EmptyDatabases
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.private_postgresql import (
    PrivatePostgresql,
    lacking_for_postgresql,
    postgresql_version,
)
from packetcloud.testbed.processes import Children

QUICK = DomainPlan(
    rate_s=2.0,
    rounds=5,
    records=6400,
    reporting=200,
    failover_s=8.0,
    kill_every_s=4.0,
    control_s=2.0,
)
"""To see that it works: half a minute."""
_TOGETHER = ("races",)
"""Parts that say nothing of how fast it is: measured on all databases at the same time."""
_ONLY = {"reports": "sqlite", "failover": "postgresql", "stale": "postgresql"}
"""Parts that are about one database."""


def bench_domain(plan: DomainPlan, progress: Progress) -> Document:
    """Measure what the plan says; what is found wrong stands under `failures`."""
    document = begin_document("domain", Timing(round(plan.rate_s), 1, 1), False, ())
    document |= {"topology": "processes", "parts": list(plan.parts), "failures": []}
    document["peers"] = {"postgresql": postgresql_version()}
    databases = list(plan.databases)
    reason = lacking_for_postgresql()
    if reason is not None and "postgresql" in databases:
        databases.remove("postgresql")
        document["notes"].append(f"postgresql left out: {reason}")
    document["databases"] = {kind: {} for kind in databases}
    document["took_s"] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(PrivatePostgresql()) if "postgresql" in databases else None
        for part in PARTS:
            if part not in plan.parts:
                continue
            began_s = time.monotonic()
            kinds = databases_of(part, databases)
            for kind, found in _measure_all(part, kinds, server, plan, progress):
                if isinstance(found, ChildError):
                    document["failures"].append(f"{part}, {kind}: {found}")
                else:
                    document["databases"][kind][part] = found
            document["took_s"][part] = round(time.monotonic() - began_s, 1)
    document["failures"] += failures_of(document["databases"])
    return {**document, **domain_keys(document["databases"])}


def databases_of(part: str, databases: Sequence[str]) -> list[str]:
    """Return the databases on which a part is measured, of those that there are."""
    return [kind for kind in databases if _ONLY.get(part, kind) == kind]


def failures_of(databases: Document) -> list[str]:
    """Return what is wrong by the journals, and controls that found nothing."""
    return [
        f"{part}, {kind}: {text}"
        for kind, parts in databases.items()
        for part, found in parts.items()
        for text in wrong_with(part, found)
    ]


def domain_keys(databases: Document) -> Document:
    """Return the figures that a reader looks for first; None where a part was not run."""

    def one(kind: str, part: str, key: str) -> float | None:
        value: float | None = databases.get(kind, {}).get(part, {}).get(key)
        return value

    def total(part: str, key: str) -> float | None:
        values = [one(kind, part, key) for kind in databases]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return {
        "reservations_per_s": {kind: one(kind, "rate", "per_s") for kind in DATABASES},
        "reserve_p99_ms": {kind: one(kind, "rate", "p99_ms") for kind in DATABASES},
        "oversold": total("races", "oversold"),
        "report_core_share": one("sqlite", "reports", "core_share"),
        "failover_pause_s": one("postgresql", "failover", "pause_s"),
        "billing_errors": total("billing", "errors"),
    }


def _measure_all(
    part: str,
    kinds: Sequence[str],
    server: PrivatePostgresql | None,
    plan: DomainPlan,
    progress: Progress,
) -> Iterator[tuple[str, Document | ChildError]]:
    """Yield what was found on each database, or why nothing was."""
    is_over = threading.Event()

    def measure(kind: str) -> Document | ChildError:
        try:
            return _measure(part, kind, server, plan, tell)
        except ChildError as error:
            return error

    def tell(text: str) -> None:
        if is_over.is_set():
            raise ChildError("it was interrupted")
        progress(text)

    if part not in _TOGETHER:
        for kind in kinds:
            yield kind, measure(kind)
        return
    with ThreadPoolExecutor(len(kinds)) as threads:
        try:
            yield from zip(kinds, threads.map(measure, kinds), strict=True)
        finally:  # Ctrl-C: the others end at the next thing that they tell
            is_over.set()


def _measure(
    part: str,
    kind: str,
    server: PrivatePostgresql | None,
    plan: DomainPlan,
    progress: Progress,
) -> Document:
    progress(f"{part}, {kind}")
    with Children() as children:
        used = server if kind == "postgresql" else None
        databases = EmptyDatabases(kind, children.directory / "databases", used)
        return measure_part(part, Experiment(plan, databases, children, progress))
