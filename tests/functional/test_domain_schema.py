"""Requests made from the description of the API, right ones and wrong ones, for each role.

Every answer is checked against the description: what breaks it is refused, what keeps to it is not
refused for its form. The state is the one in memory: what is judged is the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.checks import unsupported_method
from schemathesis.config import SchemathesisConfig

from packetcloud.domain_controller.api.signatures import sign_request
from tests.functional.domain_place import AUTHORITY, Place
from tests.functional.test_domain_openapi import FILE

MAX_EXAMPLES_COUNT = 4
"""Of each endpoint, for who may use it; besides them each bound and each mistake by itself."""
LEFT_OUT = ("/v1/events",)
"""A stream has no end to wait for; test_domain_events looks at it."""
CHECKS = {
    # It has a list of its own, and two cores shared by all workers are slow at times.
    "suppress-health-check": ["too_slow"],
    "checks": {
        # 409 and 422: the description is kept to, and the values do not fit what there is, or each
        # other.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "403", "404", "409", "422"]
        },
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "413", "422"]
        },
        "missing_required_header": {"expected-statuses": ["400", "401", "403", "404"]},
    },
}


class Signing:
    """An app that signs for somebody what comes in unsigned, and hands it to the gate."""

    def __init__(self, who: str | None) -> None:
        self._place = Place()
        self._who = who

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/openapi.json":
            await _send_document(send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        url = b"http://" + AUTHORITY.encode() + scope["raw_path"]
        if scope["query_string"]:
            url += b"?" + scope["query_string"]
        kept = [(name, value) for name, value in scope["headers"] if name != b"host"]
        request = httpx.Request(scope["method"], url.decode("latin-1"), headers=kept, content=body)
        if self._who is not None:
            now_s = self._place.clock.now_ms / 1000
            key = self._place.keys[self._who]
            sign_request(request, body, key, self._place.nonce(), now_s)
        target, _, query = request.url.raw_path.partition(b"?")
        signed = scope | {
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "raw_path": target,
            "path": request.url.path,
            "query_string": query,
        }
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._place.made.gate(signed, again, send)


async def _send_document(send: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": FILE.read_bytes()})


def _judged(who: str | None, is_thorough: bool = False) -> Callable[..., None]:
    """Return a test for each endpoint; thorough for those who get further than the gate."""
    count = MAX_EXAMPLES_COUNT if is_thorough else 1
    generation = {"max-examples": count, "deterministic": True, "database": "none"}
    phases = {"coverage": {"enabled": is_thorough}}
    config = SchemathesisConfig.from_dict(CHECKS | {"generation": generation, "phases": phases})
    schema = schemathesis.openapi.from_asgi("/openapi.json", Signing(who), config=config).exclude(
        path=list(LEFT_OUT)
    )

    @schema.parametrize()
    def judge(case: Any) -> None:
        """Every answer is one that the description has."""
        if isinstance(case.query, dict):
            case.query.pop("wait_s", None)  # nothing will happen to wait for
        # A stranger is told nothing about methods either.
        left_out = [] if who is not None else [unsupported_method]
        case.call_and_validate(excluded_checks=left_out)

    judged: Callable[..., None] = pytest.mark.timeout(600)(judge)
    return judged


test_as_the_isp = _judged("noc", is_thorough=True)
test_as_a_tenant = _judged("acme", is_thorough=True)
test_as_an_auditor = _judged("auditors")
test_as_a_cloudlet = _judged("edge-1")
test_as_nobody = _judged(None)
