"""Addresses as operators write them."""

from __future__ import annotations

from packetcloud.services.errors import ServiceConfigError


def parse_address(text: str, what: str) -> tuple[str, int]:
    """Split `HOST:PORT`; an IPv6 address stands in brackets.

    Args:
        what: whose address it is, for the error.

    Raises:
        ServiceConfigError: no host, or no port from 1 to 65535.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ServiceConfigError(
            f"{what} {text!r}: expected HOST:PORT with a port from 1 to 65535, "
            "for example 127.0.0.1:4700 or [::1]:4700"
        )
    return host, int(port)
