"""Databases for tests of the domain controller's state: SQLite in a folder, private PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from packetcloud.testbed.private_postgresql import PrivatePostgresql

KINDS = ("sqlite", "postgresql")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind with nothing in it."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server: PrivatePostgresql = request.getfixturevalue("postgresql")
    return server.make_database(request.getfixturevalue("domain_template"))


def sqlite_url(folder: Path) -> str:
    """Return the URL of a file in a folder."""
    return f"sqlite:///{folder}/domain.sqlite3"
