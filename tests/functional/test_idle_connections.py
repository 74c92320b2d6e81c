"""A connection to an HTTP API that a client still takes is never one that the server closes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from packetcloud.cloudlet.daemon import serving as serving_cloudlet
from packetcloud.domain_controller.daemon import _serving as serving_domain
from packetcloud.router.api import RouterState
from packetcloud.router.management import ManagementService
from packetcloud.router.schemas import Health


class _State:
    """Of a router that is well."""

    def health(self) -> Health:
        return Health(status="ok", detail="")


async def _cloudlet() -> None:
    async with serving_cloudlet(FastAPI(), "127.0.0.1", 0):
        await asyncio.sleep(0)


async def _domain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving_domain(FastAPI(), listener, limit=10):
            await asyncio.sleep(0)


async def _router() -> None:
    service = ManagementService("127.0.0.1:0", cast(RouterState, _State()))
    service.startService()
    await asyncio.sleep(0)
    end = service.stopService()
    assert end is not None
    await end.asFuture(asyncio.get_running_loop())


@pytest.mark.parametrize("serve", [_cloudlet, _domain, _router])
def test_servers_keep_idle_connections_longer_than_clients_take_them(
    serve: Callable[[], Coroutine[None, None, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were 5 s: a question that came 5 s after the last found its connection closed, and was
    told that no controller answers. It stopped a benchmark of 20 minutes near its end."""
    kept: list[float] = []

    class Config(uvicorn.Config):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            kept.append(self.timeout_keep_alive)

    monkeypatch.setattr(uvicorn, "Config", Config)
    asyncio.run(asyncio.wait_for(serve(), 20))
    expiry_s = httpx.Limits().keepalive_expiry
    assert expiry_s is not None
    assert [kept_s > 2 * expiry_s for kept_s in kept] == [True]
