"""The router's rules as the controller uses them: brings documents, looks at what is there.

Source: docs/reference/router.md, "Rules".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.commands import InstallRules
from packetcloud.cloudlet.core.core import CloudletCore
from packetcloud.cloudlet.router_client import (
    RouterClient,
    UnansweredError,
    understanding,
    words_of,
)
from packetcloud.domain_controller.core.installations import MAX_REFUSALS_COUNT, RefusedRule
from packetcloud.router.rules.schemas import Installation, Refusal, RuleSetPage

LOOK_INTERVAL_S = 5.0
"""The router is asked so often for the version of its rules."""
LOOK_CLOSELY_S = 60.0
"""And so often for its sets, whatever the version is."""
INSTALL_LIMIT_S = 120.0
"""Ten thousand rules take less than a second, many compiled patterns more."""
MAX_PAGES_COUNT = 1000
"""Of a hundred sets each."""
_PATH = "/v1/rules"
_MAX_TEXT_CHARS = 200


class RouterRules:
    """Rules at one router.

    Args:
        tell: gives the core an event.
    """

    def __init__(
        self, router: RouterClient, core: CloudletCore, tell: Callable[[saw.Event], None]
    ) -> None:
        self._router = router
        self._core = core
        self._tell = tell
        self._version = -1
        self._looked_s = 0.0

    async def watch(self) -> None:
        """Look at the router's sets again and again, while any are wanted there."""
        while True:
            if self._core.saved.rule_sets:
                try:
                    await self._look()
                except UnansweredError:
                    self._version = (
                        -1
                    )  # what is waiting says why; once it answers, all is looked at
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def install(self, command: InstallRules) -> None:
        """Bring a document."""
        key = command.rule_set, command.serial
        try:
            response = await self._router.ask(
                "POST", _PATH, content=command.document.encode(), timeout=INSTALL_LIMIT_S
            )
            with understanding(response):
                if response.status_code == 200:
                    done = Installation.model_validate_json(response.content)
                    self._tell(_installed(key, done))
                    return
                if response.status_code == 422:
                    refusal = Refusal.model_validate_json(response.content)
                    self._tell(_refused(key, refusal))
                    return
            raise UnansweredError(words_of(response))
        except UnansweredError as error:
            self._tell(saw.RulesUnanswered(*key, f"the router takes no rules now: {error}"))

    async def _look(self) -> None:
        version = (await self._page(None, 1)).version
        is_late = time.monotonic() - self._looked_s >= LOOK_CLOSELY_S
        if version == self._version and not is_late and not self._core.rule_sets.is_unsettled:
            return
        answers_count = self._core.rule_sets.answers_count
        sets: dict[tuple[str, str], saw.SetAtRouter] = {}
        cursor = None
        for _ in range(MAX_PAGES_COUNT):
            page = await self._page(cursor, 100)
            for one in page.sets:
                count = one.active + one.shadow + one.revoked
                sets[one.signer, one.set] = saw.SetAtRouter(one.serial, count, one.revoked)
            cursor = page.cursor
            if cursor is None:
                break
        self._version, self._looked_s = version, time.monotonic()
        self._tell(saw.RulesSeen(answers_count, sets))

    async def _page(self, cursor: str | None, limit: int) -> RuleSetPage:
        query: dict[str, str | int] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        response = await self._router.ask("GET", f"{_PATH}/sets", params=query)
        if response.status_code != 200:
            raise UnansweredError(words_of(response))
        with understanding(response):
            return RuleSetPage.model_validate_json(response.content)


def _installed(key: tuple[str, int], done: Installation) -> saw.RulesAnswered:
    refused = [one for one in done.items if one.result == "refused"][:MAX_REFUSALS_COUNT]
    refusals = (
        RefusedRule(one.name[:128], one.reason[:40], one.detail[:_MAX_TEXT_CHARS])
        for one in refused
    )
    named = (done.signer, done.set, done.serial)
    return saw.RulesAnswered(
        *key, named, done.accepted + done.unchanged, done.refused, tuple(refusals)
    )


def _refused(key: tuple[str, int], refusal: Refusal) -> saw.RulesAnswered:
    text = f"{refusal.reason}: {refusal.detail}"
    return saw.RulesAnswered(*key, None, is_replayed=refusal.reason == "replayed", text=text)
