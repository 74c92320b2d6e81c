"""The reactor that a command runs on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from packetcloud.host.reactor import Reactor
from packetcloud.host.session import run_session


@pytest.mark.parametrize("fails", [False, True])
def test_a_session_gives_its_loop_back(fails: bool) -> None:
    """Left to the collector, a loop may find its sockets gone, and prints a traceback."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main(reactor: Reactor) -> str:
        nothing: Deferred[Any] = succeed(None)
        await nothing
        loops.append(asyncio.get_running_loop())
        if fails:
            raise LookupError("nobody there")
        return "done"

    if fails:
        with pytest.raises(LookupError, match="nobody there"):
            run_session(main)
    else:
        assert run_session(main) == "done"
    assert loops[0].is_closed()
