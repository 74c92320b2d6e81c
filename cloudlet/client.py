"""Asks a running controller's management API: what `packetcloud cloudlet`, `vi` and `node` use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from packetcloud.chunk.http_api import trust_for
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.schemas import (
    NodeInfo,
    OperationAccepted,
    OperationInfo,
    ServiceInfo,
    StatusInfo,
    ViInfo,
)

ASK_WAIT_S = 20.0
"""How long one question after an operation waits at the controller."""
_NODES = TypeAdapter(list[NodeInfo])
_SERVICES = TypeAdapter(list[ServiceInfo])
_VIS = TypeAdapter(list[ViInfo])
Answer = TypeVar("Answer", bound=BaseModel)


class ControllerUnreachableError(CloudletError):
    """No controller answers there: see that it runs, and that this is its `api_listen`."""


class NoSuchThingError(CloudletError):
    """The controller knows no VI, or no operation, of this number."""


class CloudletClient:
    """One controller; use it in a `with` statement.

    Every method raises `ControllerUnreachableError` when there is no answer, or not a controller's.
    """

    def __init__(
        self, url: str, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._advice = "does `packetcloud cloudlet run` run, and is this its api_listen?"
        try:
            self._client = httpx.Client(
                base_url=url,
                timeout=timeout_s,
                trust_env=False,
                verify=trust_for(url),
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise ControllerUnreachableError(f"{url}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self) -> StatusInfo:
        return self._model(StatusInfo, "/v1/status")

    def nodes(self) -> list[NodeInfo]:
        return self._list(_NODES, "/v1/nodes")

    def services(self) -> list[ServiceInfo]:
        return self._list(_SERVICES, "/v1/services")

    def vis(self) -> list[ViInfo]:
        return self._list(_VIS, "/v1/vis")

    def vi(self, number: int) -> ViInfo:
        """Return one VI. Raises: NoSuchThingError."""
        return self._model(ViInfo, f"/v1/vis/{number}")

    def logs(self, number: int) -> str:
        """Return the end of a VI's console. Raises: NoSuchThingError, CloudletError."""
        return self._ask("GET", f"/v1/vis/{number}/logs").text

    def launch(self, service: str, vi_type: str | None, node: str | None) -> OperationInfo:
        body = {"service": service, "vi_type": vi_type, "node": node}
        return self._begin("/v1/vis", body)

    def stop(self, number: int, *, drain: bool) -> OperationInfo:
        return self._begin(f"/v1/vis/{number}/stop", {"drain": drain})

    def restart(self, number: int) -> OperationInfo:
        return self._begin(f"/v1/vis/{number}/restart", {})

    def resize(self, number: int, vi_type: str) -> OperationInfo:
        return self._begin(f"/v1/vis/{number}/resize", {"vi_type": vi_type})

    def migrate(self, number: int, node: str | None) -> OperationInfo:
        return self._begin(f"/v1/vis/{number}/migrate", {"node": node})

    def evacuate(self, node: str, *, over: bool) -> OperationInfo:
        return self._begin(f"/v1/nodes/{node}/evacuate", {"over": over})

    def operation(self, number: int, wait_s: float = 0.0) -> OperationInfo:
        """Return how an operation is, once it ended or `wait_s` are over.

        Raises: NoSuchThingError.
        """
        path = f"/v1/operations/{number}"
        timeout = self._timeout_s + wait_s
        response = self._ask("GET", path, params={"wait_s": wait_s}, timeout=timeout)
        return self._read(OperationInfo, response)

    def await_end(self, begun: OperationInfo, limit_s: float) -> OperationInfo:
        """Wait for the end of an operation, at most `limit_s`; then it is still `running`."""
        left_s = limit_s
        while begun.state == "running" and left_s > 0:
            begun = self.operation(begun.operation, min(left_s, ASK_WAIT_S))
            left_s -= ASK_WAIT_S
        return begun

    def _begin(self, path: str, body: Mapping[str, Any]) -> OperationInfo:
        response = self._ask("POST", path, json=body)
        return self.operation(self._read(OperationAccepted, response).operation)

    def _model(self, model: type[Answer], path: str) -> Answer:
        return self._read(model, self._ask("GET", path))

    def _read(self, model: type[Answer], response: httpx.Response) -> Answer:
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            raise self._not_a_controller() from None

    def _list(self, adapter: TypeAdapter[list[Answer]], path: str) -> list[Answer]:
        try:
            return adapter.validate_json(self._ask("GET", path).content)
        except ValidationError:
            raise self._not_a_controller() from None

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            text = f"no controller at {self._url}: {error}; {self._advice}"
            raise ControllerUnreachableError(text) from None
        if response.is_success:
            return response
        detail = _detail_of(response)
        if detail is None:
            raise self._not_a_controller()
        if response.status_code == 404:
            raise NoSuchThingError(detail)
        raise CloudletError(f"the controller at {self._url}: {detail}")

    def _not_a_controller(self) -> ControllerUnreachableError:
        return ControllerUnreachableError(
            f"{self._url} answers, but not as a controller of this version; {self._advice}"
        )


def _detail_of(response: httpx.Response) -> str | None:
    """Return what our API says of a refusal; None: somebody else answers there."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(detail, list):  # FastAPI's own check of a request
        return "; ".join(f"{one.get('loc', ['?'])[-1]}: {one.get('msg')}" for one in detail)
    return None if detail == "Not Found" else str(detail)
