"""Idempotency keys: the first answer to a key is kept with what it did, and given again.

Written in the transaction of what was asked: either both are there or neither. An error that a
work raises undoes both, so it is no answer; a refusal that is to be remembered is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select, tuple_

from packetcloud.domain_controller.state.errors import KeyReusedError
from packetcloud.domain_controller.state.rows import inserting_new
from packetcloud.domain_controller.state.tables import ANSWERS
from packetcloud.domain_controller.state.transaction import Transaction

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
    name = (asked.principal, asked.key)
    if name not in transaction.answers:
        look_up(transaction, [asked])
    known = transaction.answers[name]
    if known is not None:
        return _same(asked, *known)
    answer = act()
    row = {
        "principal": asked.principal,
        "key": asked.key,
        "digest": asked.digest,
        "status": answer.status,
        "body": answer.body,
        "made_ms": transaction.now_ms,
    }
    transaction.add(inserting_new(transaction.dialect, ANSWERS), row)
    transaction.answers[name] = (asked.digest, answer)
    return answer


def look_up(transaction: Transaction, asked: Sequence[Asked]) -> None:
    """Find what was answered to keys, for `once` to know without asking for each."""
    transaction.answers.update(dict.fromkeys((one.principal, one.key) for one in asked))
    transaction.answers.update(find_all(transaction.connection, asked))


def find_all(
    connection: Connection, asked: Sequence[Asked]
) -> dict[tuple[str, str], tuple[bytes, Answer]]:
    """Return what was answered, by principal and key, with the digest of what was asked."""
    names = sorted({(one.principal, one.key) for one in asked})
    return {
        (row.principal, row.key): (bytes(row.digest), Answer(row.status, row.body))
        for row in connection.execute(_FIND_ALL, {"names": names})
    }


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


def _same(asked: Asked, digest: bytes, answer: Answer) -> Answer:
    if digest != asked.digest:
        raise KeyReusedError(
            f"Idempotency-Key {asked.key!r} was used for another request; allowed: the same "
            "request again, or a new key"
        )
    return Answer(answer.status, answer.body, is_repeated=True)


_FIND_ALL = select(ANSWERS).where(
    tuple_(ANSWERS.c.principal, ANSWERS.c.key).in_(bindparam("names", expanding=True))
)
