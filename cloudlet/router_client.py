"""The router's management API as the controller uses it: its table, and who is idle.

Source: docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from packetcloud.chunk.http_api import trust_for
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Evidence

ANSWER_LIMIT_S = 5.0
MAX_IDLE_WAIT_S = 60.0
"""The router waits no longer for a VI's last task; the core asks again."""
MAX_ANSWER_BYTES = 16 << 20
"""A thousand VIs take half a MiB."""
_PATH = "/v1/cloudlet/table"


class UnansweredError(Exception):
    """No answer, or one that is not understood; the text is for people."""


class RouterClient:
    """One router.

    Args:
        url: of its management API.
        controller: this cloudlet's name, for the router's log.
        token: what the router wants to see of who writes its table; None: nothing.
        transport: instead of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        controller: str,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._controller = controller
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=ANSWER_LIMIT_S,
            trust_env=False,
            verify=trust_for(url),
            transport=transport,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def push(self, command: do.PushTable) -> saw.TableAnswered | saw.TableUnanswered:
        """Give the router an update of its table."""
        items: list[dict[str, Any]] = [{"put": dict(entry)} for entry in command.put.values()]
        items += [{"remove": sid} for sid in command.remove]
        body = {
            "controller": self._controller,
            "epoch": command.epoch,
            "version": command.version,
            "base_version": command.base_version,
            "items": items,
        }
        try:
            response = await self.ask("PUT", _PATH, json=body)
            with understanding(response):
                if response.status_code == 200:
                    return saw.TableAnswered(command.version, True, _refused(response.json()))
                if response.status_code == 409:
                    return _fenced(command.version, response.json())
            raise UnansweredError(words_of(response))
        except UnansweredError as error:
            return saw.TableUnanswered(command.version, str(error))

    async def look(self) -> saw.RouterSeen | saw.RouterSilent:
        """Return what is in force there, and how its services are."""
        try:
            response = await self.ask("GET", _PATH)
            if response.status_code != 200:
                raise UnansweredError(words_of(response))
            with understanding(response):
                return _seen(response.json())
        except UnansweredError as error:
            return saw.RouterSilent(str(error))

    async def await_idle(self, sid: str, instance: int, limit_s: float) -> saw.IdleAnswer | None:
        """Wait, for `limit_s` at most, until a held or draining VI has no task left.

        Returns: how it is; None: no answer, or the router's table does not list it.
        """
        limit_s = min(limit_s, MAX_IDLE_WAIT_S)
        query: dict[str, str | int | float] = {
            "sid": sid,
            "instance": instance,
            "timeout_s": limit_s,
        }
        try:
            response = await self.ask(
                "GET", f"{_PATH}/idle", params=query, timeout=limit_s + ANSWER_LIMIT_S
            )
            if response.status_code != 200:
                return None
            with understanding(response):
                return _idle(response.json())
        except UnansweredError:
            return None

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask the router something. Raises: UnansweredError."""
        try:
            async with self._client.stream(method, path, **options) as response:
                data = bytearray()
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise UnansweredError(f"an answer of over {MAX_ANSWER_BYTES} bytes")
                return httpx.Response(response.status_code, content=bytes(data))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise UnansweredError(text) from None


@contextmanager
def understanding(response: httpx.Response) -> Iterator[None]:
    """Say of an answer of another shape that it is no answer: another version serves there."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnansweredError(
            f"{response.status_code} with an answer that is not understood "
            f"({type(error).__name__}: {error}); is it a router of this version?"
        ) from None


def _fenced(version: int, answer: dict[str, Any]) -> saw.TableAnswered:
    epoch, there = int(answer["epoch"]), int(answer["version"])
    if answer["reason"] in ("old_epoch", "other_controller"):
        return saw.TableAnswered(version, False, {}, fenced_by=epoch)
    return saw.TableAnswered(version, False, {}, version_there=there)


def _refused(answer: dict[str, Any]) -> dict[str, str]:
    return {
        str(item["sid"]): f"{item['reason']}: {item['detail']}"
        for item in answer["items"]
        if not item["accepted"]
    }


def _idle(answer: dict[str, Any]) -> saw.IdleAnswer:
    return saw.IdleAnswer(
        answer["idle"] is True,
        answer["attached"] is True,
        str(answer["boot_id"]),
        int(answer["epoch"]),
        int(answer["version"]),
    )


def _seen(report: dict[str, Any]) -> saw.RouterSeen:
    return saw.RouterSeen(
        str(report["boot_id"]),
        int(report["epoch"]),
        int(report["version"]),
        {str(one["sid"]): _service(one) for one in report["services"]},
    )


def _service(one: dict[str, Any]) -> saw.ServiceAtRouter:
    penalty = one["delay_penalty"]
    penalty_s = float(penalty["p99_s"]) if penalty["count"] else None
    return saw.ServiceAtRouter(
        int(one["waiting"]),
        float(one["oldest_waiting_s"] or 0.0),
        penalty_s if penalty_s is not None and math.isfinite(penalty_s) else None,
        {
            int(vi["instance"]): saw.ViAtRouter(
                bool(vi["attached"]),
                int(vi["tasks"]),
                {str(kind): int(count) for kind, count in vi["violations"].items()},
                tuple(_evidence(seen) for seen in vi.get("evidence", ())),
                int(vi["to_chunks"]),
                int(vi["to_bytes"]),
                int(vi["from_bytes"]),
            )
            for vi in one["vis"]
        },
    )


def _evidence(seen: dict[str, Any]) -> Evidence:
    return Evidence(
        str(seen["kind"]), str(seen["source"]), int(seen["chunk_id"]), str(seen["text"])
    )


def words_of(response: httpx.Response) -> str:
    return f"{response.status_code}: {response.text[:300]}"
