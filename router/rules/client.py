"""Asks a running router about rules, and brings it documents, over its management API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from packetcloud.chunk.http_api import trust_for
from packetcloud.router.errors import (
    AmbiguousRuleError,
    RouterUnreachableError,
    RuleNotFoundError,
    RulesUnavailableError,
)
from packetcloud.router.rules.schemas import (
    Installation,
    Refusal,
    RevocationTaken,
    RuleDetail,
    RuleEntry,
    RulePage,
    RuleSetInfo,
    RuleSetPage,
)

INSTALL_LIMIT_S = 900.0
"""For the answer to a document: a million rules take some 20 s, many compiled patterns more."""
_PIECE_BYTES = 1 << 18
_PAGE_COUNT = 100
_NOT_FOUND = 404
_CONFLICT = 409
_REFUSED = 422

Answer = TypeVar("Answer", bound=BaseModel)


class RuleClient:
    """A connection to one router.

    Args:
        timeout_s: for questions.
        transport: for tests.
    """

    def __init__(
        self, url: str, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url
        try:
            self._http = httpx.Client(
                base_url=url, timeout=timeout_s, verify=trust_for(url), transport=transport
            )
        except httpx.InvalidURL as error:
            raise RouterUnreachableError(f"{url}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def install(
        self, document: Path, moved: Callable[[int], None], *, is_dry_run: bool = False
    ) -> Installation | Refusal:
        """Bring a signed document; return what became of it.

        Args:
            moved: told how many bytes are on their way, now and then.

        Raises:
            RouterUnreachableError, RulesUnavailableError: nothing is known to have been installed.
        """
        with document.open("rb") as stream:

            def pieces() -> Iterator[bytes]:
                sent = 0
                while piece := stream.read(_PIECE_BYTES):
                    yield piece
                    sent += len(piece)
                    moved(sent)

            size = {"Content-Length": str(document.stat().st_size)}
            response = self._request(
                "POST",
                "/v1/rules",
                params={"dry_run": is_dry_run},
                content=pieces(),
                headers=size,
                timeout=INSTALL_LIMIT_S,
            )
        if response.status_code == _REFUSED:
            return self._read(response, Refusal)
        return self._checked(response, Installation)

    def revoke(self, revocation: bytes) -> RevocationTaken | Refusal:
        """Bring a signed revocation of a grant; return what became of it.

        Raises:
            RouterUnreachableError, RulesUnavailableError: it is not known to have been taken.
        """
        response = self._request(
            "POST", "/v1/rules/revocations", content=revocation, timeout=INSTALL_LIMIT_S
        )
        if response.status_code == _REFUSED:
            return self._read(response, Refusal)
        return self._checked(response, RevocationTaken)

    def rules(self, filters: dict[str, str]) -> Iterator[RuleEntry]:
        """Return the rules that the filters leave, page after page."""
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor is not None else {}
            response = self._request(
                "GET", "/v1/rules", params=filters | more | {"limit": str(_PAGE_COUNT)}
            )
            page = self._checked(response, RulePage)
            yield from page.rules
            cursor = page.cursor
            if cursor is None:
                return

    def sets(self) -> tuple[RuleSetPage, list[RuleSetInfo]]:
        """Return the last page, which has the sums, and all sets."""
        found: list[RuleSetInfo] = []
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor is not None else {}
            response = self._request(
                "GET", "/v1/rules/sets", params=more | {"limit": str(_PAGE_COUNT)}
            )
            page = self._checked(response, RuleSetPage)
            found += page.sets
            cursor = page.cursor
            if cursor is None:
                return page, found

    def rule(self, set_name: str, name: str, signer: str | None) -> RuleDetail:
        """Return one rule. Raises: RuleNotFoundError, AmbiguousRuleError."""
        named = {"set": set_name, "name": name} | ({"signer": signer} if signer else {})
        return self._checked(self._request("GET", "/v1/rules/rule", params=named), RuleDetail)

    def _request(self, method: str, path: str, **more: object) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)  # type: ignore[arg-type]  # as httpx takes them
        except httpx.HTTPError as error:
            raise RouterUnreachableError(
                f"no router at {self._url}: {error}; is it running, and is this its "
                "[router] control_listen?"
            ) from None

    def _checked(self, response: httpx.Response, kind: type[Answer]) -> Answer:
        if response.is_success:
            return self._read(response, kind)
        detail = self._read(response, Refusal).detail
        if response.status_code == _NOT_FOUND:
            raise RuleNotFoundError(detail)
        if response.status_code == _CONFLICT:
            raise AmbiguousRuleError(detail)
        raise RulesUnavailableError(detail)

    def _read(self, response: httpx.Response, kind: type[Answer]) -> Answer:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError:
            raise RouterUnreachableError(
                f"{self._url} answers with status {response.status_code}, but not as a router that "
                "keeps rules; is this its [router] control_listen?"
            ) from None
