"""Rules as a part of the daemon: the keeper beside it, documents coming in, tables going in force.

Nothing of the size of the rules runs on the loop: documents are written and tables loaded in
threads, everything else is the keeper's. Source: docs/decisions/0012.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from packetcloud.router.config import RouterConfig
from packetcloud.router.errors import (
    AmbiguousRuleError,
    PatternError,
    RouterConfigError,
    RuleNotFoundError,
    RuleStoreError,
    RulesUnavailableError,
    SegmentError,
)
from packetcloud.router.rule_counts import RuleCounts
from packetcloud.router.rules.answer import RuleTable
from packetcloud.router.rules.api import DocumentRefusedError
from packetcloud.router.rules.explain_store import RulesQuestion
from packetcloud.router.rules.figures import RuleFigures
from packetcloud.router.rules.keeper_link import KeeperLink
from packetcloud.router.rules.number_sweep import NumberSweep
from packetcloud.router.rules.policy import open_of, policy_of
from packetcloud.router.rules.rule import Question
from packetcloud.router.rules.schemas import (
    Installation,
    Refusal,
    RevocationTaken,
    RuleDetail,
    RulePage,
    RuleSetPage,
)
from packetcloud.router.rules.segment import Segment
from packetcloud.router.rules.store import StoredFile
from packetcloud.router.rules.table_files import LoadedTable, load_table
from packetcloud.router.rules.table_numbers import numbers_of
from packetcloud.router.rules.uploads import Uploads
from packetcloud.router.settings import ServiceSettings

_log = logging.getLogger("packetcloud.router")

TIDY_S = 60.0

Message = dict[str, Any]


class RuleService:
    """The rules of one router; refuses everything where the config has no `[rules]`.

    Args:
        install: puts a table in force; called on the loop's thread.
        counts: of the chunks about which each rule decided.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        config: RouterConfig,
        install: Callable[[RuleTable], None],
        counts: RuleCounts,
    ) -> None:
        self._seconds = seconds
        self._config = config
        self._install = install
        self._counts = counts
        self._sweep = NumberSweep(counts.by_number, self._ask_numbers)
        self._gone_count = 0
        self._listed: tuple[ServiceSettings, ...] = ()
        """Services of the cloudlet's table."""
        self._figures = RuleFigures()
        self._folder = config.rules_folder
        self._loading = asyncio.Lock()
        self._configuring = asyncio.Lock()
        self._is_policy_due = False
        """The keeper works by an older config; it takes nothing before it has this one."""
        self._loaded: LoadedTable | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self.link: KeeperLink | None = None
        self.uploads: Uploads | None = None
        if self._folder is not None:
            self.link = KeeperLink(self._folder, seconds, self._greeting, self._reopened)
            self.uploads = Uploads(self._folder, config.rules.max_document_bytes)

    @property
    def is_on(self) -> bool:
        return self.link is not None

    def figures(self) -> RuleFigures:
        """Return what was counted until now."""
        if self.link is not None and self.uploads is not None:
            self._figures.is_keeper_up = self.link.is_up
            self._figures.keeper_restarts = self.link.restarts_count
            self._figures.requests_refused = self.link.refused_count
            self._figures.uploads = self.uploads.open_count
            self._figures.uploads_refused = self.uploads.refused_count
        return self._figures

    def open(self) -> None:
        """Put the rules of before in force. Blocks: the router does not listen yet.

        Raises:
            RouterConfigError: they cannot be had; without them the router must not take chunks.
        """
        if self.link is None or self.uploads is None:
            return
        try:
            state = self.link.open()
            self.uploads.clear()
            self._put_in_force(state, self._load_files(state))
        except (RuleStoreError, SegmentError, PatternError, OSError) as error:
            self.link.kill()
            raise RouterConfigError(f"[rules] path = {str(self._folder)!r}: {error}") from None
        self.link.start()
        self._tidying = asyncio.get_event_loop().create_task(self._tidy_now_and_then())
        totals = state["totals"]
        _log.info(
            "rules: version %d, %d active, %d shadow",
            state["version"], totals["active"], totals["shadow"],
        )  # fmt: skip

    async def stop(self) -> None:
        """End the keeper."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self.link is not None:
            await self.link.stop()

    async def configure(self, config: RouterConfig) -> None:
        """Take the rules' part of a config that was read again."""
        self._config = config
        if self.link is None or self.uploads is None:
            return
        self.uploads.max_bytes = config.rules.max_document_bytes
        self._is_policy_due = True
        try:
            await self._bring_policy()
        except RulesUnavailableError as error:
            _log.warning("rules: %s; until then nothing is installed", error)

    def list_services(self, services: tuple[ServiceSettings, ...]) -> bool:
        """Note the services of the cloudlet's table; True: `configure` has to follow."""
        before, self._listed = self._listed, services
        return open_of(before) != open_of(services)

    async def install(self, pieces: AsyncIterator[bytes], *, is_dry_run: bool) -> Installation:
        """Install a document.

        Raises:
            RuleUploadError: it is not taken in.
            RulesUnavailableError: the keeper cannot do it now.
            DocumentRefusedError: nothing of it is accepted, as the whole is refused.
        """
        if self.link is None or self.uploads is None:
            raise _no_rules()
        async with self.uploads.receive(pieces) as path:
            began_at = self._seconds()
            try:
                answer = await self._change("install", file=str(path), is_dry_run=is_dry_run)
            except RulesUnavailableError as error:
                _log.warning("rules: a document could not be installed: %s", error)
                raise
            if not is_dry_run:
                self._count(answer)
            if answer.get("refusal") is not None:
                refusal = Refusal(**answer["refusal"])
                raise DocumentRefusedError(refusal)
            if "state" in answer:
                await self._load(answer["state"])
            duration_s = self._seconds() - began_at
            if not is_dry_run:
                self._figures.installs.add(round(duration_s * 1e9))
            return Installation(
                **answer["outcome"], version=self._figures.version, duration_s=duration_s
            )

    async def revoke(self, pieces: AsyncIterator[bytes]) -> RevocationTaken:
        """Take a grant back.

        Raises:
            RuleUploadError: the revocation is not taken in.
            RulesUnavailableError: the keeper cannot do it now.
            DocumentRefusedError: it is refused.
        """
        if self.link is None or self.uploads is None:
            raise _no_rules()
        async with self.uploads.receive(pieces) as path:
            answer = await self._change("revoke", file=str(path))
        if answer.get("refusal") is not None:
            refusal = Refusal(**answer["refusal"])
            self._figures.revocations_refused[refusal.reason] += 1
            _log.warning("revocation refused: %s: %s", refusal.reason, refusal.detail)
            raise DocumentRefusedError(refusal)
        await self._load(answer["state"])
        taken = RevocationTaken(**answer["outcome"], version=self._figures.version)
        if taken.is_new:
            self._figures.revocations += 1
            _log.warning(
                "grant %s revoked by %s: %d rules are out of force",
                taken.grant, taken.issuer, taken.rules,
            )  # fmt: skip
        return taken

    async def list_rules(self, filters: dict[str, str], cursor: str | None, limit: int) -> RulePage:
        """Return a page of rules. Raises: RulesUnavailableError."""
        page = await self._ask("rules", filters=filters, cursor=cursor, limit=limit)
        self._complete(page["rules"])
        return RulePage(version=self._figures.version, **page)

    async def find_rule(self, set_name: str, name: str, signer: str | None) -> RuleDetail:
        """Return one rule. Raises: RuleNotFoundError, AmbiguousRuleError, RulesUnavailableError."""
        found = await self._ask("rule", set=set_name, name=name, signer=signer)
        if "missing" in found:
            raise RuleNotFoundError(found["missing"])
        if "several" in found:
            raise AmbiguousRuleError(found["several"])
        self._complete([found["rule"]])
        return RuleDetail(**found)

    async def list_sets(self, cursor: str | None, limit: int) -> RuleSetPage:
        """Return a page of sets. Raises: RulesUnavailableError."""
        return RuleSetPage(
            version=self._figures.version, **await self._ask("sets", cursor=cursor, limit=limit)
        )

    async def explain(self, question: Question, now_s: float, *, has_payload: bool) -> Message:
        """Return what the rules say about a chunk, and who decides. Raises: RulesUnavailableError.

        Args:
            now_s: seconds since 1970.
            has_payload: else its payload stands for one that is not known.
        """
        segments = self._loaded.table.segments if self._loaded is not None else ()
        numbers = frozenset(numbers_of(segments, question))
        asked = RulesQuestion(numbers, question, has_payload, now_s)
        told = await self._ask("explain", **asked.to_json())
        told["report"]["version"] = self._figures.version
        return told

    async def _tidy_now_and_then(self) -> None:
        """Let the keeper remove what ended a while ago; forget what rules counted that are gone."""
        while True:
            await asyncio.sleep(TIDY_S)
            try:
                await self._load(await self._change("tidy"))
                await self._sweep.run(self._gone_count)
            except RulesUnavailableError as error:
                _log.info("rules: not tidied: %s", error)

    def _policy(self) -> Message:
        config = self._config
        return policy_of(config.settings, config.rules, self._listed).to_json()

    def _greeting(self) -> Message:
        return {"do": "open", "policy": self._policy(), "in_force": self._figures.version}

    async def _bring_policy(self) -> None:
        """See that the keeper works by the config of now: a key may have been taken out of it.

        Raises:
            RulesUnavailableError: it does not yet; the next change tries again.
        """
        async with self._configuring:
            while self._is_policy_due:
                config = self._config
                try:
                    state = await self._request("configure", policy=self._policy())
                except RulesUnavailableError as error:
                    text = f"the config that was read again is not in force yet: {error}"
                    raise RulesUnavailableError(text) from None
                self._is_policy_due = config is not self._config
                await self._load(state)

    async def _change(self, what: str, **fields: object) -> Message:
        await self._bring_policy()
        return await self._request(what, **fields)

    async def _request(self, what: str, **fields: object) -> Message:
        if self.link is None:
            raise _no_rules()
        return await self.link.request({"do": what, "in_force": self._figures.version, **fields})

    async def _ask(self, what: str, **fields: object) -> Message:
        if self.link is None:
            raise _no_rules()
        return await self.link.request({"do": "ask", "what": what, **fields})

    async def _ask_numbers(self, pages: list[int]) -> list[str]:
        there: list[str] = (await self._ask("numbers", pages=pages))["there"]
        return there

    def _complete(self, rules: list[Message]) -> None:
        for rule in rules:
            rule["state"] = state_of(rule, time.time())
            rule["hits"], rule["shadow_hits"] = self._counts.of(rule["number"])

    def _reopened(self, state: Message) -> None:
        """A keeper came back: the one before may have died between a change and its answer."""
        self._reloading = asyncio.get_event_loop().create_task(self._load_again(state))

    async def _load_again(self, state: Message) -> None:
        try:
            await self._load(state)
        except RulesUnavailableError as error:
            _log.error("rules: %s; those of before stay in force", error)

    async def _load(self, state: Message) -> None:
        """Put a version in force, unless a later one is.

        Raises:
            RulesUnavailableError: its files cannot be read.
        """
        async with self._loading:
            if state["version"] > self._figures.version:
                began_at = self._seconds()
                try:
                    loaded = await asyncio.to_thread(self._load_files, state)
                except (SegmentError, PatternError, OSError) as error:
                    raise RulesUnavailableError(
                        f"version {state['version']} of the rules cannot be loaded: {error}; "
                        "a restart of the router makes its files anew"
                    ) from None
                self._figures.loads.add(round((self._seconds() - began_at) * 1e9))
                unused = self._put_in_force(state, loaded)
                await asyncio.to_thread(_close_all, unused)

    def _load_files(self, state: Message) -> LoadedTable:
        assert self._folder is not None, "there are rules"
        files = [StoredFile(**one) for one in state["files"]]
        return load_table(self._folder, state["version"], files, self._loaded, time.time())

    def _put_in_force(self, state: Message, loaded: LoadedTable) -> list[Segment]:
        """Switch to a version; return what was needed for the one before only."""
        self._install(loaded.table)
        unused = self._loaded.unused_by(loaded) if self._loaded is not None else []
        self._loaded = loaded
        self._gone_count = state["gone"]
        figures, totals = self._figures, state["totals"]
        figures.version = state["version"]
        figures.active, figures.shadow = totals["active"], totals["shadow"]
        figures.suspended = totals["suspended"]
        figures.third_party = totals["third_party"]
        figures.revoked = totals["revoked"]
        figures.files = len(state["files"])
        return unused

    def _count(self, answer: Message) -> None:
        refusal, figures = answer.get("refusal"), self._figures
        if refusal is not None:
            figures.documents_refused[refusal["reason"]] += 1
            _log.warning("rules refused: %s: %s", refusal["reason"], refusal["detail"])
            return
        outcome = answer["outcome"]
        figures.items_accepted += outcome["accepted"] + outcome["withdrawn"]
        for reason, count in outcome["reasons"].items():
            figures.items_refused[reason] += count
        if outcome["refused"]:
            _log.warning(
                "rules of set %s by %s refused: %s",
                outcome["set"],
                outcome["signer"],
                ", ".join(f"{reason} {count}" for reason, count in outcome["reasons"].items()),
            )


def state_of(rule: Message, now_s: float) -> str:
    """Return the state of a rule as `schemas.RuleEntry` has it."""
    if rule["is_suspended"]:
        return "suspended"
    if rule["revoked_grant"] is not None:
        return "revoked"
    if rule["valid_until_s"] is not None and now_s >= rule["valid_until_s"]:
        return "ended"
    return "not yet" if now_s < (rule["valid_from_s"] or 0) else "in force"


def _close_all(segments: list[Segment]) -> None:
    for segment in segments:
        segment.close()


def _no_rules() -> RulesUnavailableError:
    return RulesUnavailableError(
        "this router keeps no rules: its config has no [rules] with a path"
    )
