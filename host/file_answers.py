"""The answers of a receiver of files, and what became of them.

Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.names import GUID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.file_format import Answer, AnswerState, Finish, Offer
from packetcloud.host.inbox_folder import CompletedFile
from packetcloud.host.promise import Promise
from packetcloud.host.results import SendResult

ANSWER_LIFETIME_S = 30.0
"""A later answer finds nobody: the sender asks again every 10 s at the latest."""


class FileAnswers:
    """Sends answers; counts in `counters` those that did not arrive."""

    def __init__(self, endpoint: Endpoint, counters: Counter[str]) -> None:
        self._endpoint = endpoint
        self._counters = counters
        self._pending: set[Promise[SendResult]] = set()

    def send(self, source: bytes, answer: Answer) -> None:
        """Send one answer to the host that asked."""
        promise = self._endpoint.send(
            GUID(source),
            answer.to_bytes(),
            payload_type=PayloadType.FILE,
            lifetime_s=ANSWER_LIFETIME_S,
        )
        self._pending.add(promise)
        promise.addBoth(self._ended, promise)

    def complete(self, source: bytes, asked: Offer | Finish, done: CompletedFile) -> None:
        """Answer that the file was received before."""
        answer = Answer(
            asked.transfer_id,
            asked.question,
            AnswerState.COMPLETE,
            done.size_bytes,
            done.digest,
            done.name,
        )
        self.send(source, answer)

    def all_ended(self) -> Promise[None]:
        """Return a promise that is kept when every answer sent so far has ended."""
        return Promise.from_coroutine(_all_ended(list(self._pending)))

    def _ended(self, result: Any, promise: Promise[SendResult]) -> Any:
        self._pending.discard(promise)
        if not (isinstance(result, SendResult) and result.ok):
            self._counters["answers_undelivered_total"] += 1
        return result


async def _all_ended(promises: list[Promise[SendResult]]) -> None:
    for promise in promises:
        await promise
