"""Problem details (RFC 9457): every answer that is not what was asked for.

Source: docs/reference/domain-requests.md, "Problems".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from packetcloud.domain_controller.api.problem_info import FieldError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:packetcloud:problem:"
MAX_ERRORS_COUNT = 16
"""Mistakes named in one answer: a request can hold thousands."""
MAX_SHOWN_CHARS = 200
RETRY_AFTER_S = 1
_log = logging.getLogger("packetcloud.domain")


class ProblemError(Exception):
    """A request is not done; the answer says why."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def answer(problem: ProblemError) -> JSONResponse:
    """Return the answer that tells of a problem."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.kind,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        document["errors"] = [one.model_dump() for one in problem.errors]
    return JSONResponse(document, problem.status, problem.headers, MEDIA_TYPE)


def busy(detail: str) -> ProblemError:
    """Return the problem of a request that is to come again later."""
    return ProblemError(503, "busy", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def install_problems(app: FastAPI) -> None:
    """Make every error of `app` a problem."""

    @app.exception_handler(ProblemError)
    async def ours(_request: Request, problem: ProblemError) -> JSONResponse:
        return answer(problem)

    @app.exception_handler(RequestValidationError)
    async def not_allowed(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        errors = [_field_error(one) for one in found[:MAX_ERRORS_COUNT]]
        first = errors[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        detail = f"{first.pointer}: {first.detail}{more}"
        return answer(ProblemError(400, "invalid", detail, errors=errors))

    @app.exception_handler(HTTPException)
    async def of_the_framework(_request: Request, error: HTTPException) -> JSONResponse:
        kind = HTTPStatus(error.status_code).name.lower().replace("_", "-")
        return answer(
            ProblemError(error.status_code, kind, str(error.detail), headers=error.headers)
        )

    @app.exception_handler(Exception)
    async def our_fault(request: Request, error: Exception) -> JSONResponse:
        # The last catch: who asks learns nothing of our insides, who operates it learns all.
        _log.error("%s %s: %r", request.method, request.url.path, error, exc_info=error)
        detail = "internal error; the controller's log says more"
        return answer(ProblemError(500, "internal", detail))


def _field_error(found: Mapping[str, Any]) -> FieldError:
    """Return pydantic's finding in one sentence, without what was sent: that may be huge."""
    pointer = ".".join(map(str, found["loc"]))[:MAX_SHOWN_CHARS]
    match found["type"]:
        case "extra_forbidden":
            detail = "unknown field; leave it out"
        case "missing":
            detail = "missing"
        case "json_invalid":
            detail = f"no JSON: {found.get('ctx', {}).get('error', '')}"
        case "value_error":
            detail = str(found["ctx"]["error"])
        case _:
            detail = str(found["msg"])
    return FieldError(pointer=pointer, detail=detail[:MAX_SHOWN_CHARS])
