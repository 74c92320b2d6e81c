"""Where an LXD server is, and how both sides prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests
from pylxd.client import get_session_for_url

from packetcloud.cloudlet.errors import CloudletConfigError


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A server of this machine. Who may open the socket may do everything."""

    path: Path

    @property
    def endpoint(self) -> str:
        return f"http+unix://{quote(str(self.path), safe='')}"

    def session(self) -> requests.Session:
        return _session(get_session_for_url(self.endpoint))

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class HttpsServer:
    """A server elsewhere, known by its certificate, not by whoever signed that or by its name."""

    url: str
    """`https://HOST:PORT`."""
    server_certificate: Path
    """The very certificate that the server must show."""
    client_certificate: Path
    """Ours, which the server trusts: `lxc config trust add`."""
    client_key: Path

    def check(self) -> None:
        """Raises: CloudletConfigError: no such URL, or a file is not there."""
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
            raise CloudletConfigError(
                f"LXD server {self.url!r}: allowed: https://HOST:PORT, such as https://node1:8443"
            )
        for path in (self.server_certificate, self.client_certificate, self.client_key):
            if not path.is_file():
                raise CloudletConfigError(f"LXD server {self.url}: no file {path}")

    @property
    def endpoint(self) -> str:
        return self.url.rstrip("/")

    def session(self) -> requests.Session:
        certificate = (str(self.client_certificate), str(self.client_key))
        return _session(
            get_session_for_url(self.endpoint, str(self.server_certificate), certificate)
        )

    def __str__(self) -> str:
        return self.url


LxdAddress = UnixSocket | HttpsServer


def _session(session: requests.Session) -> requests.Session:
    # Neither a proxy nor a ~/.netrc of whoever runs us has a say here.
    session.trust_env = False
    return session
