"""The connection to one LXD server: pylxd in threads of its own, with a deadline on every call.

pylxd's objects do network I/O in their constructor and attributes, so only its transport is used,
one client for each thread. What a call raises is one of our errors, whatever pylxd, requests or
the server said.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pylxd
import pylxd.exceptions
import requests

from packetcloud.cloudlet.errors import (
    ContainerExistsError,
    ContainerMissingError,
    NodeError,
    NodeRefusedError,
    NodeUnreachableError,
    NoRoomError,
)
from packetcloud.cloudlet.lxd.address import LxdAddress

WORKERS_COUNT = 8
"""Calls in progress at once; a launch is four calls, most of whose time LXD is busy."""
CALL_TIMEOUT_S = 15.0
"""How long LXD may be silent in a call that is no operation."""

Api = Any
"""pylxd's transport: `api.instances["x"].get()` is GET /1.0/instances/x. It has no types."""
T = TypeVar("T")

_NO_ROOM = (
    "no space left",
    "disk quota exceeded",
    "cannot allocate memory",
    "not enough uid/gid",
    "no uid/gid allocation",
    "would exceed",
    "device or resource busy: limit",
)
_NOT_NOW = (
    "is shutting down",
    "not yet initialized",
    "database is locked",
    "database is closed",
    "context canceled",
    "connect to cluster member",
    "connection refused",
    "cluster member is offline",
    "missing event connection",
)
"""Words of a server that is on its way down or up, or of a cluster about a member that it does not
reach: what became of the call is not known."""


class LxdConnection:
    """One server. Calls run in worker threads; the event loop never waits for a socket."""

    def __init__(
        self,
        address: LxdAddress,
        project: str | None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        workers_count: int = WORKERS_COUNT,
    ) -> None:
        self.address = address
        self._project = project
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(workers_count, thread_name_prefix="lxd")
        self._local = threading.local()
        self._is_closed = False

    async def call(self, work: Callable[[Api], T], *, is_of_project: bool = True) -> T:
        """Run `work` with the transport in a worker thread and return what it returns.

        Args:
            is_of_project: every request is about our project; else about the server.

        Raises:
            NodeError: which one says who is wrong, see `packetcloud.cloudlet.errors`.
        """
        if self._is_closed:
            raise NodeUnreachableError(f"{self.address}: this connection is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._run, work, is_of_project)
        except asyncio.CancelledError:
            if self._is_closed:
                raise NodeUnreachableError(f"{self.address}: this connection is closed") from None
            raise

    def close(self) -> None:
        """Take no more calls; those that wait for a thread end, those in progress run out."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Callable[[Api], T], is_of_project: bool) -> T:
        project = self._project if is_of_project else None
        try:
            return work(self._client(project).api)
        except NodeError:
            raise
        except (
            OSError,
            requests.RequestException,
            pylxd.exceptions.ClientConnectionFailed,
        ) as error:
            # A requests exception is an OSError; after it the client may hold a dead connection.
            self._clients().clear()
            raise NodeUnreachableError(f"{self.address}: {_shortened(error)}") from error
        except pylxd.exceptions.LXDAPIException as error:
            raise translated(error, str(self.address)) from error

    def _clients(self) -> dict[str | None, pylxd.Client]:
        """Return the clients of this thread, by their project."""
        clients: dict[str | None, pylxd.Client] = self._local.__dict__.setdefault("clients", {})
        return clients

    def _client(self, project: str | None) -> pylxd.Client:
        clients = self._clients()
        client = clients.get(project)
        if client is None:
            client = pylxd.Client(
                endpoint=self.address.endpoint,
                timeout=self._timeout_s,
                project=project,
                session=self.address.session(),
            )
            if not client.trusted:
                raise NodeRefusedError(
                    f"{self.address}: the server does not trust our certificate; "
                    "on the server: lxc config trust add CERTIFICATE"
                )
            clients[project] = client
        return client


def translated(error: pylxd.exceptions.LXDAPIException, place: str) -> NodeError:
    """Return our error for an answer that is none of success."""
    text = f"{place}: {error}"
    status = error.response.status_code
    if status == 404:
        return ContainerMissingError(text)
    if status in (502, 503, 504):
        return NodeUnreachableError(text)
    return said(text)


def said(text: str) -> NodeError:
    """Return our error for what the server said of a call or operation that failed."""
    words = text.lower()
    if any(phrase in words for phrase in _NO_ROOM):
        return NoRoomError(text)
    if any(phrase in words for phrase in _NOT_NOW):
        return NodeUnreachableError(text)
    if "already exists" in words:
        return ContainerExistsError(text)
    if "instance not found" in words:
        return ContainerMissingError(text)
    return NodeRefusedError(text)


def _shortened(error: Exception) -> str:
    """The innermost reason: urllib3 wraps it in several layers of its own names."""
    while (inner := error.__cause__ or error.__context__) is not None and isinstance(
        inner, Exception
    ):
        error = inner
    return str(error) or type(error).__name__
