"""A virtual instance on a simulated machine: a `ServiceRuntime` that runs a small service."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from packetcloud.chunk.hop.api import HopReceiver, Role
from packetcloud.chunk.names import GUID, SID
from packetcloud.services.launch import ExecutionMode, LaunchSpec
from packetcloud.services.runtime import ServiceRuntime
from packetcloud.services.sdk import NetworkService
from packetcloud.testbed.simulation.machine import Address
from packetcloud.testbed.simulation.program import Program, Site, identity_of
from packetcloud.testbed.simulation.services import service_of


class ServiceProgram(Program):
    """A virtual instance of a service: machines of one service share its key."""

    role = Role.SERVICE

    def __init__(
        self,
        site: Site,
        router: Address,
        service: str,
    ) -> None:
        super().__init__(site)
        self.identity = identity_of(service)
        self.runtime: ServiceRuntime | None = None
        self.make_service: Callable[[], NetworkService] = functools.partial(service_of, service)
        self._router = router
        self._service = service

    def start(self) -> None:
        process = self.machine.start()
        spec = LaunchSpec(self._service, "1", "", "", *self._router, execution=ExecutionMode.INLINE)

        def make_node(upper: HopReceiver) -> Any:
            def admit(guid: GUID, role: Role, instance: int) -> str:
                return "a service takes no neighbours"

            return self.make_node(process, upper, admit)

        self.runtime = ServiceRuntime(
            process.reactor,
            spec,
            self.make_service(),
            SID(self.identity.sid.value),
            make_node,
            self.machine.rng.randbytes,
            nanoseconds=lambda: int(self.machine.monotonic_s() * 1e9),
        )
        self.runtime.start()

    def killed(self) -> None:
        super().killed()
        self.runtime = None
