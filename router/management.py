"""The HTTP server of the management API, on the loop that the hop runs on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from packetcloud.chunk.http_api import KEEP_ALIVE_S
from packetcloud.router.api import RouterState, make_app
from packetcloud.router.config import split_address
from packetcloud.router.errors import RouterConfigError


class ManagementService(Service):
    """The HTTP server of the management API."""

    def __init__(self, listen: str, state: RouterState) -> None:
        self.address: tuple[str, int] | None = None
        self._listen = listen
        self._state = state
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    def startService(self) -> None:
        """Bind the port and serve.

        Raises:
            RouterConfigError: it cannot be bound.
        """
        host, port = split_address(self._listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise RouterConfigError(
                f"[router] control_listen = {self._listen!r}: {error.strerror or error}; "
                "allowed: a free TCP port of this machine"
            ) from None
        self.address = listener.getsockname()[:2]
        config = uvicorn.Config(
            make_app(self._state),
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(config)
        self._task = asyncio.get_event_loop().create_task(self._server.serve([listener]))
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's

    def stopService(self) -> Deferred[None] | None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        if self._server is None or self._task is None:
            return None
        self._server.should_exit = True
        self._server.force_exit = True  # open connections are scrapers and status commands
        return Deferred.fromFuture(self._task)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
