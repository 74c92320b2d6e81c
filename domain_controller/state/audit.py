"""Whether what is kept is still what was written: the journal, usage, and the accounts over it.

Reads all of it, beside the controller, and says what is wrong first. Source:
docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from packetcloud.domain_controller.core.ledger import REVENUE, tenant_account
from packetcloud.domain_controller.core.prices import Price
from packetcloud.domain_controller.state import journal, usage
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.money_tables import EVIDENCE, POSTINGS, TALLIES, USAGE
from packetcloud.domain_controller.state.tables import RESERVATIONS

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    events_count: int
    head: str
    """The digest of the last event: whoever noted it can show later that nothing was taken out."""
    records_count: int
    evidence_count: int
    """Usage records that differ from what came first under their numbers; not billed."""
    gaps: tuple[str, ...]
    """Meters of which records are missing."""
    findings: tuple[str, ...]
    """What must not be. Empty: all is right."""


def audit(url: str) -> Audit:
    """Look through a database. Cost: O(rows).

    Raises:
        StateConfigError: the database cannot be used.
        DatabaseAwayError: it does not answer.
    """
    database = Database(url, only_reads=True)
    try:
        with database.reading() as connection:
            return audit_state(connection)
    finally:
        database.close()


def audit_state(connection: Connection) -> Audit:
    """Look through one state of everything."""
    findings = []
    wrong = journal.verify(connection)
    if wrong is not None:
        findings.append(f"journal: event {wrong} is missing, or it or one before it was altered")
    records_count = 0
    for row in connection.execute(
        select(USAGE)
        .order_by(USAGE.c.cloudlet, USAGE.c.meter, USAGE.c.number)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    ):
        records_count += 1
        if usage.record_of(row).digest != bytes(row.digest):
            name = f"{row.cloudlet}/{row.meter}/{row.number}"
            findings.append(f"usage: record {name} is not what came in")
            break
    findings += _wrong_accounts(connection)
    number, digest = journal.head(connection)
    evidence_count = connection.execute(select(func.count()).select_from(EVIDENCE)).scalar_one()
    gaps = tuple("/".join(one) for one in usage.meters_with_gaps(connection))
    return Audit(number, digest.hex(), records_count, evidence_count, gaps, tuple(findings))


def _wrong_accounts(connection: Connection) -> list[str]:
    """Compare what each tenant owes with what its usage costs."""
    total = sum(usage.balances(connection).values())
    findings = [f"accounts: their sum is {total}, not 0"] if total else []
    costs: dict[str, int] = defaultdict(int)
    query = select(TALLIES, RESERVATIONS.c.owner)
    query = query.join(RESERVATIONS, RESERVATIONS.c.name == TALLIES.c.reservation)
    for row in connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)):
        price = Price(row.price_micros, row.price_units)
        costs[tenant_account(row.owner)] += price.cost(row.quantity)
    owed = {
        account: int(micros)
        for account, micros in connection.execute(
            select(POSTINGS.c.debit, func.sum(POSTINGS.c.micros))
            .where(POSTINGS.c.credit == REVENUE)
            .group_by(POSTINGS.c.debit)
        )
    }
    for account in sorted(costs.keys() | owed.keys()):
        if costs.get(account, 0) != owed.get(account, 0):
            findings.append(
                f"accounts: {account} was charged {owed.get(account, 0)} micros, and its usage "
                f"costs {costs.get(account, 0)}"
            )
    return findings
