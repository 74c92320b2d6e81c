"""The answers of a receiver of files, and what became of them.

Source: docs/protocol/file-transfer.md, "Receiver".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.names import GUID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.errors import SendQueueFullError
from packetcloud.host.file_format import Answer, AnswerState, Finish, Offer
from packetcloud.host.inbox_folder import CompletedFile
from packetcloud.host.promise import Promise
from packetcloud.host.results import SendResult

ANSWER_LIFETIME_S = 30.0
"""A later answer finds nobody: the sender asks again every 10 s at the latest."""


MAX_PENDING_COUNT = 1024
"""Answers on their way, at most 40 KiB each. More are not sent: whoever asked asks again."""
MAX_PENDING_PER_SOURCE_COUNT = 64
"""Of them to one source: one that asks and takes no answers must not use up what this host may have
on its way."""


class FileAnswers:
    """Sends answers; counts in `counters` those that did not arrive."""

    def __init__(self, endpoint: Endpoint, counters: Counter[str]) -> None:
        self._endpoint = endpoint
        self._counters = counters
        self._pending: set[Promise[SendResult]] = set()
        self._pending_of: Counter[bytes] = Counter()
        """How many of them go to each source; only those with some."""

    def send(self, source: bytes, answer: Answer) -> None:
        """Send one answer to the host that asked, unless too many are on their way."""
        of_source = self._pending_of.get(source, 0)
        if len(self._pending) >= MAX_PENDING_COUNT or of_source >= MAX_PENDING_PER_SOURCE_COUNT:
            self._counters["answers_not_sent_total"] += 1
            return
        try:
            promise = self._endpoint.send(
                GUID(source),
                answer.to_bytes(),
                payload_type=PayloadType.FILE,
                lifetime_s=ANSWER_LIFETIME_S,
            )
        except SendQueueFullError:
            self._counters["answers_not_sent_total"] += 1
            return
        self._pending.add(promise)
        self._pending_of[source] += 1
        promise.addBoth(self._ended, promise, source)

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

    def _ended(self, result: Any, promise: Promise[SendResult], source: bytes) -> Any:
        self._pending.discard(promise)
        self._pending_of[source] -= 1
        if not self._pending_of[source]:
            del self._pending_of[source]
        if not (isinstance(result, SendResult) and result.ok):
            self._counters["answers_undelivered_total"] += 1
        return result


async def _all_ended(promises: list[Promise[SendResult]]) -> None:
    for promise in promises:
        await promise
