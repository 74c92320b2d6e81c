"""A running router as the management API reads it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, ProcessCollector

from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.names import GUID
from packetcloud.router import view
from packetcloud.router.capture_file import CaptureWriter
from packetcloud.router.capture_stream import CaptureResponse
from packetcloud.router.cloudlet_metrics import TableCollector
from packetcloud.router.config import ConfigFile, RouterConfig
from packetcloud.router.core import RouterCore
from packetcloud.router.errors import RulesUnavailableError
from packetcloud.router.explanation import AskedChunk, add_rules, explain_visit, question_of
from packetcloud.router.metrics import RouterCollector
from packetcloud.router.rule_service import RuleService
from packetcloud.router.rules.explain_schemas import (
    ExplainQuestion,
    Explanation,
    RulesReport,
)
from packetcloud.router.rules.metrics import RuleCollector
from packetcloud.router.schemas import (
    CaptureQuery,
    Health,
    HeldChunks,
    Info,
    NeighbourInfo,
    Reload,
    ServiceInfo,
)
from packetcloud.router.table_service import TableService
from packetcloud.router.tap import Wanted


class LiveState:
    """The `api.RouterState` of one router process.

    Args:
        seconds: the monotonic clock that the core is driven with.
        wall_s: seconds since 1970.
    """

    def __init__(
        self,
        core: RouterCore,
        node: HopNode,
        config: RouterConfig,
        seconds: Callable[[], float],
        rules: RuleService,
        wall_s: Callable[[], float],
        table: TableService,
    ) -> None:
        self.configuration = config
        self.rules = rules
        self.table = table
        self.last_reload: Reload | None = None
        self.address: tuple[str, int] | None = None
        """Where the hop node listens; None: it does not."""
        self._core = core
        self._node = node
        self._seconds = seconds
        self._wall_s = wall_s
        self._started_at = seconds()
        self._captures_count = 0
        self.registry = CollectorRegistry()
        self.registry.register(RouterCollector(core, self._hop_stats, self._hop_dropped))
        self.registry.register(RuleCollector(rules.figures))
        self.registry.register(TableCollector(core, table.figures))
        ProcessCollector(registry=self.registry)

    def health(self) -> Health:
        balance = self._core.book.conservation()["balance"]
        if balance:
            return Health(status="failing", detail=f"conservation sum is off by {balance} chunks")
        return Health(status="ok")

    def readiness(self) -> Health:
        if self._core.is_draining:
            return Health(status="failing", detail="draining")
        if self.address is None:
            return Health(status="failing", detail="not listening")
        return Health(status="ok")

    def info(self) -> Info:
        lanes = self._node.lanes
        return view.info(
            self._core,
            version=_installed_version(),
            listen=format_address(self.address),
            uptime_s=self._seconds() - self._started_at,
            hop=self._hop_stats(),
            lanes=None if lanes is None else str(lanes),
            reload=self.last_reload,
        )

    def neighbours(self) -> list[NeighbourInfo]:
        return view.neighbours(self._core)

    def services(self, has_buckets: bool = False) -> list[ServiceInfo]:
        return view.services(self._core, has_buckets)

    def held_chunks(self, limit: int) -> HeldChunks:
        return view.held_chunks(self._core, self._seconds(), limit)

    def config(self) -> ConfigFile:
        return self.configuration.file

    def capture(self, query: CaptureQuery) -> CaptureResponse:
        """Begin a capture.

        Raises:
            TooManyCapturesError: as many as there may be run already.
        """
        wanted = Wanted(
            frozenset(query.point),
            query.guid,
            query.source,
            query.destination,
            query.sid,
            query.rule,
            query.sample,
            query.snap,
            query.count,
        )
        settings = self._core.settings
        self._captures_count += 1
        session = int.from_bytes(settings.guid.value[:8], "big") ^ self._captures_count
        writer = CaptureWriter(settings.name, self.address, session)
        return CaptureResponse(self._core.tap, wanted, writer, query.seconds)

    async def explain(self, question: ExplainQuestion) -> Explanation:
        """Say what would become of a chunk, and why."""
        payload = None
        if question.payload is not None:
            payload = base64.b64decode(question.payload)
        asked = AskedChunk(bytes.fromhex(question.header), GUID.from_hex(question.ingress), payload)
        told = explain_visit(self._core, asked, self._seconds())
        if self.rules.is_on and told.chunk:
            try:
                found = await self.rules.explain(
                    question_of(asked), self._wall_s(), has_payload=payload is not None
                )
            except RulesUnavailableError as error:
                told.notes.append(f"the rules are not explained: {error}")
            else:
                add_rules(told, RulesReport(**found["report"]), found["winners"])
        return told

    def _hop_stats(self) -> dict[str, int]:
        return self._node.stats() if self.address is not None else {}

    def _hop_dropped(self) -> dict[str, int]:
        return self._node.dropped if self.address is not None else {}


def format_address(address: tuple[str, int] | None) -> str:
    """Return HOST:PORT, an IPv6 host in brackets."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _installed_version() -> str:
    try:
        return version("packetcloud")
    except PackageNotFoundError:
        return "source tree"
