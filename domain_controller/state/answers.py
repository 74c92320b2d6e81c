"""Idempotency keys: the first answer to a key is kept with what it did, and given again.

Written in the transaction of what was asked: either both are there or neither. An error that a
work raises undoes both, so it is no answer; a refusal that is to be remembered is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select

from packetcloud.domain_controller.state.errors import KeyReusedError
from packetcloud.domain_controller.state.rows import insert_new
from packetcloud.domain_controller.state.tables import ANSWERS
from packetcloud.domain_controller.state.transaction import CollidedError, Transaction

KEPT_MS = 7 * 24 * 3600 * 1000
"""So long a key is known; a client that asks again later asks anew."""
MAX_KEY_CHARS = 128
FORGET_COUNT = 1000
"""Rows of one purge: others wait for it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for something new, under which key, and the digest of what was asked."""

    principal: str
    key: str
    digest: bytes
    """Of method, target and body: the same key for something else is a mistake."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: an HTTP status and a body."""

    status: int
    body: str
    is_repeated: bool = False
    """It was answered before, and nothing was done now."""


def once(transaction: Transaction, asked: Asked, act: Callable[[], Answer]) -> Answer:
    """Return the first answer to this key; if there is none, act, and keep the answer.

    Raises:
        KeyReusedError: the key stands for something else.
    """
    known = find(transaction.connection, asked)
    if known is not None:
        return known
    answer = act()
    row = {
        "principal": asked.principal,
        "key": asked.key,
        "digest": asked.digest,
        "status": answer.status,
        "body": answer.body,
        "made_ms": transaction.now_ms,
    }
    if not insert_new(transaction.connection, ANSWERS, row):
        raise CollidedError
    return answer


def find(connection: Connection, asked: Asked) -> Answer | None:
    """Return what was answered to a key; None: nothing was done under it.

    Raises:
        KeyReusedError: the key stands for something else.
    """
    row = connection.execute(_FIND, {"p": asked.principal, "k": asked.key}).one_or_none()
    if row is None:
        return None
    if bytes(row.digest) != asked.digest:
        raise KeyReusedError(
            f"Idempotency-Key {asked.key!r} was used for another request; allowed: the same "
            "request again, or a new key"
        )
    return Answer(row.status, row.body, is_repeated=True)


def forget_old(transaction: Transaction) -> int:
    """Forget keys that are older than `KEPT_MS`, some at a time; return how many."""
    before_ms = transaction.now_ms - KEPT_MS
    old = (
        select(ANSWERS.c.principal, ANSWERS.c.key)
        .where(ANSWERS.c.made_ms < before_ms)
        .limit(FORGET_COUNT)
    )
    rows = transaction.connection.execute(old).all()
    for row in rows:
        transaction.connection.execute(
            delete(ANSWERS).where(ANSWERS.c.principal == row.principal, ANSWERS.c.key == row.key)
        )
    return len(rows)


_FIND = select(ANSWERS.c.digest, ANSWERS.c.status, ANSWERS.c.body)
_FIND = _FIND.where(ANSWERS.c.principal == bindparam("p"), ANSWERS.c.key == bindparam("k"))
