"""The paths of the management API that are about the cloudlet's table.

Source: docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from packetcloud.chunk.names import SID
from packetcloud.router.cloudlet_schemas import (
    IdleAnswer,
    TableRefusal,
    TableReport,
    Update,
    UpdateAnswer,
)
from packetcloud.router.cloudlet_table import TableRefusedError
from packetcloud.router.errors import TableUnavailableError

MAX_UPDATE_BYTES = 1 << 20
"""A thousand VIs are a tenth of it; more would hold up the router's loop."""
MAX_IDLE_WAIT_S = 60.0
_SCHEMAS = "#/components/schemas/"
_UPDATE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Update"}}},
    }
}


class TableAccess(Protocol):
    """What these paths ask of a router."""

    def authorise(self, authorization: str | None) -> None: ...

    async def put(self, update: Update) -> UpdateAnswer: ...

    def report(self) -> TableReport: ...

    async def idle(self, sid: SID, instance: int, timeout_s: float) -> IdleAnswer: ...

    def refusal(self, reason: str, detail: str) -> TableRefusal: ...


def add_table_paths(app: FastAPI, access: Callable[[], TableAccess]) -> None:
    """Add the paths."""

    @app.put(
        "/v1/cloudlet/table",
        openapi_extra=_UPDATE,
        responses={status: {"model": TableRefusal} for status in (400, 401, 409, 413, 422, 503)},
    )
    async def put_table(request: Request) -> UpdateAnswer:
        """Take in an update of the services that the cloudlet controller owns.

        The answer comes when what was accepted is in force and lasts. 409: refused as a whole.
        """
        access().authorise(request.headers.get("authorization"))
        return await access().put(_update_in(await _body_of(request)))

    @app.get("/v1/cloudlet/table", responses={503: {"model": TableRefusal}})
    async def table() -> TableReport:
        """Return the table in force, and how its services and VIs are."""
        return access().report()

    @app.get(
        "/v1/cloudlet/table/idle",
        responses={status: {"model": TableRefusal} for status in (404, 429, 503)},
    )
    async def idle(
        sid: Annotated[str, Query(pattern="^[0-9a-fA-F]{40}$")],
        instance: Annotated[int, Query(ge=0, le=0xFFFF_FFFF)],
        timeout_s: Annotated[float, Query(ge=0, le=MAX_IDLE_WAIT_S)] = 10.0,
    ) -> IdleAnswer:
        """Answer as soon as a held or draining VI has no task left, or serves, or time is over."""
        return await access().idle(SID.from_hex(sid), instance, timeout_s)

    _describe_update(app)

    async def refused(_request: Request, error: Any) -> JSONResponse:
        return _answer(409, error.reason.value, str(error))

    async def unavailable(_request: Request, error: Any) -> JSONResponse:
        return _answer(error.status, _REASONS[error.status], str(error))

    def _answer(status: int, reason: str, detail: str) -> JSONResponse:
        return JSONResponse(access().refusal(reason, detail).model_dump(), status)

    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[JSONResponse]]] = {
        TableRefusedError: refused,
        TableUnavailableError: unavailable,
    }
    for kind, handler in handlers.items():
        app.exception_handler(kind)(handler)


_REASONS = {
    400: "cut_off",
    401: "not_authorised",
    404: "not_listed",
    413: "too_large",
    422: "malformed",
    429: "too_many_waiters",
    503: "unavailable",
}


def _describe_update(app: FastAPI) -> None:
    """Have the description name what is read without FastAPI, so that its size is bounded."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        description = plain()
        schema = Update.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
        inner = schema.pop("$defs", {})
        description["components"]["schemas"] |= {**inner, "Update": schema}
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it


async def _body_of(request: Request) -> bytes:
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_UPDATE_BYTES:
                text = f"an update of more than {MAX_UPDATE_BYTES} bytes; send fewer items"
                raise TableUnavailableError(413, text)
    except ClientDisconnect:
        raise TableUnavailableError(400, "the client went away before the end") from None
    return bytes(data)


def _update_in(data: bytes) -> Update:
    try:
        return Update.model_validate_json(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        where = ".".join(map(str, problems[0]["loc"])) or "the body"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        text = f"{where} = {str(problems[0]['input'])[:200]}: {problems[0]['msg']}{more}"
        raise TableUnavailableError(422, text) from None
