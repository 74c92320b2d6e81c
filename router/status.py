"""Asks a running router's management API how it is."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from pydantic import TypeAdapter, ValidationError

from packetcloud.chunk.http_api import trust_for
from packetcloud.router.errors import RouterUnreachableError
from packetcloud.router.schemas import Info, NeighbourInfo, ServiceInfo

_NEIGHBOURS = TypeAdapter(list[NeighbourInfo])
_SERVICES = TypeAdapter(list[ServiceInfo])


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """The answers of /info, /neighbours and /services."""

    info: Info
    neighbours: list[NeighbourInfo]
    services: list[ServiceInfo]

    @property
    def is_fine(self) -> bool:
        return not self.info.is_draining and self.info.conservation.balance == 0

    @property
    def document(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return {
            "info": self.info.model_dump(),
            "neighbours": [one.model_dump() for one in self.neighbours],
            "services": [one.model_dump() for one in self.services],
        }


def fetch_status(
    url: str, timeout_s: float, transport: httpx.BaseTransport | None = None
) -> RouterStatus:
    """Ask the router whose management API is at `url`.

    Raises:
        RouterUnreachableError: no answer, or not a router's answer.
    """
    advice = "is the router running, and is this its [router] control_listen?"
    try:
        with httpx.Client(
            base_url=url, timeout=timeout_s, verify=trust_for(url), transport=transport
        ) as client:
            return RouterStatus(
                Info.model_validate_json(_get(client, "/info")),
                _NEIGHBOURS.validate_json(_get(client, "/neighbours")),
                _SERVICES.validate_json(_get(client, "/services")),
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RouterUnreachableError(f"no router at {url}: {error}; {advice}") from None
    except ValidationError:
        raise RouterUnreachableError(f"{url} answers, but not as a router; {advice}") from None


def _get(client: httpx.Client, path: str) -> bytes:
    response = client.get(path)
    response.raise_for_status()
    return response.content
