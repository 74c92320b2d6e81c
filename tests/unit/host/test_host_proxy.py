"""What clients of the proxy say: SOCKS and HTTP, whole, cut, with more behind, and wrong."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcloud.chunk.streams.wire import ResetCode
from packetcloud.host.proxy_http import (
    HttpProxyError,
    forwarded_headers,
    read_tunnel_request,
    request_headers,
    split_target,
)
from packetcloud.host.proxy_socks import SocksConversation, SocksRefusedError, SocksRequest

GREETING = b"\x05\x02\x02\x00"
NAME = b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"
SAID = [
    (GREETING + NAME, "example.org", 443, b"\x05\x00"),
    (GREETING + b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50", "192.0.2.7", 80, b"\x05\x00"),
    (
        GREETING + b"\x05\x01\x00\x04" + bytes.fromhex("20010db8" + "00" * 11 + "07") + b"\x00\x50",
        "2001:db8::7",
        80,
        b"\x05\x00",
    ),
    (b"\x04\x01\x00\x50\xc0\x00\x02\x07me\x00", "192.0.2.7", 80, b""),
    (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.org\x00", "example.org", 80, b""),
]


@pytest.mark.parametrize(("said", "host", "port", "reply"), SAID)
@pytest.mark.parametrize("rest", [b"", b"and more"])
def test_socks_whole_and_byte_by_byte(
    said: bytes, host: str, port: int, reply: bytes, rest: bytes
) -> None:
    """However it is cut, the same comes out; what follows belongs to the connection."""
    whole = SocksConversation()
    assert whole.receive(said + rest) == (reply, SocksRequest(host, port, rest))
    single = SocksConversation()
    replies, request = b"", None
    for number in range(len(said)):
        assert request is None
        answered, request = single.receive(said[number : number + 1])
        replies += answered
    assert (replies, request) == (reply, SocksRequest(host, port, b""))


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"\x05\x01\x02", b"\x05\xff"),
        (GREETING + b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", b"\x05\x07"),
        (GREETING + b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", b"\x05\x07"),
        (GREETING + b"\x05\x01\x00\x09\x00\x00", b"\x05\x08"),
        (GREETING + b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00", b"\x05\x01"),
        (GREETING + b"\x05\x01\x00\x03\x01\x00\x00\x50", b"\x05\x01"),
        (b"\x04\x02\x00\x50\x01\x02\x03\x04\x00", b"\x00\x5b"),
        (b"\x06", b""),
        (b"\x04\x01\x00\x50\x01\x02\x03\x04" + b"x" * 2000, b""),
    ],
)
def test_socks_that_cannot_be_is_refused(said: bytes, reply: bytes) -> None:
    """With the code that says why: UDP ASSOCIATE and BIND are not there."""
    with pytest.raises(SocksRefusedError) as refused:
        SocksConversation().receive(said)
    assert refused.value.reply.startswith(reply) and (reply or not refused.value.reply)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_socks_is_a_request_or_one_error(parts: list[bytes]) -> None:
    """Nothing else is raised, and nothing is kept without end."""
    conversation = SocksConversation()
    for part in (b"\x05\x01\x00", *parts):
        try:
            _, request = conversation.receive(part)
        except SocksRefusedError:
            return
        if request is not None:
            return


def test_failures_have_their_codes() -> None:
    """What the translator says becomes what SOCKS has for it."""
    conversation = SocksConversation()
    conversation.receive(GREETING)
    assert conversation.failed(ResetCode.NOT_ALLOWED)[1] == 2
    assert conversation.failed(ResetCode.CONNECTION_REFUSED)[1] == 5
    assert conversation.failed(ResetCode.TRANSLATOR_LOST)[1] == 1
    assert conversation.connected()[:2] == b"\x05\x00"


def test_http_requests_say_where_they_go() -> None:
    """CONNECT with what comes behind it, and whole URIs; a head that is not whole is waited for."""
    tunnel = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
    for end in range(len(tunnel)):
        assert read_tunnel_request(tunnel[:end]) is None
    found = read_tunnel_request(tunnel + b"\x16\x03")
    assert found is not None and found.is_tunnel
    assert (found.host, found.port, found.rest) == ("example.org", 443, b"\x16\x03")
    plain = read_tunnel_request(b"GET http://[2001:db8::7]/x?y HTTP/1.1\r\nHost: z\r\n\r\n")
    assert plain is not None and (plain.host, plain.port) == ("2001:db8::7", 80)


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "GET https://example.org/ HTTP/1.1",
        "GET http:/// HTTP/1.1",
        "GET http://x:99999/ HTTP/1.1",
        "CONNECT example.org HTTP/1.1",
        "CONNECT example.org:443/x HTTP/1.1",
        "no request at all",
    ],
)
def test_http_that_is_for_no_proxy_is_refused(line: str) -> None:
    """With status 400 and a sentence."""
    with pytest.raises(HttpProxyError) as refused:
        read_tunnel_request(f"{line}\r\nHost: x\r\n\r\n".encode())
    assert refused.value.status == 400
    assert b"HTTP/1.1 400 Bad Request" in refused.value.page()


@given(st.binary(max_size=200))
def test_any_http_is_a_request_or_one_error(data: bytes) -> None:
    """Nothing else is raised."""
    for head in (data, b"GET http://" + data + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        try:
            read_tunnel_request(head)
        except HttpProxyError:
            continue


def test_headers_of_one_connection_do_not_go_along() -> None:
    """Nor those that the client's `Connection` names; Host is that of the URI."""
    request = h11.Request(
        method="POST",
        target="http://me:secret@example.org:8080?q",
        headers=[
            ("Host", "other"),
            ("Connection", "close, X-Mine"),
            ("X-Mine", "1"),
            ("Proxy-Authorization", "Basic x"),
            ("Transfer-Encoding", "chunked"),
            ("X-Kept", "2"),
        ],
    )
    assert split_target(request) == ("example.org", 8080, b"/?q")
    sent = dict(request_headers(request))
    assert sent == {
        b"Host": b"example.org:8080",
        b"x-kept": b"2",
        b"Transfer-Encoding": b"chunked",
    }
    assert forwarded_headers([(b"Upgrade", b"x"), (b"A", b"b")]) == [(b"A", b"b")]
