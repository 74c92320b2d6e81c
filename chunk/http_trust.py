"""Which servers a client of an HTTP API trusts; where nobody has to be trusted, nothing is read."""

from __future__ import annotations

import ssl


def trust_for(url: str) -> ssl.SSLContext | bool:
    """Return what httpx is to check servers with: its usual authorities, for plain HTTP none.

    httpx reads all authorities of the machine for every client, also where no TLS is spoken: that
    takes 20 ms of a processor, most of what a question to an API on this machine costs.
    """
    if url.lower().startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return True
