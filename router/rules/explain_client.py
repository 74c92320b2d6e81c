"""Asks a running router what becomes of a chunk."""

from __future__ import annotations

import base64

import httpx
from pydantic import ValidationError

from packetcloud.chunk.http_api import trust_for
from packetcloud.chunk.names import GUID
from packetcloud.router.errors import RouterUnreachableError
from packetcloud.router.rules.explain_schemas import (
    MAX_EXPLAINED_PAYLOAD_BYTES,
    ExplainQuestion,
    Explanation,
)

_LIMIT_S = 30.0


def ask_router(
    url: str,
    head: bytes,
    payload: bytes | None,
    ingress: GUID,
    transport: httpx.BaseTransport | None = None,
) -> Explanation:
    """Return what the router at `url` says.

    Args:
        payload: without it, or if it is larger than a question may be, no pattern is found.

    Raises:
        RouterUnreachableError: no answer, or it says no; the text has its reason.
    """
    if payload is not None and len(payload) > MAX_EXPLAINED_PAYLOAD_BYTES:
        payload = None
    encoded = base64.b64encode(payload).decode() if payload is not None else None
    question = ExplainQuestion(header=head.hex(), payload=encoded, ingress=ingress.hex)
    advice = "is the router running, and is this its [router] control_listen?"
    try:
        with httpx.Client(
            base_url=url, timeout=_LIMIT_S, verify=trust_for(url), transport=transport
        ) as client:
            answer = client.post("/v1/rules/explain", json=question.model_dump())
            if answer.is_error:
                raise RouterUnreachableError(f"router at {url}: {answer.text[:1000]}")
            return Explanation.model_validate_json(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RouterUnreachableError(f"no router at {url}: {error}; {advice}") from None
    except ValidationError:
        raise RouterUnreachableError(f"{url} answers, but not as a router; {advice}") from None
