"""All channels of this controller: which cloudlets have something to be told is asked for all."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from packetcloud.domain_controller.channel.port import ChannelState
from packetcloud.domain_controller.channel.session import Session
from packetcloud.domain_controller.core.installations import RulesState
from packetcloud.domain_controller.core.reconciliation import Kind
from packetcloud.domain_controller.state.errors import StateError

LOOK_EVERY_S = 0.25
"""So late a directive may leave; one query for all cloudlets."""
_log = logging.getLogger("packetcloud.domain")


@dataclass(slots=True, eq=False)
class Channel:
    """One open channel."""

    session: Session
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """There is something to be told."""
    replaced: asyncio.Event = field(default_factory=asyncio.Event)
    """The cloudlet opened another one."""


class Hub:
    """The channels that are open. Used on one loop."""

    def __init__(
        self,
        state: ChannelState,
        most: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.most = most
        self.channels: dict[str, Channel] = {}
        """By cloudlet."""
        self.opened_count = 0
        self._state = state
        self._sleep = sleep
        self._past: dict[str, Counter[str]] = {
            name: Counter() for name in ("received", "sent", "dropped", "taken")
        }

    @property
    def is_full(self) -> bool:
        """Tell whether no cloudlet may come that is not here."""
        return len(self.channels) >= self.most

    def add(self, session: Session) -> Channel:
        """Take a channel; one that the cloudlet had before ends."""
        former = self.channels.get(session.cloudlet)
        if former is not None:
            former.replaced.set()
            self._keep_counts(former)
        channel = Channel(session)
        channel.wake.set()
        self.channels[session.cloudlet] = channel
        self.opened_count += 1
        return channel

    def remove(self, channel: Channel) -> None:
        """Forget a channel that ended."""
        if self.channels.get(channel.session.cloudlet) is channel:
            del self.channels[channel.session.cloudlet]
            self._keep_counts(channel)

    async def run(self) -> None:
        """Wake channels that have something to tell, until cancelled."""
        while True:
            await self._sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except StateError as error:
                _log.warning("channels: %s", error)

    async def look(self) -> None:
        """Wake channels that have something to tell."""
        if not self.channels:
            return
        before_ms = min(one.session.sent_before_ms() for one in self.channels.values())
        for cloudlet in await self._state.waiting(sorted(self.channels), before_ms):
            channel = self.channels.get(cloudlet)
            if channel is not None:
                channel.wake.set()

    def counts(self, name: str) -> Counter[str]:
        """Return what all channels counted since the start: `received`, `dropped`, ..."""
        total = Counter(self._past[name])
        for channel in self.channels.values():
            total.update(getattr(channel.session, name))
        return total

    def drift(self) -> dict[Kind, int]:
        """Return how many differences last, by kind."""
        counts = dict.fromkeys(Kind, 0)
        for channel in self.channels.values():
            for kind, count in channel.session.drift.counts.items():
                counts[kind] += count
        return counts

    def rules(self) -> dict[RulesState, int]:
        """Return how many sets of rules are how far at the cloudlets whose channel is here."""
        counts = dict.fromkeys(RulesState, 0)
        for channel in self.channels.values():
            for state, count in channel.session.rules.items():
                counts[state] += count
        return counts

    def _keep_counts(self, channel: Channel) -> None:
        for name, counts in self._past.items():
            counts.update(getattr(channel.session, name))
