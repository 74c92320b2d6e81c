"""Asks a domain controller: signs each request, reads answers, says what went wrong.

What `packetcloud tenant`, `reservation`, `bill` and so on use; so can programs of tenants.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from packetcloud.chunk.http_api import trust_for
from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.fields import MAX_WAIT_S
from packetcloud.domain_controller.api.problem_info import ProblemInfo
from packetcloud.domain_controller.api.signatures import sign_request
from packetcloud.domain_controller.errors import DomainError

TRIES_COUNT = 4
"""Of a request that was answered "busy", or not at all; the same idempotency key, signed anew."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0
NONCE_BYTES = 18
Answer = TypeVar("Answer", bound=BaseModel)


class DomainUnreachableError(DomainError):
    """No domain controller answers there: see that it runs, and that this is its address."""


class RefusedError(DomainError):
    """The domain controller does not do it; the text is its reason.

    Attributes:
        kind: one word for each kind of reason.
        status: of HTTP.
    """

    def __init__(self, kind: str, status: int, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status


class SignedAuth(httpx.Auth):
    """Signs requests as they are sent, each try with a nonce of its own."""

    requires_request_body = True

    def __init__(
        self,
        identity: Identity,
        clock_s: Callable[[], float] = time.time,
        new_nonce: Callable[[], str] = lambda: secrets.token_urlsafe(NONCE_BYTES),
    ) -> None:
        self._identity = identity
        self._clock_s = clock_s
        self._new_nonce = new_nonce

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        sign_request(request, request.content, self._identity, self._new_nonce(), self._clock_s())
        yield request


class DomainClient:
    """One domain controller, asked by one key; use it in a `with` statement.

    Every method raises `DomainUnreachableError` when there is no answer, or not a domain
    controller's, and `RefusedError` when it says no.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        timeout_s: float = 20.0,
        *,
        ca_file: str | None = None,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._pause = pause
        try:
            self._client = httpx.Client(
                base_url=url,
                auth=SignedAuth(identity),
                timeout=timeout_s,
                trust_env=False,
                verify=_trusted(url, ca_file),
                transport=transport,
            )
        except (httpx.InvalidURL, OSError) as error:
            raise DomainUnreachableError(f"{url}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, model: type[Answer], path: str, **query: object) -> Answer:
        """Read something."""
        return self._read(model, self._ask("GET", path, params=_given(query)))

    def ask(self, model: type[Answer], path: str, body: Mapping[str, Any]) -> Answer:
        """Ask something that changes nothing and has a body: a quote."""
        return self._read(model, self._ask("POST", path, json=body))

    def make(
        self,
        model: type[Answer],
        path: str,
        body: Mapping[str, Any] | None,
        key: str | None = None,
    ) -> Answer:
        """Ask for something new. Tries that follow carry the same idempotency key.

        Args:
            key: None: one of its own, so that it is asked for once however often it is sent.
        """
        headers = {"Idempotency-Key": key or secrets.token_urlsafe(NONCE_BYTES)}
        options: dict[str, Any] = {} if body is None else {"json": body}
        return self._read(model, self._ask("POST", path, headers=headers, **options))

    def change(
        self, model: type[Answer], method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Change something that there is: doing it twice is doing it once."""
        options = {} if body is None else {"json": body}
        return self._read(model, self._ask(method, path, **options))

    def all_pages(self, model: type[Answer], path: str, **query: object) -> Iterator[Answer]:
        """Read a list to its end, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(model, path, **query, cursor=cursor)
            yield page
            cursor = getattr(page, "cursor", None)
            if cursor is None:
                return

    def await_operation(
        self,
        begun: say.OperationInfo,
        limit_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> say.OperationInfo:
        """Wait for the end of an operation, at most `limit_s`; then it is still `running`."""
        end_s = clock_s() + limit_s
        while begun.state == "running" and (left_s := end_s - clock_s()) > 0:
            wait_s = max(1, min(MAX_WAIT_S, int(left_s)))
            begun = self._wait(say.OperationInfo, f"/v1/operations/{begun.id}", wait_s=wait_s)
        return begun

    def await_reservation(
        self,
        reservation_id: str,
        is_there: Callable[[say.ReservationInfo], bool],
        limit_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> say.ReservationInfo:
        """Wait until a reservation is as wanted, at most `limit_s`."""
        path = f"/v1/reservations/{reservation_id}"
        end_s = clock_s() + limit_s
        info = self.get(say.ReservationInfo, path)
        while not is_there(info) and (left_s := end_s - clock_s()) > 0:
            wait_s = max(1, min(MAX_WAIT_S, int(left_s)))
            info = self._wait(say.ReservationInfo, path, wait_s=wait_s, beyond=info.version)
        return info

    def events(self, after: int | None = None) -> Iterator[say.EventInfo]:
        """Yield events as they happen, those after `after` first; ends when the stream does."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._timeout_s, read=60.0)
        try:
            with self._client.stream("GET", "/v1/events", headers=headers, timeout=timeout) as got:
                if not got.is_success:
                    got.read()
                    raise self._refusal(got)
                for line in got.iter_lines():
                    if line.startswith("data: "):
                        yield say.EventInfo.model_validate_json(line.removeprefix("data: "))
        except (httpx.HTTPError, ValidationError) as error:
            raise self._unreachable(error) from None

    def _wait(self, model: type[Answer], path: str, *, wait_s: int, **query: object) -> Answer:
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s)
        params = _given({"wait_s": wait_s, **query})
        return self._read(model, self._ask("GET", path, params=params, timeout=timeout))

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, TRIES_COUNT + 1):
            is_last = attempt == TRIES_COUNT
            try:
                response = self._client.request(method, path, **options)
            except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise self._unreachable(error) from None
            except httpx.HTTPError as error:
                if is_last:
                    raise self._unreachable(error) from None
            else:
                if response.is_success:
                    return response
                if response.status_code != 503 or is_last:
                    raise self._refusal(response)
                pause_s = max(pause_s, _retry_after_s(response))
            self._pause(min(pause_s, MAX_PAUSE_S))
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _read(self, model: type[Answer], response: httpx.Response) -> Answer:
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            raise self._not_a_controller() from None

    def _refusal(self, response: httpx.Response) -> DomainError:
        try:
            problem = ProblemInfo.model_validate_json(response.content)
        except ValidationError:
            return self._not_a_controller()
        kind = problem.type.rpartition(":")[2]
        return RefusedError(kind, problem.status, problem.detail)

    def _unreachable(self, error: Exception) -> DomainUnreachableError:
        return DomainUnreachableError(
            f"no domain controller at {self._url}: {error or type(error).__name__}; does "
            "`packetcloud domain run` run, and is this its [api] listen?"
        )

    def _not_a_controller(self) -> DomainUnreachableError:
        return DomainUnreachableError(
            f"{self._url} answers, but not as a domain controller of this version; is this its "
            "[api] listen?"
        )


def _given(query: Mapping[str, object]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def _trusted(url: str, ca_file: str | None) -> Any:
    if ca_file is None:
        return trust_for(url)
    import ssl

    return ssl.create_default_context(cafile=ca_file)
