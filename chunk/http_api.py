"""What servers and clients of our HTTP APIs agree on: idle connections, and whom to trust."""

from __future__ import annotations

import ssl

KEEP_ALIVE_S = 30
"""So long a server keeps an idle connection. httpx takes one again for 5 s; a server that closes it
after just as long (as uvicorn does if not told) can do so while a question is on its way."""


def trust_for(url: str) -> ssl.SSLContext | bool:
    """Return what httpx is to check servers with: its usual authorities, for plain HTTP none.

    httpx reads all authorities of the machine for every client, also where no TLS is spoken: that
    takes 20 ms of a processor, most of what a question to an API on this machine costs.
    """
    if url.lower().startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return True
