"""Nonces of signatures: each once. A row until the signature has expired anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete

from packetcloud.domain_controller.state.errors import ReplayedError
from packetcloud.domain_controller.state.rows import insert_all_new
from packetcloud.domain_controller.state.tables import NONCES
from packetcloud.domain_controller.state.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Nonce:
    """The nonce of a signature."""

    key: str
    nonce: str
    until_ms: int
    """When a signature with it counts no more, by the clock of whoever checks."""


def use_all(transaction: Transaction, nonces: Sequence[Nonce]) -> list[ReplayedError | None]:
    """Note that nonces were used; return for each what is wrong: it was used before.

    Whatever becomes of the requests that they came with: what was tried and refused is not tried
    again by who only overheard it.
    """
    rows = {(one.key, one.nonce): one.until_ms for one in nonces}
    new = insert_all_new(
        transaction.connection,
        NONCES,
        [{"key": key, "nonce": nonce, "until_ms": rows[key, nonce]} for key, nonce in sorted(rows)],
        ("key", "nonce"),
    )
    unused = set(new)
    found: list[ReplayedError | None] = []
    for one in nonces:
        if (one.key, one.nonce) in unused:
            unused.remove((one.key, one.nonce))  # a second one in this batch comes too late
            found.append(None)
        else:
            text = f"nonce {one.nonce!r} of key {one.key!r} was used already; sign anew"
            found.append(ReplayedError(text))
    return found


def forget_expired(transaction: Transaction) -> int:
    """Forget those whose signatures have expired; return how many."""
    old = delete(NONCES).where(NONCES.c.until_ms < transaction.now_ms)
    return transaction.connection.execute(old).rowcount
