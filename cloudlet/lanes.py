"""The folder of the router's door to shared memory: learned from the router, checked, handed on.

VIs on this machine see it in their containers, and share memory with the router through it. What a
router says may come from anywhere, and nodes mount it: only a folder counts that root or this user
alone can have put there.
Source: docs/protocol/hop.md, "Lanes"; docs/reference/vi-policy.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcloud.cloudlet.policy import LANES_SOURCE
from packetcloud.cloudlet.router_client import RouterClient, UnansweredError, understanding

ASK_INTERVAL_S = 5.0
_log = logging.getLogger("packetcloud.cloudlet")


class RouterLanes:
    """What one router says.

    Args:
        share: told of every other folder than before.
    """

    def __init__(self, router: RouterClient, share: Callable[[str], None]) -> None:
        self._router = router
        self._share = share
        self._said: Any = None
        self._folder = ""

    async def watch(self) -> None:
        """Ask again and again."""
        while True:
            await asyncio.sleep(ASK_INTERVAL_S)
            await self.ask()

    async def ask(self) -> None:
        """Ask once; a router that is silent, or shares no more, changes nothing.

        Its folder stays when it ends, and is the same when it is back.
        """
        try:
            response = await self._router.ask("GET", "/info")
            if response.status_code != 200:
                return
            with understanding(response):
                said = response.json()
                text, guid = said.get("lanes"), str(said["guid"])
        except UnansweredError:
            return
        if text is None or text == self._folder:
            return
        try:
            check_folder(text, guid)
        except ValueError as error:
            if text != self._said:
                _log.warning("VIs share no memory with the router: %s", error)
        else:
            self._folder = text
            _log.info("VIs that are made now share memory with the router: %s", text)
            self._share(text)
        self._said = text


def check_folder(text: object, guid: str) -> None:
    """See that a router's folder may be shown to VIs.

    Raises:
        ValueError: it is none of this machine, not that router's, or somebody else than root and
            this user can have put it there, or could put something in its place.
    """
    if not isinstance(text, str) or not LANES_SOURCE.fullmatch(text):
        raise ValueError(f"{str(text)[:100]!r} is no folder of a router; allowed: .../lanes/GUID")
    path = Path(text)
    if path.name != guid[: len(path.name)]:
        raise ValueError(f"{text} is another router's")
    try:
        if path.resolve(strict=True) != path:
            raise ValueError(f"{text}: a link is in its path")
        for one in (path, *path.parents):
            problem = _problem_of(one.lstat())
            if problem:
                raise ValueError(f"{text}: {one} {problem}")
    except OSError as error:
        raise ValueError(f"{text}: {error.strerror or error}") from None
    except RuntimeError:  # what `resolve` raises of links that lead back to themselves
        raise ValueError(f"{text}: a link is in its path") from None


def _problem_of(status: os.stat_result) -> str:
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder"
    if status.st_uid not in (0, os.geteuid()):
        return "is neither root's nor this user's"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "may be changed by others"
    return ""
