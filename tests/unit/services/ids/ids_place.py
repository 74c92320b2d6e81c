"""A started ids service, what is sent to it, and what it told."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID
from packetcloud.chunk.streams.wire import Data, Message, MessageKind, encode_message
from packetcloud.services.ids.service import Ids
from packetcloud.services.testing import (
    HARNESS_DESTINATION,
    HARNESS_SOURCE,
    ProcessResult,
    ServiceHarness,
)

HEAD = "chunk any any -> any any"
MALICIOUS = f'drop {HEAD} (content:"malicious"; sid:1;)'
DROPPED_BY_1 = "ids: sid 1: "


class Place:
    """A folder with a rule file and alerts, for one service after the other."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.rules = folder / "site.rules"
        self.alerts = folder / "alerts.json"
        self._stack = stack

    def write(self, *lines: str) -> None:
        self.rules.write_text("\n".join(lines) + "\n")

    def start(self, *lines: str, **settings: object) -> ServiceHarness:
        """Start a service with these rules, or those of before; a setting None is left out."""
        if lines:
            self.write(*lines)
        values = {"rules": self.rules, "alert_file": self.alerts, "stats_interval_s": 0} | settings
        texts = {key: str(value) for key, value in values.items() if value is not None}
        return self._stack.enter_context(ServiceHarness("ids", texts))

    def told(self, event_type: str = "alert") -> list[dict[str, Any]]:
        documents = [json.loads(line) for line in self.alerts.read_text().splitlines()]
        return [one for one in documents if one["event_type"] == event_type]

    def sids(self) -> list[int]:
        return [one["alert"]["signature_id"] for one in self.told()]

    def events(self) -> list[str]:
        return [one["anomaly"]["event"] for one in self.told("anomaly")]


class Sent(NamedTuple):
    """A chunk, and what becomes of it: the reason why it is dropped, whatever it is, or nothing."""

    payload: bytes
    dropped: str | bool = False
    number: int | None = None
    source: GUID = HARNESS_SOURCE
    destination: GUID = HARNESS_DESTINATION
    kind: int = PayloadType.DATA

    def to(self, harness: ServiceHarness) -> ProcessResult:
        """Send it."""
        return harness.process(
            self.payload,
            chunk_id=self.number,
            source=self.source,
            destination=self.destination,
            payload_type=self.kind,
        )

    def check(self, harness: ServiceHarness) -> None:
        """Send it, and see what becomes of it."""
        result = self.to(harness)
        if isinstance(self.dropped, str):
            assert (result.code, result.reason) == (VerdictCode.DROP, self.dropped), self
        else:
            assert is_dropped(result) is self.dropped, self


def streams(*frames: Data, dropped: str | bool = False, session: int = 1) -> Sent:
    """Return a chunk with parts of streams."""
    payload = encode_message(Message(MessageKind.REQUEST, session, 1, frames))
    return Sent(payload, dropped, kind=PayloadType.STREAM)


def ids_of(harness: ServiceHarness) -> Ids:
    assert isinstance(harness.service, Ids)
    return harness.service


def is_dropped(result: ProcessResult) -> bool:
    assert result.code in (VerdictCode.DROP, VerdictCode.FORWARD), result.reason
    return result.code is VerdictCode.DROP
