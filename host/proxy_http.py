"""What of HTTP a proxy needs besides h11: where a request goes, which headers go along, and the
pages that say why something did not come about.

Source: RFC 9110, sections 7.6 and 9.3.6; RFC 9112, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from packetcloud.chunk.streams.wire import ResetCode
from packetcloud.host.errors import HostError

Headers = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_STATUS = {
    ResetCode.NOT_ALLOWED: 403,
    ResetCode.TIMED_OUT: 504,
    ResetCode.TOO_MANY: 503,
    ResetCode.TRANSLATOR_LOST: 503,
    ResetCode.SHUTTING_DOWN: 503,
}


class HttpProxyError(HostError):
    """A request that cannot be served; its client gets the status and the text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def page(self) -> bytes:
        """Return the whole response."""
        return _page(self.status, str(self))


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """Where the first request of a client goes."""

    host: str
    port: int
    is_tunnel: bool
    rest: bytes = b""
    """Of a tunnel: what came after the request."""


def read_tunnel_request(head: bytes) -> ProxyRequest | None:
    """Return what the first request of a connection wants; None: it is not whole yet.

    Raises:
        HttpProxyError: it is no request to a proxy.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise HttpProxyError(400, f"no HTTP request: {error}") from None
    if not isinstance(event, h11.Request):
        return None
    if event.method == b"CONNECT":
        host, port = _authority(event.target.decode("ascii", "replace"), None)
        return ProxyRequest(host, port, True, connection.trailing_data[0])
    host, port, _ = split_target(event)
    return ProxyRequest(host, port, False)


def split_target(request: h11.Request) -> tuple[str, int, bytes]:
    """Return host, port and the origin form of a request's absolute URI.

    Raises:
        HttpProxyError: it has none, or one of another scheme.
    """
    text = request.target.decode("ascii", "replace")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise HttpProxyError(400, "the request's target is no URI") from None
    if not parts.scheme or not host:
        raise HttpProxyError(
            400, "this is a proxy: it takes CONNECT and requests with a whole http:// URI"
        )
    if parts.scheme.lower() != "http":
        raise HttpProxyError(400, f"scheme {parts.scheme}: use CONNECT for anything but http")
    path = parts.path or ("*" if request.method == b"OPTIONS" else "/")
    origin = f"{path}?{parts.query}" if parts.query or text.endswith("?") else path
    return host, 80 if port is None else port, origin.encode("ascii", "replace")


def forwarded_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that go along: none that speak of one connection only."""
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for word in value.split(b",")
    }
    drop = _HOP_BY_HOP | named
    return [(name, value) for name, value in pairs if name.lower() not in drop]


def response_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response for its client.

    A length beside a transfer encoding means nothing (RFC 9112, section 6.3), and may be wrong.
    """
    pairs = list(headers)
    kept = forwarded_headers(pairs)
    if any(name.lower() == b"transfer-encoding" for name, _ in pairs):
        kept = [pair for pair in kept if pair[0].lower() != b"content-length"]
    return kept


def request_headers(request: h11.Request) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request for its server: Host is that of the URI."""
    authority = urlsplit(request.target.decode("ascii", "replace")).netloc.rpartition("@")[2]
    kept = [pair for pair in forwarded_headers(request.headers) if pair[0].lower() != b"host"]
    # A body whose length nobody said is chunked, and stays so.
    if any(name.lower() == b"transfer-encoding" for name, _ in request.headers):
        kept = [pair for pair in kept if pair[0].lower() != b"content-length"]
        kept.append((b"Transfer-Encoding", b"chunked"))
    return [(b"Host", authority.encode("ascii", "replace")), *kept]


def error_page(code: ResetCode, text: str) -> bytes:
    """Return the response that says why a connection did not come about."""
    return _page(_STATUS.get(code, 502), text or code.name.lower().replace("_", " "))


def _page(status: int, text: str) -> bytes:
    body = f"packetcloud host proxy: {text}\n".encode()
    phrase = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    port = default_port if port is None else port
    if not host or not port or parts.path or parts.query:
        raise HttpProxyError(400, "CONNECT takes HOST:PORT")
    return host, port
