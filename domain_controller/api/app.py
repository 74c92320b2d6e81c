"""The app: endpoints, problems, the gate before them; and the app that tells how it is.

`make_app` is what clients reach, every request signed. `make_watch_app` is the operator's own:
metrics and readiness, on another address.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api import port
from packetcloud.domain_controller.api.endpoints import PROBLEMS, Surroundings, TheCaller
from packetcloud.domain_controller.api.feed import EventStream, Feed
from packetcloud.domain_controller.api.fields import EventNumber
from packetcloud.domain_controller.api.gate import Gate, OpenChannel, unsigned
from packetcloud.domain_controller.api.money import money_routes
from packetcloud.domain_controller.api.port import DomainState
from packetcloud.domain_controller.api.problem_info import ProblemInfo
from packetcloud.domain_controller.api.problems import (
    RETRY_AFTER_S,
    ProblemError,
    answer,
    install_problems,
)
from packetcloud.domain_controller.api.registry import registry_routes
from packetcloud.domain_controller.api.reservations import reservation_routes
from packetcloud.domain_controller.api.signatures import Refusal, SignatureRefusedError
from packetcloud.domain_controller.errors import (
    InvalidValueError,
    LifeError,
    OwnershipError,
    RuleDocumentError,
)
from packetcloud.domain_controller.state.errors import (
    ConflictError,
    KeyReusedError,
    NotDoneError,
    OutcomeUnknownError,
    ReplayedError,
)

API_VERSION = "1"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events as they happen (text/event-stream); `data` is an EventInfo in JSON",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@dataclass(frozen=True, slots=True)
class DomainApp:
    """The app with what metrics look at."""

    app: FastAPI
    gate: Gate
    """What is served: the app behind its checks."""
    feed: Feed


def make_app(
    state: DomainState,
    *,
    domain: str,
    version: str,
    authorities: Container[str],
    clock_ms: Callable[[], int],
    max_requests: int,
    max_streams: int,
    channel: OpenChannel | None = None,
) -> DomainApp:
    """Return the API of a domain controller.

    Args:
        authorities: under which it is reached; see `check_head`.
        clock_ms: milliseconds since 1970.
        channel: serves cloudlets' channels; None: there are none.
    """
    around = Surroundings(state, domain, version, clock_ms)
    feed = Feed(state, max_streams)
    app = FastAPI(
        title="PacketCloud domain controller",
        version=API_VERSION,
        description="Tenants, cloudlets, services, rules, reservations and bills of one domain. "
        "Every request but /healthz is signed: docs/reference/domain-requests.md.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    install_problems(app)
    _install_errors(app)
    # Not `include_router`: it asks a router about a path, then again which of its routes it was.
    for router in (
        reservation_routes(around, feed),
        _own_routes(around),
        registry_routes(around),
        money_routes(around),
        _event_routes(around, feed),
    ):
        app.router.routes.extend(router.routes)
    app.openapi = functools.partial(_description, app)  # type: ignore[method-assign]  # as FastAPI says
    gate = Gate(
        app,
        most=max_requests,
        signers=state,
        authorities=authorities,
        clock_ms=clock_ms,
        channel=channel,
    )
    return DomainApp(app, gate, feed)


def make_watch_app(is_ready: Callable[[], str | None], registry: CollectorRegistry) -> FastAPI:
    """Return the app for whoever watches the controller.

    Args:
        is_ready: says what is wrong; None: nothing.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    install_problems(app)

    @app.get("/healthz")
    async def healthz() -> say.Health:
        return say.Health(status="ok")

    @app.get("/readyz")
    def readyz(response: Response) -> say.Health:
        wrong = is_ready()
        if wrong is None:
            return say.Health(status="ok")
        response.status_code = 503
        return say.Health(status="failing", detail=wrong)

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _description(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description, with the schema of problems that all endpoints point to."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    problem = ProblemInfo.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= problem.pop("$defs") | {ProblemInfo.__name__: problem}
    return document


def _own_routes(around: Surroundings) -> APIRouter:
    router = APIRouter(tags=["controller"])

    @router.get("/healthz")
    async def healthz() -> say.Health:
        """Say whether the controller works: it answers. The only thing that needs no signature."""
        return say.Health(status="ok")

    @router.get("/v1/status", responses=PROBLEMS)
    async def status(caller: TheCaller) -> say.StatusInfo:
        """Return how the controller is, and who asks."""
        count, connected_count = await around.read(around.state.counts, around.clock_ms())
        return say.StatusInfo(
            domain=around.domain,
            version=around.version,
            now_ms=around.clock_ms(),
            caller=caller.name,
            role=caller.principal.role.value,
            cloudlets=count,
            cloudlets_connected=connected_count,
        )

    return router


def _event_routes(around: Surroundings, feed: Feed) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["controller"])
    state = around.state

    @router.get("/events", response_class=StreamingResponse, responses=_EVENTS)
    async def events(
        caller: TheCaller,
        last_event_id: Annotated[EventNumber | None, Header()] = None,
        after: Annotated[EventNumber | None, Query()] = None,
    ) -> EventStream:
        """Stream events: those after `Last-Event-ID`, or after `after`; else from now on."""
        start = last_event_id if last_event_id is not None else after
        last = await around.read(state.last_event)
        if start is None:
            start = last
        elif start > last:  # nothing would come until the numbers are there again
            allowed = f"at most {last}, the last event; of a database that was restored read anew"
            raise InvalidValueError("after", str(start), allowed)
        key_id = caller.proof.key_id
        stream = feed.stream(
            caller.owner, start, lambda: state.signer(key_id, around.clock_ms()) is not None
        )
        feed.open_stream(caller.name)
        return EventStream(stream, lambda: feed.close_stream(caller.name))

    return router


def _install_errors(app: FastAPI) -> None:
    """Say of each error of the rooms below what it is to a client."""

    def as_problem(kind: type[Exception], make: Callable[..., ProblemError]) -> None:
        async def handle(_request: object, error: Exception) -> Response:
            return answer(make(error))

        app.add_exception_handler(kind, handle)

    def plain(status: int, word: str) -> Callable[[Exception], ProblemError]:
        return lambda error: ProblemError(status, word, str(error))

    as_problem(InvalidValueError, plain(422, "not-possible"))
    as_problem(RuleDocumentError, plain(422, "not-possible"))
    as_problem(OwnershipError, plain(403, "not-proven"))
    as_problem(LifeError, plain(409, "state"))
    as_problem(port.AbsentError, plain(404, "not-found"))
    as_problem(ConflictError, plain(409, "conflict"))
    as_problem(KeyReusedError, plain(409, "key-reused"))
    as_problem(
        OutcomeUnknownError,
        lambda error: ProblemError(
            503, "outcome-unknown", str(error), headers={"Retry-After": str(RETRY_AFTER_S)}
        ),
    )
    as_problem(
        ReplayedError,
        lambda error: unsigned(SignatureRefusedError(Refusal.REPLAYED, str(error))),
    )
    as_problem(
        NotDoneError,
        lambda error: ProblemError(
            503, "busy", str(error), headers={"Retry-After": str(error.retry_after_s)}
        ),
    )
