"""Work of the server that takes time, which LXD calls operations: waited for, with a deadline."""

from __future__ import annotations

import time
from typing import Any

from pylxd.exceptions import NotFound

from packetcloud.cloudlet.errors import NodeUnreachableError
from packetcloud.cloudlet.lxd.connection import Api, said

WAIT_PIECE_S = 10.0
"""One question waits so long; below the time a call may be silent."""
_DONE = 200
_FIRST_FINAL = 200
"""LXD's status codes: 1xx goes on, 200 succeeded, 400 failed, 401 was cancelled."""


def finish(api: Api, response: Any, timeout_s: float, *, piece_s: float = WAIT_PIECE_S) -> None:
    """Wait until the operation that `response` began is over; nothing to do for a plain answer.

    Raises:
        NodeUnreachableError: not over in time, or the server forgot it: the outcome is not known.
        NodeError: it failed; which one follows from what the server said.
    """
    answer = response.json()
    if answer.get("type") == "async":
        wait(api, answer["metadata"], time.monotonic() + timeout_s, piece_s)


def wait(api: Api, operation: Any, deadline: float, piece_s: float = WAIT_PIECE_S) -> None:
    """Wait for one operation, known by its JSON; raises as `finish`."""
    what = operation.get("description", "operation")
    while operation["status_code"] < _FIRST_FINAL:
        rest_s = deadline - time.monotonic()
        if rest_s <= 0:
            raise NodeUnreachableError(f"{what}: not over in time")
        params = {"timeout": max(1, int(min(rest_s, piece_s)))}
        try:
            node = api.operations[operation["id"]].wait
            operation = node.get(params=params).json()["metadata"]
        except NotFound as error:
            raise NodeUnreachableError(f"{what}: the server forgot it, a restart?") from error
    if operation["status_code"] != _DONE:
        raise said(f"{what}: {operation.get('err') or operation.get('status')}")


def under_way(api: Api, container: str) -> list[Any]:
    """Return the operations in progress on a container."""
    return [one for one in _in_progress(api) if container in _names(one)]


def creations(api: Api) -> list[Any]:
    """Return the creations of containers in progress."""
    return [one for one in _in_progress(api) if one.get("description") == "Creating instance"]


def _in_progress(api: Api) -> list[Any]:
    listing = api.operations.get(params={"recursion": 1}).json()["metadata"] or {}
    return [
        one
        for some in listing.values()
        for one in some
        if one["status_code"] < _FIRST_FINAL and one.get("class") == "task"
    ]


def _names(operation: Any) -> set[str]:
    """Return the last part of each path that an operation is about."""
    paths = [path for some in (operation.get("resources") or {}).values() for path in some]
    return {path.split("?")[0].rsplit("/", 1)[-1] for path in paths}
