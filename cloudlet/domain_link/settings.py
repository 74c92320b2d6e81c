"""`[domain]` of the cloudlet's config file: the domain controller that sells its places.

Source: docs/reference/cloudlet-config.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.identity import Identity, load_identity_file
from packetcloud.chunk.toml_files import TomlTable
from packetcloud.cloudlet.errors import CloudletConfigError

MAX_URLS_COUNT = 16
"""Controllers of one domain."""
_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?/?")


class DomainTable(TomlTable):
    """`[domain]`: the domain controller that sells this cloudlet's places."""

    url: Annotated[list[str], Field(min_length=1, max_length=MAX_URLS_COUNT)]
    """Of its API; of several controllers that share a database, each."""
    key: Path
    """The identity that the domain's operator admitted."""
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    """Under which it was admitted; absent: `[cloudlet] name`."""
    ca_file: Path | None = None
    """Certificates that are trusted instead of the system's."""


@dataclass(frozen=True, slots=True)
class DomainSettings:
    """What the link needs to know."""

    urls: tuple[str, ...]
    """Without a slash at the end."""
    name: str
    identity: Identity = field(repr=False)
    ca_file: Path | None = None

    @classmethod
    def of(cls, table: DomainTable, folder: Path, cloudlet: str) -> DomainSettings:
        """Check a table.

        Raises:
            CloudletConfigError: names table and key, and says what is allowed.
        """
        for url in table.url:
            if _URL.fullmatch(url) is None:
                raise CloudletConfigError(
                    f"[domain] url: {url[:80]!r}: allowed: URLs like https://domain.example:4800"
                )
        try:
            identity = load_identity_file(folder / table.key)
        except PacketCloudError as error:
            raise CloudletConfigError(f"[domain] key: {error}") from None
        except OSError as error:
            raise CloudletConfigError(
                f"[domain] key: {folder / table.key}: {error.strerror}; make one: packetcloud "
                "identity create"
            ) from None
        ca_file = folder / table.ca_file if table.ca_file is not None else None
        if ca_file is not None and not ca_file.is_file():
            raise CloudletConfigError(
                f"[domain] ca_file: {ca_file}: there is no such file; allowed: a file in PEM"
            )
        urls = tuple(url.rstrip("/") for url in table.url)
        return cls(urls, table.name or cloudlet, identity, ca_file)
