"""A session that rested: how fast its bodies leave, and what it learns of the path by that."""

from __future__ import annotations

import pytest

from packetcloud.chunk.hop.congestion import Congestion
from packetcloud.chunk.hop.session import Session
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, Link

BODY = bytes(1 << 20)
SLOW_START_S = 0.12
"""The handshake's round trip while the machine was busy starting programs."""


def begun_slowly() -> tuple[Link, Session]:
    """A session on a short path whose handshake took long."""
    link = Link(delay_s=SLOW_START_S / 2, datagram_bytes=65_507)
    session = link.connect()
    link.pass_time(1.0)
    link.delay_s = 0.0002
    return link, session


def body_s(link: Link, session: Session) -> float:
    """Let a second pass, send a body, and return how long it took."""
    link.pass_time(1.0)
    began, count = link.now, len(link.uppers[A].settled)
    session.send(BodyKind.TASK, b"", BODY, count)
    link.run_until_settled(count + 1)
    return link.now - began


@pytest.mark.parametrize("is_mended", [True, False])
def test_a_pace_at_which_each_burst_is_answered_before_the_next_leaves_is_outgrown(
    is_mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 MiB took half a second for ever: a round that began anew with each burst never ended.

    The burden of proof: when the pace is that of the last round that ended, it stays so.
    """
    if not is_mended:
        restart = Congestion.on_restart

        def as_before(self: Congestion, next_burst: int, now: float) -> None:
            pace = self.pace_bytes_per_s
            restart(self, next_burst, now)
            self.pace_bytes_per_s = pace

        monkeypatch.setattr(Congestion, "on_restart", as_before)
    link, session = begun_slowly()
    assert body_s(link, session) > 0.1
    for _ in range(10):
        last_s = body_s(link, session)
    assert (last_s < 0.01) is is_mended
