"""Reads a capture from a running router's management API."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import httpx

from packetcloud.chunk.http_api import trust_for
from packetcloud.router.errors import RouterUnreachableError

_CONNECT_LIMIT_S = 5.0


def stream_capture(
    url: str,
    query: Mapping[str, object],
    transport: httpx.BaseTransport | None = None,
) -> Generator[bytes, None, None]:
    """Yield a capture as it comes; closing the iterator ends it.

    Args:
        query: as `schemas.CaptureQuery` names it.

    Raises:
        RouterUnreachableError: no answer, or the router says no; the text has its reason.
    """
    advice = "is the router running, and is this its [router] control_listen?"
    timeout = httpx.Timeout(_CONNECT_LIMIT_S, read=None)
    try:
        with (
            httpx.Client(
                base_url=url, timeout=timeout, verify=trust_for(url), transport=transport
            ) as client,
            client.stream("GET", "/chunks/capture", params=dict(query)) as response,  # type: ignore[arg-type]  # the router checks them
        ):
            if response.is_error:
                raise RouterUnreachableError(f"router at {url}: {_detail(response)}")
            yield from response.iter_raw()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RouterUnreachableError(f"no capture from {url}: {error}; {advice}") from None


def _detail(response: httpx.Response) -> str:
    response.read()
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
