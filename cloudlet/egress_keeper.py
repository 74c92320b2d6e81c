"""Lets VIs use the bridge to the IP network as they come and go, and reads what they tried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from packetcloud.cloudlet.admission import admitted
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.egress_counts import EgressCount, EgressCounts
from packetcloud.cloudlet.egress_filters import EgressElements
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.filters import NetworkPlan

COUNT_INTERVAL_S = 2.0
_log = logging.getLogger("packetcloud.cloudlet")


class Tables(Protocol):
    """The tables of this machine; see `NodeNetwork`."""

    plan: NetworkPlan

    def admit(self, elements: EgressElements) -> None: ...

    def egress_counts(self) -> EgressCounts: ...


class EgressKeeper:
    """Between a controller and the tables of this machine."""

    def __init__(self, network: Tables, controller: Controller) -> None:
        self._network = network
        self._controller = controller
        self._done: EgressElements | None = None
        """Who was let in last; None: nobody knows."""
        self._counts = EgressCounts()

    async def run(self) -> None:
        """Go on until it is cancelled."""
        loop = asyncio.get_running_loop()
        count_at = loop.time()
        while True:
            change = self._controller.change  # before the look: none is missed
            await self._admit()
            if loop.time() >= count_at:
                await self._count()
                count_at = loop.time() + COUNT_INTERVAL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, count_at - loop.time())):
                    await change.wait()

    async def _admit(self) -> None:
        plan = self._network.plan.egress
        if plan is None:
            return
        wanted = admitted(self._controller.core.saved.vis.values(), plan)
        if wanted == self._done:
            return
        try:
            await asyncio.to_thread(self._network.admit, wanted)
            self._done = wanted
            self._controller.listening = wanted.listeners
        except (CloudletError, OSError) as error:
            self._done = None  # tried again at the next turn
            _log.error("egress of VIs: %s", error)

    async def _count(self) -> None:
        """Tell what was denied; a VI has the number of its address to itself while it is there."""
        plan = self._network.plan.egress
        if plan is None or not plan.policies:
            return
        try:
            counts = await asyncio.to_thread(self._network.egress_counts)
        except (CloudletError, OSError) as error:
            _log.error("counts of the egress of VIs: %s", error)
            return
        news = {
            number: count.since(self._counts.of.get(number, EgressCount()))
            for number, count in counts.of.items()
        }
        self._counts = counts
        for vi in list(self._controller.core.saved.vis.values()):
            found = news.get(vi.address)
            if found is None or found == EgressCount():
                continue
            self._controller.note_egress(vi, found)
            if found.denied_packets:
                self._controller.tell(saw.EgressDenied(vi.number, found.denied_packets))
