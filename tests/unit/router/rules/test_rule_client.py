"""What the client makes of a router's answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.router.errors import (
    AmbiguousRuleError,
    RouterUnreachableError,
    RuleNotFoundError,
    RulesUnavailableError,
)
from packetcloud.router.rules.client import RuleClient
from packetcloud.router.rules.schemas import Refusal, RevocationTaken

Answer = Callable[[httpx.Request], httpx.Response]


def _client(answer: Answer) -> RuleClient:
    return RuleClient("http://router", 1.0, httpx.MockTransport(answer))


def _refusal(status: int, reason: str = "word") -> Answer:
    return lambda _: httpx.Response(status, json={"reason": reason, "detail": "because"})


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (_refusal(404), RuleNotFoundError, "because"),
        (_refusal(409), AmbiguousRuleError, "because"),
        (_refusal(503), RulesUnavailableError, "because"),
        (_refusal(429), RulesUnavailableError, "because"),
        (lambda _: httpx.Response(200, text="hello"), RouterUnreachableError, "not as a router"),
        (lambda _: httpx.Response(404, text="hello"), RouterUnreachableError, "status 404"),
    ],
)
def test_each_kind_of_no_is_an_error(
    answer: Answer, error: type[PacketCloudError], words: str
) -> None:
    """With the router's own words, or with what to look at."""
    with _client(answer) as client, pytest.raises(error, match=words):
        client.rule("set", "name", None)


def test_an_absent_router_is_named() -> None:
    """With its address and what may be wrong."""

    def nobody(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with _client(nobody) as client, pytest.raises(RouterUnreachableError, match="http://router"):
        client.sets()


def test_a_document_is_streamed_and_its_refusal_is_an_answer(tmp_path: Path) -> None:
    """Whole, with its length in front, and the bytes on their way are told."""
    path = tmp_path / "document"
    path.write_bytes(bytes(range(256)) * 4096)
    seen: list[Any] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append((request.read(), request.headers["content-length"], str(request.url)))
        return _refusal(422, "forged")(request)

    moved: list[int] = []
    with _client(refuse) as client:
        answer = client.install(path, moved.append, is_dry_run=True)
    assert answer == Refusal(reason="forged", detail="because")
    ((body, length, url),) = seen
    assert body == path.read_bytes() and int(length) == len(body) == moved[-1]
    assert moved == sorted(moved) and url.endswith("?dry_run=true")


def test_a_revocation_is_brought_and_its_refusal_is_an_answer() -> None:
    taken = {"grant": "ab", "issuer": "cd", "until_s": 9, "is_new": True, "rules": 2, "version": 3}
    seen: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request.read())
        return httpx.Response(200, json=taken)

    with _client(take) as client:
        assert client.revoke(b"{}") == RevocationTaken(**taken)
    with _client(_refusal(422, "expired")) as client:
        assert client.revoke(b"{}") == Refusal(reason="expired", detail="because")
    assert seen == [b"{}"]


def test_pages_are_asked_for_to_the_end() -> None:
    """With the cursor of each, until there is none."""
    rule = {
        "number": 1, "set": "s", "signer": "", "is_own": True, "name": "r", "service": "",
        "mode": "active", "is_suspended": False, "document": "", "item": {},
        "valid_from_s": None, "valid_until_s": None, "state": "in force",
    }  # fmt: skip
    cursors: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        cursors.append(cursor)
        following = {None: "a", "a": "b", "b": None}[cursor]
        rules = [] if cursor == "a" else [rule]
        return httpx.Response(200, json={"version": 1, "rules": rules, "cursor": following})

    with _client(answer) as client:
        assert len(list(client.rules({"set": "s"}))) == 2
    assert cursors == [None, "a", "b"]
