"""What tests of several modules share: a server is started once for all of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from packetcloud.domain_controller.state.database import Database
from packetcloud.testbed.private_postgresql import (
    PrivatePostgresql,
    lacking_for_postgresql,
    quick_parent,
)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivatePostgresql]:
    """A server for all tests of a worker that only need a database of it."""
    if (reason := lacking_for_postgresql()) is not None:
        pytest.skip(reason)
    with PrivatePostgresql(quick_parent()) as server:
        yield server


@pytest.fixture(scope="session")
def domain_template(postgresql: PrivatePostgresql) -> str:
    """The name of a database with a domain controller's tables, to be copied: that is faster."""
    database = Database(postgresql.make_database())
    database.close()
    assert database.url.database is not None
    return database.url.database
