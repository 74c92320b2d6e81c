"""The management API: health, metrics, tables and rules of one router, over HTTP.

It has no authentication: it listens on a loopback address unless the operator says otherwise. What
it changes are rules, and those bring their proof themselves (`rules.api`).
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Annotated, Protocol

from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from packetcloud.router.capture_stream import MEDIA_TYPE, CaptureResponse
from packetcloud.router.cloudlet_api import TableAccess, add_table_paths
from packetcloud.router.config import ConfigFile
from packetcloud.router.errors import TooManyCapturesError
from packetcloud.router.rules.api import RuleAccess, add_rule_paths
from packetcloud.router.rules.explain_schemas import ExplainQuestion, Explanation
from packetcloud.router.schemas import (
    CaptureQuery,
    Health,
    HeldChunks,
    Info,
    NeighbourInfo,
    ServiceInfo,
)

API_VERSION = "1"
MAX_HELD_SAMPLE_COUNT = 1000


class RouterState(Protocol):
    """What the API reads from a running router."""

    registry: CollectorRegistry

    @property
    def rules(self) -> RuleAccess: ...

    @property
    def table(self) -> TableAccess: ...

    def health(self) -> Health: ...

    def readiness(self) -> Health: ...

    def info(self) -> Info: ...

    def neighbours(self) -> list[NeighbourInfo]: ...

    def services(self, has_buckets: bool) -> list[ServiceInfo]: ...

    def held_chunks(self, limit: int) -> HeldChunks: ...

    def config(self) -> ConfigFile: ...

    def capture(self, query: CaptureQuery) -> CaptureResponse: ...

    async def explain(self, question: ExplainQuestion) -> Explanation: ...


def make_app(state: RouterState) -> FastAPI:
    """Return the API of the router whose state is `state`."""
    app = FastAPI(
        title="PacketCloud router",
        version=API_VERSION,
        description="Health, metrics, tables and rules of one router.",
        docs_url=None,
        redoc_url=None,
    )

    # Coroutines although nothing waits: FastAPI would run plain functions in worker threads, and
    # the core belongs to the loop's thread.

    @app.get("/healthz", responses={500: {"model": Health}})
    async def healthz(response: Response) -> Health:
        """Say whether the router works: it answers, and the conservation sum holds."""
        return _with_status(response, state.health(), 500)

    @app.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """Say whether chunks may be sent here: it listens and is not draining."""
        return _with_status(response, state.readiness(), 503)

    @app.get("/info")
    async def info() -> Info:
        """Return who the router is, and what became of every chunk."""
        return state.info()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(state.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/neighbours")
    async def neighbours() -> list[NeighbourInfo]:
        """List attached hosts, routers and VIs, and known ones that are away."""
        return state.neighbours()

    @app.get("/services")
    async def services(
        buckets: Annotated[bool, Query(description="Durations with all of their buckets.")] = False,
    ) -> list[ServiceInfo]:
        """List the services with their VIs, verdicts and delay penalty."""
        return state.services(buckets)

    @app.get("/chunks/held")
    async def held_chunks(
        limit: Annotated[int, Query(ge=1, le=MAX_HELD_SAMPLE_COUNT)] = 100,
    ) -> HeldChunks:
        """Return some of the chunks in custody, those with the least time left at the top."""
        return state.held_chunks(limit)

    @app.get(
        "/chunks/capture",
        response_class=StreamingResponse,
        responses={200: {"content": {MEDIA_TYPE: {}}}, 503: {"description": "Too many captures"}},
    )
    async def capture(query: Annotated[CaptureQuery, Query()]) -> CaptureResponse:
        """Return looks at chunks as they pass, as pcapng, until the client goes away."""
        try:
            return state.capture(query)
        except TooManyCapturesError as error:
            raise HTTPException(503, str(error)) from None

    @app.post("/v1/rules/explain")
    async def explain(question: ExplainQuestion) -> Explanation:
        """Say what would become of a chunk, and why; nothing changes by asking."""
        return await state.explain(question)

    @app.get("/config")
    async def config() -> ConfigFile:
        """Return the config in force; it holds no secrets, only the path of the key file."""
        return state.config()

    add_rule_paths(app, lambda: state.rules)
    add_table_paths(app, lambda: state.table)
    _make_ready(app)
    return app


def _make_ready(app: FastAPI) -> None:
    """Do now what would be done at the first request, on the loop that chunks wait for.

    FastAPI puts its layers together then, and looks for the source of each path's function to name
    it in errors, which reads files and takes 3 to 6 ms. Files and expressions are kept by the
    standard library when they were asked for once.
    """
    app.middleware_stack = app.build_middleware_stack()
    for route in app.routes:
        if isinstance(route, APIRoute):
            with contextlib.suppress(OSError):  # installed without sources: it finds none either
                inspect.getsourcelines(route.endpoint)


def _with_status(response: Response, health: Health, failing_status: int) -> Health:
    if health.status != "ok":
        response.status_code = failing_status
    return health
