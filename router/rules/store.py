"""What the keeper knows about rules, in SQLite: sets and their serials, rules, evidence, versions.

A change is one transaction: it is there whole or not at all, and lasts when the transaction ends.
The files of the data plane's table are named in the same transaction, so no version is without
them. Only the keeper writes. Source: docs/decisions/0012.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

from packetcloud.router.errors import RuleStoreError
from packetcloud.router.rules.revocation_store import REVOCATION_SCHEMA, RevocationStore

STORE_FILE = "rules.sqlite"
FORMAT = 2
MAX_NUMBER = 0xFFFF_FFFF
"""Numbers of rules have 32 bits and are never used again."""
MAX_CHANGES_COUNT = 10_000
"""Changes that are remembered: the youngest."""
MAX_LOG_BYTES = 4 << 20
"""The log of changes is emptied when it is longer."""
_EXPECTED = {
    *("lock", "tables", "documents", "uploads", f"{STORE_FILE}-wal", f"{STORE_FILE}-shm"),
    "lost+found",
}
"""What is left in the folder when somebody removes the database; and a file system begins so."""
_NAMES_AT_ONCE = 500
_ROWS_AT_ONCE = 250
"""Entered by one statement: a sixth less than one by one, and the interpreter is not asked for
meanwhile."""
_CACHE_KIB = 64 << 10
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size_bytes INTEGER NOT NULL,
    received_s REAL NOT NULL, head BLOB NOT NULL);
CREATE TABLE sets (
    id INTEGER PRIMARY KEY, signer BLOB NOT NULL, name TEXT NOT NULL, serial INTEGER NOT NULL,
    is_own INTEGER NOT NULL, is_suspended INTEGER NOT NULL DEFAULT 0,
    rules INTEGER NOT NULL DEFAULT 0, shadow_rules INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0,
    document INTEGER NOT NULL REFERENCES documents, UNIQUE (signer, name));
CREATE INDEX sets_by_name ON sets (name);
CREATE TABLE rules (
    number INTEGER PRIMARY KEY, set_id INTEGER NOT NULL REFERENCES sets, name TEXT NOT NULL,
    service BLOB NOT NULL, is_shadow INTEGER NOT NULL, until_s REAL, entries INTEGER NOT NULL,
    document INTEGER NOT NULL REFERENCES documents, item TEXT NOT NULL);
CREATE UNIQUE INDEX rules_by_name ON rules (set_id, name);
CREATE INDEX rules_by_end ON rules (until_s) WHERE until_s IS NOT NULL;
CREATE TABLE patterns (position INTEGER PRIMARY KEY, definition TEXT NOT NULL UNIQUE);
CREATE TABLE pattern_uses (
    number INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (number, position)
    ) WITHOUT ROWID;
CREATE TABLE files (
    position INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
    rules INTEGER NOT NULL);
CREATE TABLE changes (
    version INTEGER PRIMARY KEY, at_s REAL NOT NULL, what TEXT NOT NULL, set_id INTEGER,
    document INTEGER, installed INTEGER NOT NULL, withdrawn INTEGER NOT NULL,
    refused INTEGER NOT NULL);
INSERT INTO meta VALUES
    ('version', 0), ('next_number', 1), ('next_file', 1), ('secret', randomblob(32)),
    ('open_services', '[]');
"""


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set that was ever accepted; it stays, without rules, when all of it is withdrawn."""

    id: int
    signer: bytes
    name: str
    serial: int
    """The largest that was accepted; nothing up to it is accepted again."""
    is_own: bool
    is_suspended: bool
    """Its signer signs for the ISP no more: its rules are kept, and not in force."""
    rules: int
    shadow_rules: int
    entries: int
    document: int


StoredRow = tuple[int, int, str, bytes, bool, float | None, int, int, str]
"""What a `StoredRule` holds, on its way in."""


class StoredRule(NamedTuple):
    """A row of `rules`; a tuple, as a million are made at a time."""

    number: int
    set_id: int
    name: str
    service: bytes
    is_shadow: int
    """1 or 0, as SQLite has it."""
    until_s: float | None
    """Seconds since 1970; None: for ever."""
    entries: int
    """Combinations of the names and types that it lists."""
    document: int
    item: str
    """What its author wrote, as JSON."""


class Held(NamedTuple):
    """How many of some rules are of the third party that brings more, and of all of them."""

    of_signer: int
    of_third_parties: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that rules or sets go back to; the file itself lies in the folder."""

    id: int
    digest: bytes
    size_bytes: int
    received_s: float
    head: bytes
    """Its head, a line of JSON: what its rules have in common."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the table in force, in the folder of the tables."""

    kind: str
    name: str
    rules: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all sets that are in force."""

    active: int
    shadow: int
    suspended: int
    """Rules of sets that are not."""
    entries: int
    """Of all sets."""
    third_party: int
    """Entries of those that are not the ISP's own."""
    sets: int
    revoked: int = 0
    """Rules that are not in force, as a grant was revoked."""


class RuleStore:
    """The database of one keeper."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        self.revocations = RevocationStore(connection)

    @classmethod
    def open(cls, folder: Path, *, is_reader: bool = False) -> Self:
        """Open the store in `folder`, or make it.

        Args:
            is_reader: a further connection, which changes nothing.

        Raises:
            RuleStoreError: it cannot be used.
        """
        path = folder / STORE_FILE
        if not is_reader and not path.exists():
            _refuse_a_folder_of_others(folder)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            if is_reader:
                connection.execute("PRAGMA query_only = 1")
                return cls(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                connection.executescript(
                    f"BEGIN; {_SCHEMA} {REVOCATION_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT"
                )
            elif found == 1:
                connection.executescript(
                    f"BEGIN; {REVOCATION_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT"
                )
            elif found != FORMAT:
                raise RuleStoreError(f"{path}: format {found}; this version reads 1 to {FORMAT}")
        except sqlite3.Error as error:
            raise RuleStoreError(f"{path}: {error}; put a copy of it back, or remove it") from None
        return cls(connection, path)

    def close(self) -> None:
        self.connection.close()

    def is_log_long(self) -> bool:
        """Tell whether so much was changed that a checkpoint is worth it."""
        log = self._path.with_name(self._path.name + "-wal")
        return log.exists() and log.stat().st_size > MAX_LOG_BYTES

    def checkpoint(self) -> None:
        """Move what changed from the log of changes into the database.

        What was committed lasts without. After the change of a million rules this takes seconds,
        for which nobody who waits for an answer should wait; so it is asked for apart.
        """
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self) -> None:
        """Free what is kept of the database in memory."""
        self.connection.execute("PRAGMA shrink_memory")

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make what is done inside one change; an exception undoes it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:  # a signal too: half a change must not be left open
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the store inside, whatever is changed meanwhile."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    @property
    def version(self) -> int:
        return self._meta("version")

    @property
    def secret(self) -> bytes:
        """32 random bytes that no one outside learns, drawn when the store was made."""
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()
        secret: bytes = row[0]
        return secret

    def find_set(self, signer: bytes, name: str) -> StoredSet | None:
        rows = self.connection.execute(
            f"SELECT {_SET} FROM sets WHERE signer = ? AND name = ?", (signer, name)
        )
        return next(map(_set, rows), None)

    def sets(self) -> list[StoredSet]:
        return [_set(row) for row in self.connection.execute(f"SELECT {_SET} FROM sets")]

    def sets_named(self, name: str) -> list[StoredSet]:
        """Return the sets of this name, one for each signer that has one."""
        query = f"SELECT {_SET} FROM sets WHERE name = ? ORDER BY id"
        return [_set(row) for row in self.connection.execute(query, (name,))]

    def sets_count(self) -> int:
        (count,) = self.connection.execute("SELECT COUNT(*) FROM sets").fetchone()
        return int(count)

    @property
    def open_services(self) -> frozenset[bytes]:
        """The services that were open to everybody under the last policy."""
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'open_services'")
        return frozenset(map(bytes.fromhex, json.loads(row.fetchone()[0])))

    def totals(self) -> Totals:
        """Count the rules. O(sets and revoked rules)."""
        row = self.connection.execute(
            "SELECT SUM((rules - shadow_rules) * (1 - is_suspended)),"
            " SUM(shadow_rules * (1 - is_suspended)), SUM(rules * is_suspended),"
            " SUM(entries), SUM(entries * (1 - is_own)), COUNT(*) FROM sets"
        ).fetchone()
        active, shadow, suspended, entries, third_party, sets = (value or 0 for value in row)
        counts = self.revocations.revoked_counts().values()
        less, less_shadow = sum(one for one, _ in counts), sum(one for _, one in counts)
        return Totals(
            active - less,
            shadow - less_shadow,
            suspended,
            entries,
            third_party,
            sets,
            less + less_shadow,
        )

    def holdings(self, signer: bytes) -> tuple[int, int]:
        """Return how many entries and sets are of one signer."""
        entries, sets = self.connection.execute(
            "SELECT SUM(entries), COUNT(*) FROM sets WHERE signer = ?", (signer,)
        ).fetchone()
        return entries or 0, sets

    def named(self, set_id: int, names: Sequence[str]) -> Iterator[StoredRule]:
        """Return those of the rules that the set has."""
        for start in range(0, len(names), _NAMES_AT_ONCE):
            some = names[start : start + _NAMES_AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self.connection.execute(
                f"SELECT {_RULE} FROM rules WHERE set_id = ? AND name IN ({marks})",
                (set_id, *some),
            )
            yield from map(_rule, rows)

    def numbered(self, numbers: Sequence[int]) -> Iterator[StoredRule]:
        """Return those of the rules with these numbers that are there."""
        for start in range(0, len(numbers), _NAMES_AT_ONCE):
            some = numbers[start : start + _NAMES_AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self.connection.execute(
                f"SELECT {_RULE} FROM rules WHERE number IN ({marks})", tuple(some)
            )
            yield from map(_rule, rows)

    def numbers_between(self, first: int, last: int) -> Iterator[int]:
        """Return the numbers of rules that are there, from `first` to `last`."""
        query = "SELECT number FROM rules WHERE number BETWEEN ? AND ?"
        return (number for (number,) in self.connection.execute(query, (first, last)))

    def gone_count(self) -> int:
        """Return how many rules there were that are there no more. O(sets)."""
        (there,) = self.connection.execute("SELECT SUM(rules) FROM sets").fetchone()
        return self.next_number - 1 - (there or 0)

    def held(self, numbers: Sequence[int], signer: bytes) -> Held:
        """Return how many of some rules are of one third party, and of all of them."""
        of_signer = of_all = 0
        for start in range(0, len(numbers), _NAMES_AT_ONCE):
            some = numbers[start : start + _NAMES_AT_ONCE]
            marks = ",".join("?" * len(some))
            own, third = self.connection.execute(
                "SELECT SUM(sets.signer = ?), COUNT(*) FROM rules JOIN sets ON sets.id = set_id"
                f" WHERE NOT is_own AND number IN ({marks})",
                (signer, *some),
            ).fetchone()
            of_signer += own or 0
            of_all += third
        return Held(of_signer, of_all)

    def rules_of(self, set_id: int) -> Iterator[StoredRule]:
        rows = self.connection.execute(f"SELECT {_RULE} FROM rules WHERE set_id = ?", (set_id,))
        return map(_rule, rows)

    def rules_of_document(self, document: int) -> list[StoredRule]:
        """Return the rules that came with a document and are not revoked. O(rules)."""
        rows = self.connection.execute(
            f"SELECT {_RULE} FROM rules WHERE document = ?"
            " AND number NOT IN (SELECT number FROM revoked_rules)",
            (document,),
        )
        return [_rule(row) for row in rows]

    def third_party_documents(self) -> list[int]:
        """Return those that rules of third parties go back to. O(their rules)."""
        rows = self.connection.execute(
            "SELECT DISTINCT rules.document FROM sets JOIN rules ON rules.set_id = sets.id"
            " WHERE NOT sets.is_own"
        )
        return [document for (document,) in rows]

    def rules_after(self, set_id: int, name: str, prefix: str) -> Iterator[StoredRule]:
        """Return the rules of a set whose names come after one and begin so, by name."""
        rows = self.connection.execute(
            f"SELECT {_RULE} FROM rules WHERE set_id = ? AND name > ? AND name >= ? AND name < ?"
            " ORDER BY name",
            (set_id, name, prefix, prefix + "\x7f"),
        )
        return map(_rule, rows)

    def rules(self) -> Iterator[StoredRule]:
        """Return all rules, by number."""
        return map(_rule, self.connection.execute(f"SELECT {_RULE} FROM rules ORDER BY number"))

    def third_party_rules_to(self, services: Collection[bytes]) -> Iterator[StoredRule]:
        """Return the rules that lead to some services and are not the ISP's. O(rules)."""
        marks = ",".join("?" * len(services))
        rows = self.connection.execute(
            f"SELECT {_RULE} FROM rules WHERE service IN ({marks})"
            " AND set_id IN (SELECT id FROM sets WHERE NOT is_own)",
            (*services,),
        )
        return map(_rule, rows)

    def patterns(self) -> list[tuple[int, str]]:
        """Return number and text of all patterns that have a place in the scanner."""
        return self.connection.execute("SELECT position, definition FROM patterns").fetchall()

    def used_patterns(self, besides: int | None = None) -> set[int]:
        """Return the numbers of those that rules have; `besides`: rules of other sets than this."""
        query = "SELECT DISTINCT position FROM pattern_uses"
        if besides is not None:
            query += " JOIN rules USING (number) WHERE set_id != ?"
        rows = self.connection.execute(query, () if besides is None else (besides,))
        return {position for (position,) in rows}

    def patterns_of(self, number: int) -> set[int]:
        """Return the numbers of those that one rule has."""
        query = "SELECT position FROM pattern_uses WHERE number = ?"
        return {position for (position,) in self.connection.execute(query, (number,))}

    def third_party_patterns(self, besides: int | None = None) -> dict[bytes, set[int]]:
        """Return the numbers of those that rules of each third party have, by signer.

        Args:
            besides: a set whose rules are left out.
        """
        rows = self.connection.execute(
            "SELECT DISTINCT sets.signer, position FROM pattern_uses JOIN rules USING (number)"
            " JOIN sets ON sets.id = rules.set_id WHERE NOT sets.is_own AND sets.id IS NOT ?",
            (besides,),
        )
        found: dict[bytes, set[int]] = {}
        for signer, position in rows:
            found.setdefault(signer, set()).add(position)
        return found

    def files(self) -> list[StoredFile]:
        rows = self.connection.execute("SELECT kind, name, rules FROM files ORDER BY position")
        return [StoredFile(*row) for row in rows]

    def document(self, id_: int) -> StoredDocument:
        row = self.connection.execute(
            "SELECT id, digest, size_bytes, received_s, head FROM documents WHERE id = ?", (id_,)
        ).fetchone()
        return StoredDocument(*row)

    def digests(self) -> set[bytes]:
        """Return those of all documents that are kept."""
        return {digest for (digest,) in self.connection.execute("SELECT digest FROM documents")}

    # What follows is called inside `change`.

    def put_document(self, digest: bytes, size_bytes: int, now_s: float, head: bytes) -> int:
        """Note a document; return its id."""
        self.connection.execute(
            "INSERT OR IGNORE INTO documents (digest, size_bytes, received_s, head)"
            " VALUES (?, ?, ?, ?)",
            (digest, size_bytes, now_s, head),
        )
        row = self.connection.execute("SELECT id FROM documents WHERE digest = ?", (digest,))
        document: int = row.fetchone()[0]
        return document

    def forget_documents(self) -> None:
        """Forget those that no set or rule goes back to."""
        self.connection.execute(
            "DELETE FROM documents WHERE id NOT IN (SELECT document FROM rules)"
            " AND id NOT IN (SELECT document FROM sets)"
        )

    def put_open_services(self, sids: Collection[bytes]) -> None:
        self._set_meta("open_services", json.dumps(sorted(sid.hex() for sid in sids)))

    def take_file_number(self) -> int:
        """Return a number that no file of the table has."""
        number = self._meta("next_file")
        self._set_meta("next_file", number + 1)
        return number

    def put_set(
        self, signer: bytes, name: str, serial: int, is_own: bool, document: int
    ) -> StoredSet:
        """Note that a document of a set was accepted; return the set."""
        self.connection.execute(
            "INSERT INTO sets (signer, name, serial, is_own, document) VALUES (?1, ?2, ?3, ?4, ?5)"
            " ON CONFLICT (signer, name) DO UPDATE SET serial = ?3, is_own = ?4, document = ?5,"
            " is_suspended = 0",
            (signer, name, serial, is_own, document),
        )
        found = self.find_set(signer, name)
        assert found is not None, "it was put a moment ago"
        return found

    def suspend(self, set_id: int, is_suspended: bool) -> None:
        self.connection.execute(
            "UPDATE sets SET is_suspended = ? WHERE id = ?", (is_suspended, set_id)
        )

    @property
    def next_number(self) -> int:
        """The first number that was never used."""
        return self._meta("next_number")

    def take_numbers(self, end: int) -> None:
        """Have all numbers before `end` count as used."""
        self._set_meta("next_number", end)

    def put_rules(self, rules: Sequence[StoredRow]) -> None:
        """Enter rules; `add_counts` is the caller's."""
        whole = len(rules) // _ROWS_AT_ONCE * _ROWS_AT_ONCE
        for start in range(0, whole, _ROWS_AT_ONCE):
            some = rules[start : start + _ROWS_AT_ONCE]
            self.connection.execute(_PUT_RULES, list(chain.from_iterable(some)))
        self.connection.executemany(_PUT_RULE, rules[whole:])

    def put_pattern(self, position: int, definition: str) -> None:
        """Note a pattern, in the place of one that no rule has any more if there was one."""
        self.connection.execute(
            "INSERT OR REPLACE INTO patterns VALUES (?, ?)", (position, definition)
        )

    def put_pattern_uses(self, uses: Iterable[tuple[int, int]]) -> None:
        """Note which rule has which pattern, both by number."""
        self.connection.executemany("INSERT INTO pattern_uses VALUES (?, ?)", uses)

    def forget_patterns(self) -> None:
        """Forget all patterns and their uses, to number them anew."""
        self.connection.execute("DELETE FROM patterns")
        self.connection.execute("DELETE FROM pattern_uses")

    def remove_numbers(self, numbers: Sequence[int]) -> None:
        """Remove rules by their numbers; `add_counts` is the caller's."""
        has_revoked = self.connection.execute("SELECT 1 FROM revoked_rules LIMIT 1").fetchone()
        has_uses = self.connection.execute("SELECT 1 FROM pattern_uses LIMIT 1").fetchone()
        for start in range(0, len(numbers), _NAMES_AT_ONCE):
            some = numbers[start : start + _NAMES_AT_ONCE]
            marks = ",".join("?" * len(some))
            self.connection.execute(f"DELETE FROM rules WHERE number IN ({marks})", some)
            if has_revoked:
                self.connection.execute(
                    f"DELETE FROM revoked_rules WHERE number IN ({marks})", some
                )
            if has_uses:
                self.connection.execute(f"DELETE FROM pattern_uses WHERE number IN ({marks})", some)

    def remove_rules(self, rules: Sequence[StoredRule]) -> None:
        """Remove rules, and count their sets anew."""
        self.remove_numbers([one.number for one in rules])
        counts: dict[int, list[int]] = {}
        for one in rules:
            count = counts.setdefault(one.set_id, [0, 0, 0])
            count[0] -= 1
            count[1] -= one.is_shadow
            count[2] -= one.entries
        for set_id, (fewer, fewer_shadows, fewer_entries) in counts.items():
            self.add_counts(set_id, fewer, fewer_shadows, fewer_entries)

    def ended(self, before_s: float, limit: int) -> list[StoredRule]:
        """Return rules that ended before a time, at most `limit`."""
        rows = self.connection.execute(
            f"SELECT {_RULE} FROM rules WHERE until_s < ? LIMIT ?", (before_s, limit)
        )
        return [_rule(row) for row in rows]

    def add_counts(self, set_id: int, rules: int, shadow_rules: int, entries: int) -> None:
        """Change what a set says about its rules; negative for fewer."""
        self.connection.execute(
            "UPDATE sets SET rules = rules + ?, shadow_rules = shadow_rules + ?,"
            " entries = entries + ? WHERE id = ?",
            (rules, shadow_rules, entries, set_id),
        )

    def put_files(self, files: Sequence[StoredFile]) -> None:
        """Replace the list of the table's files."""
        self.connection.execute("DELETE FROM files")
        self.connection.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?)",
            ((number, one.kind, one.name, one.rules) for number, one in enumerate(files)),
        )

    def note_change(
        self,
        now_s: float,
        what: str,
        *,
        set_id: int | None = None,
        document: int | None = None,
        installed: int = 0,
        withdrawn: int = 0,
        refused: int = 0,
    ) -> int:
        """Begin a version; return its number."""
        version = self.version + 1
        self._set_meta("version", version)
        self.connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (version, now_s, what, set_id, document, installed, withdrawn, refused),
        )
        self.connection.execute(
            "DELETE FROM changes WHERE version <= ?", (version - MAX_CHANGES_COUNT,)
        )
        return version

    def _meta(self, name: str) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        value: int = row[0]
        return value

    def _set_meta(self, name: str, value: int | str) -> None:
        self.connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


_MARKS = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_RULE = f"INSERT INTO rules VALUES {_MARKS}"
_PUT_RULES = f"INSERT INTO rules VALUES {', '.join([_MARKS] * _ROWS_AT_ONCE)}"


def _refuse_a_folder_of_others(folder: Path) -> None:
    """Raises: RuleStoreError."""
    others = sorted(one.name for one in folder.iterdir() if one.name not in _EXPECTED)
    if others:
        raise RuleStoreError(
            f"there are other files in it, such as {others[0]!r}; allowed: a folder of the rules "
            "alone, which is made if it is not there"
        )


_SET = "id, signer, name, serial, is_own, is_suspended, rules, shadow_rules, entries, document"
_RULE = "number, set_id, name, service, is_shadow, until_s, entries, document, item"


def _set(row: tuple[int, bytes, str, int, int, int, int, int, int, int]) -> StoredSet:
    id_, signer, name, serial, is_own, is_suspended, *counts, document = row
    rules, shadow_rules, entries = counts
    flags = bool(is_own), bool(is_suspended)
    return StoredSet(id_, signer, name, serial, *flags, rules, shadow_rules, entries, document)


_rule: Callable[[Any], StoredRule] = StoredRule._make
