"""The requests of `packetcloud bench domain`, which signs them without our client."""

from __future__ import annotations

import time

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.domain_controller.api.signatures import (
    HeaderLines,
    RequestHead,
    SignatureRefusedError,
    check_body,
    check_head,
)
from packetcloud.testbed.bench.domain_clients import PATH, signed

ADDRESS = ("127.0.0.1", 4800)
AUTHORITY = "127.0.0.1:4800"


def test_a_request_is_signed_as_the_controller_wants_it() -> None:
    """By its own check; another method, key or body is refused."""
    identity = Identity.generate()
    request = signed(identity, ADDRESS, "some-key", {"count": 1})
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == f"POST {PATH} HTTP/1.1"
    pairs = [line.split(": ", 1) for line in lines]
    headers = HeaderLines(tuple((name, value) for name, value in pairs))
    url = f"http://{AUTHORITY}{PATH}"

    def check(method: str = "POST", headers: HeaderLines = headers, body: bytes = body) -> str:
        checked = check_head(
            RequestHead(method, url, headers),
            {identity.guid.hex: identity.public_key}.get,
            {AUTHORITY},
            time.time(),
        )
        return check_body(checked, body).key_id

    assert check() == identity.guid.hex
    others = ((name, value.replace("some-key", "other")) for name, value in pairs)
    other = HeaderLines(tuple(others))
    for wrong in ({"method": "PUT"}, {"headers": other}, {"body": body + b" "}):
        with pytest.raises(SignatureRefusedError):
            check(**wrong)  # type: ignore[arg-type]
