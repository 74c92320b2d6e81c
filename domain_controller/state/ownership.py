"""Who acts on what: one owner at a time, and an epoch that grows each time the owner changes.

A cloudlet's channel is taken by whoever opened it last. Work that concerns all cloudlets is taken
as a lease, which another controller may take after its end. Either way a write that depends on it
calls `require` in the same transaction: a controller that was stopped and goes on writes nothing.
Clocks decide only who may try; that there is one owner is the epoch's doing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from packetcloud.domain_controller.state.errors import StaleOwnerError
from packetcloud.domain_controller.state.failures import CollidedError
from packetcloud.domain_controller.state.rows import insert_new
from packetcloud.domain_controller.state.tables import OWNERSHIPS
from packetcloud.domain_controller.state.transaction import Transaction

MAX_SKEW_MS = 30_000
"""So far apart may the clocks of two controllers be."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """That an owner has something, as of an epoch."""

    name: str
    owner: str
    epoch: int
    until_ms: int | None = None
    """The end of a lease."""


def cloudlet_channel(cloudlet: str) -> str:
    """Return the name under which a cloudlet's channel is owned."""
    return f"cloudlet/{cloudlet}"


def take(transaction: Transaction, name: str, owner: str, above: int = 0) -> Ownership:
    """Take something from whoever has it; the epoch is one higher than any before.

    Args:
        above: an epoch that is known elsewhere; higher than ours after a restore.
    """
    return _put(transaction, _read(transaction.connection, name), name, owner, None, above)


def take_lease(transaction: Transaction, name: str, owner: str, for_ms: int) -> Ownership | None:
    """Take a lease, or prolong it; None: another owner's lasts.

    Prolonging keeps the epoch.
    """
    known = _read(transaction.connection, name)
    until_ms = transaction.now_ms + for_ms
    if (
        known is None
        or known.until_ms is None
        or known.until_ms <= transaction.now_ms
        or known.until_ms > until_ms + MAX_SKEW_MS  # taken before the clock was set back
    ):
        return _put(transaction, known, name, owner, until_ms)
    if known.owner != owner:
        return None
    transaction.connection.execute(
        update(OWNERSHIPS).where(OWNERSHIPS.c.name == name).values(until_ms=until_ms)
    )
    return Ownership(name, owner, known.epoch, until_ms)


def give_back(transaction: Transaction, ownership: Ownership) -> None:
    """End a lease early, so that others need not wait; the epoch stays known."""
    require(transaction, ownership)
    transaction.connection.execute(
        update(OWNERSHIPS)
        .where(OWNERSHIPS.c.name == ownership.name)
        .values(until_ms=transaction.now_ms)
    )


def require(transaction: Transaction, ownership: Ownership) -> None:
    """Let the transaction go on only if this is still so; it stays so until the commit.

    Raises:
        StaleOwnerError: somebody else took it.
    """
    known = _read(transaction.connection, ownership.name)
    if known is None or (known.owner, known.epoch) != (ownership.owner, ownership.epoch):
        now = f"{known.owner} has it as of epoch {known.epoch}" if known else "nobody has it"
        raise StaleOwnerError(
            f"{ownership.name} is no longer owned by {ownership.owner} as of epoch "
            f"{ownership.epoch}: {now}"
        )


def find(connection: Connection, name: str) -> Ownership | None:
    """Return who has something."""
    row = connection.execute(select(OWNERSHIPS).where(OWNERSHIPS.c.name == name)).one_or_none()
    return Ownership(row.name, row.owner, row.epoch, row.until_ms) if row else None


def _read(connection: Connection, name: str) -> Ownership | None:
    query = select(OWNERSHIPS).where(OWNERSHIPS.c.name == name).with_for_update()
    row = connection.execute(query).one_or_none()
    return Ownership(row.name, row.owner, row.epoch, row.until_ms) if row else None


def _put(
    transaction: Transaction,
    known: Ownership | None,
    name: str,
    owner: str,
    until_ms: int | None,
    above: int = 0,
) -> Ownership:
    epoch = max(known.epoch if known else 0, above) + 1
    values = {"owner": owner, "epoch": epoch, "until_ms": until_ms}
    if known is None:
        if not insert_new(transaction.connection, OWNERSHIPS, {"name": name, **values}):
            raise CollidedError(f"{name} was taken meanwhile")
    else:
        transaction.connection.execute(
            update(OWNERSHIPS).where(OWNERSHIPS.c.name == name).values(**values)
        )
    return Ownership(name, owner, epoch, until_ms)
