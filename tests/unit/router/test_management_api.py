"""The management API is ready before its first request: that runs on the loop of the chunks."""

from __future__ import annotations

import asyncio
import linecache
from typing import Any, cast

import httpx
import pytest

from packetcloud.router.api import RouterState, make_app
from packetcloud.router.schemas import Health


class _State:
    """Of a router that is well."""

    def health(self) -> Health:
        return Health(status="ok", detail="")


def test_the_first_request_reads_no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI looks for the source of the function that answers; it was read when the router
    began, and its layers were put together then."""
    linecache.clearcache()
    app = make_app(cast(RouterState, _State()))
    assert app.middleware_stack is not None
    read: list[str] = []

    def reads(filename: str, module_globals: Any = None) -> list[str]:
        read.append(filename)
        return []

    monkeypatch.setattr(linecache, "updatecache", reads)

    async def ask() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            return (await client.get("/healthz")).status_code

    assert asyncio.run(ask()) == 200
    assert not read
