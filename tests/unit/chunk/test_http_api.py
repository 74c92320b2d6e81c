"""Whom clients of HTTP APIs trust."""

from __future__ import annotations

import ssl

import pytest

from packetcloud.chunk.http_api import trust_for


@pytest.mark.parametrize("url", ["https://127.0.0.1:4800", "HTTPS://a", "", "127.0.0.1:4800"])
def test_the_usual_authorities_where_tls_may_be_spoken(url: str) -> None:
    """Whatever is not plainly HTTP."""
    assert trust_for(url) is True


@pytest.mark.parametrize("url", ["http://127.0.0.1:4800", "HTTP://[::1]:1/"])
def test_nobody_where_no_tls_is_spoken(url: str) -> None:
    """No authority is read; a server that spoke TLS all the same would be refused."""
    trusted = trust_for(url)
    assert isinstance(trusted, ssl.SSLContext)
    assert trusted.get_ca_certs() == []
    assert trusted.verify_mode is ssl.CERT_REQUIRED and trusted.check_hostname
