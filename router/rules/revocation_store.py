"""What the keeper knows about revoked grants, and which rules are out of force for them.

Two tables of the database of `store`, within whose changes they are changed.
Source: docs/decisions/0014; docs/reference/rules.md, "Revocations".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

REVOCATION_SCHEMA = """
CREATE TABLE revocations (
    grant_digest BLOB PRIMARY KEY, issuer BLOB NOT NULL, until_s INTEGER NOT NULL,
    signature BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX revocations_by_issuer ON revocations (issuer);
CREATE TABLE revoked_rules (number INTEGER PRIMARY KEY, grant_digest BLOB NOT NULL);
"""
"""What format 2 of the store has beside format 1."""


class RevocationStore:
    """Revocations by the digest of the grant, and revoked rules by their number."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def is_revoked(self, grant: bytes) -> bool:
        """Tell whether the issuer of a grant, by its digest, has taken it back."""
        row = self._connection.execute(
            "SELECT 1 FROM revocations WHERE grant_digest = ?", (grant,)
        ).fetchone()
        return row is not None

    def counts(self, issuer: bytes) -> tuple[int, int]:
        """Return how many there are, and how many of one issuer."""
        row = self._connection.execute(
            "SELECT (SELECT COUNT(*) FROM revocations),"
            " (SELECT COUNT(*) FROM revocations WHERE issuer = ?)",
            (issuer,),
        ).fetchone()
        return row[0], row[1]

    def revoked_rules(self, set_id: int | None = None) -> dict[int, bytes]:
        """Return the numbers of the rules that are out of force for it, and the grant of each."""
        query = "SELECT number, grant_digest FROM revoked_rules"
        if set_id is not None:
            query += " JOIN rules USING (number) WHERE set_id = ?"
        return dict(self._connection.execute(query, () if set_id is None else (set_id,)).fetchall())

    def revoked_counts(self) -> dict[int, tuple[int, int]]:
        """Return by set how many active and shadow rules are out of force for a revoked grant."""
        rows = self._connection.execute(
            "SELECT set_id, SUM(NOT is_shadow), SUM(is_shadow)"
            " FROM revoked_rules JOIN rules USING (number) GROUP BY set_id"
        )
        return {set_id: (active, shadow) for set_id, active, shadow in rows}

    def revoked_by(self, number: int) -> bytes | None:
        """Return the grant whose revocation took a rule out of force."""
        row = self._connection.execute(
            "SELECT grant_digest FROM revoked_rules WHERE number = ?", (number,)
        ).fetchone()
        return row[0] if row is not None else None

    # What follows is called inside `change`.

    def put(self, grant: bytes, issuer: bytes, until_s: int, signature: bytes) -> None:
        """Note that a grant, by its digest, is taken back."""
        self._connection.execute(
            "INSERT INTO revocations VALUES (?, ?, ?, ?)", (grant, issuer, until_s, signature)
        )

    def forget(self, now_s: float) -> None:
        """Forget those whose grants have ended."""
        self._connection.execute("DELETE FROM revocations WHERE until_s <= ?", (now_s,))

    def revoke_rules(self, numbers: Iterable[int], grant: bytes) -> None:
        """Note that rules are out of force, as the grant was taken back."""
        self._connection.executemany(
            "INSERT INTO revoked_rules VALUES (?, ?)", ((number, grant) for number in numbers)
        )
