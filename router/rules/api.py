"""The paths of the management API that are about rules.

Whoever reaches the API may install rules: what is installed is what a document proves, and not who
brought it. Source: docs/reference/router.md, "Rules"; docs/security.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from packetcloud.router.errors import (
    AmbiguousRuleError,
    RuleNotFoundError,
    RulesUnavailableError,
    RuleUploadError,
)
from packetcloud.router.rules.schemas import (
    Installation,
    Refusal,
    RevocationTaken,
    RuleDetail,
    RulePage,
    RuleSetPage,
)

MAX_PAGE_COUNT = 100
"""Rules or sets in an answer: about a millisecond of the router's loop."""
_Hex = Annotated[str | None, Query(pattern="^[0-9A-Fa-f]{40}$")]
_Text = Annotated[str | None, Query(max_length=128)]
_RuleCursor = Annotated[str | None, Query(pattern=r'^\[[0-9]{1,18}, "[A-Za-z0-9._:/-]{0,128}"\]$')]
_SetCursor = Annotated[str | None, Query(pattern="^[0-9]{1,18}$")]
"""As the page before gave it: nobody writes one."""
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_COUNT)]
_DOCUMENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a signed document of rules, as `packetcloud rule sign` makes it",
        "content": {"application/octet-stream": {"schema": {"type": "string"}}},
    }
}
_REVOCATION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a signed revocation, as `packetcloud rule revoke` makes it",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


class RuleAccess(Protocol):
    """What these paths ask of a router."""

    async def install(self, pieces: AsyncIterator[bytes], *, is_dry_run: bool) -> Installation: ...

    async def revoke(self, pieces: AsyncIterator[bytes]) -> RevocationTaken: ...

    async def list_rules(
        self, filters: dict[str, str], cursor: str | None, limit: int
    ) -> RulePage: ...

    async def find_rule(self, set_name: str, name: str, signer: str | None) -> RuleDetail: ...

    async def list_sets(self, cursor: str | None, limit: int) -> RuleSetPage: ...


class DocumentRefusedError(Exception):
    """A whole document is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def add_rule_paths(app: FastAPI, access: Callable[[], RuleAccess]) -> None:
    """Add the paths.

    Args:
        access: returns what they ask. Raises: RulesUnavailableError.
    """

    @app.post(
        "/v1/rules",
        openapi_extra=_DOCUMENT,
        responses={status: {"model": Refusal} for status in (400, 408, 413, 422, 429, 503)},
    )
    async def install(request: Request, dry_run: bool = False) -> Installation:
        """Install a signed document; with `dry_run`, say what would become of it.

        The answer comes when what was accepted is in force and lasts. Refused as a whole: 422.
        """
        return await access().install(_pieces(request), is_dry_run=dry_run)

    @app.post(
        "/v1/rules/revocations",
        openapi_extra=_REVOCATION,
        responses={status: {"model": Refusal} for status in (400, 408, 413, 422, 429, 503)},
    )
    async def revoke(request: Request) -> RevocationTaken:
        """Take a grant back; the answer comes when rules that need it are out of force.

        Whoever signed the grant signs that. Bringing it twice changes nothing. Refused: 422.
        """
        return await access().revoke(_pieces(request))

    @app.get("/v1/rules", responses={503: {"model": Refusal}})
    async def rules(
        set: _Text = None,
        name: _Text = None,
        signer: _Hex = None,
        service: _Hex = None,
        destination: _Hex = None,
        cursor: _RuleCursor = None,
        limit: _Limit = 100,
    ) -> RulePage:
        """List rules by set and name; `name` is how their names begin."""
        given = {
            "set": set,
            "name": name,
            "signer": signer,
            "service": service,
            "destination": destination,
        }
        filters = {key: value for key, value in given.items() if value is not None}
        return await access().list_rules(filters, cursor, limit)

    @app.get("/v1/rules/sets", responses={503: {"model": Refusal}})
    async def sets(cursor: _SetCursor = None, limit: _Limit = 100) -> RuleSetPage:
        """List the sets, and say how much is in force."""
        return await access().list_sets(cursor, limit)

    @app.get("/v1/rules/rule", responses={status: {"model": Refusal} for status in (404, 409, 503)})
    async def rule(
        set: Annotated[str, Query(max_length=128)],
        name: Annotated[str, Query(max_length=128)],
        signer: _Hex = None,
    ) -> RuleDetail:
        """Return one rule with its hits and its evidence; `signer` where several have the set."""
        return await access().find_rule(set, name, signer)

    _add_errors(app)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise RuleUploadError(400, "the client went away before the end of the document") from None


def _add_errors(app: FastAPI) -> None:
    def answering(
        status: Callable[[Any], int], reason: str
    ) -> Callable[[Request, Any], Awaitable[JSONResponse]]:
        async def answer(_request: Request, error: Any) -> JSONResponse:
            refusal = Refusal(reason=reason, detail=str(error))
            return JSONResponse(refusal.model_dump(), status(error))

        return answer

    async def refused(_request: Request, error: Any) -> JSONResponse:
        return JSONResponse(error.refusal.model_dump(), 422)

    app.exception_handler(DocumentRefusedError)(refused)
    app.exception_handler(RulesUnavailableError)(answering(lambda _: 503, "unavailable"))
    app.exception_handler(RuleNotFoundError)(answering(lambda _: 404, "not found"))
    app.exception_handler(AmbiguousRuleError)(answering(lambda _: 409, "ambiguous"))
    app.exception_handler(RuleUploadError)(answering(lambda error: error.status, "upload"))
