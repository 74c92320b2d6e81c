"""What all endpoints share: the caller, the state behind them, answers to changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Query, Request, Response

from packetcloud.domain_controller.api.changes import Asking, Change
from packetcloud.domain_controller.api.fields import (
    DEFAULT_PAGE_COUNT,
    Cursor,
    IdempotencyKey,
    PageCount,
)
from packetcloud.domain_controller.api.gate import Caller, caller_of
from packetcloud.domain_controller.api.port import DomainState, Page
from packetcloud.domain_controller.api.problem_info import ProblemInfo
from packetcloud.domain_controller.api.problems import MEDIA_TYPE

T = TypeVar("T")
_STATUSES = {
    400: "The request is not as described here",
    401: "Not signed as it must be",
    403: "Not for this role",
    404: "There is no such thing, or it is somebody else's",
    409: "What there is does not allow it",
    422: "Not possible as it is asked for",
    503: "Busy, or away: nothing was done",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemInfo.__name__}"}}
        },
    }
    for status, text in _STATUSES.items()
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What endpoints work with."""

    state: DomainState
    domain: str
    version: str
    clock_ms: Callable[[], int]

    async def read(self, ask: Callable[..., T], *arguments: object) -> T:
        """Ask the state something, in a worker thread: a database may take its time."""
        return await asyncio.to_thread(ask, *arguments)

    async def change(self, change: Change, caller: Caller, key: str | None = None) -> Response:
        """Have something changed; the answer goes out when it is on disk."""
        asking = Asking(caller.name, caller.owner, caller.proof, caller.request_digest, key)
        given = await self.state.change(change, asking)
        headers = {"Idempotency-Replayed": "true"} if given.is_repeated else None
        return Response(given.body, given.status, headers, "application/json")


# Not `def`: FastAPI would have each of them wait for a thread.
async def _caller(request: Request) -> Caller:
    return caller_of(request.scope)


async def _page(
    limit: Annotated[PageCount, Query()] = DEFAULT_PAGE_COUNT,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Page:
    return Page(limit, cursor)


TheCaller = Annotated[Caller, Depends(_caller)]
ThePage = Annotated[Page, Depends(_page)]
TheKey = Annotated[IdempotencyKey, Header(alias="Idempotency-Key")]
