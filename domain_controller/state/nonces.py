"""Nonces of signatures: each once. A row until the signature has expired anyway."""

from __future__ import annotations

from sqlalchemy import delete

from packetcloud.domain_controller.state.errors import ReplayedError
from packetcloud.domain_controller.state.rows import insert_new
from packetcloud.domain_controller.state.tables import NONCES
from packetcloud.domain_controller.state.transaction import Transaction


def use(transaction: Transaction, key: str, nonce: str, until_ms: int) -> None:
    """Note that a key's nonce was used.

    Args:
        until_ms: when a signature with it counts no more, by the clock of whoever checks.

    Raises:
        ReplayedError: it was used before.
    """
    row = {"key": key, "nonce": nonce, "until_ms": until_ms}
    if not insert_new(transaction.connection, NONCES, row):
        raise ReplayedError(f"nonce {nonce!r} of key {key!r} was used already; sign anew")


def forget_expired(transaction: Transaction) -> int:
    """Forget those whose signatures have expired; return how many."""
    old = delete(NONCES).where(NONCES.c.until_ms < transaction.now_ms)
    return transaction.connection.execute(old).rowcount
