"""What a VI needs to know to run a service: one frozen value, one line of JSON.

The supervisor checks manifest and parameters once and writes this line to the child's standard
input. The child therefore needs neither TOML nor pydantic, and starts fast.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Self

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.header import DEFAULT_MAX_PAYLOAD_BYTES
from packetcloud.services.parameters import ParameterValue

MAX_SPEC_BYTES = 1 << 20
"""Longest launch line; parameters are words and paths, so anything near it is a mistake."""

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""What this machine says to itself: only root can read it, and root could as well read the keys."""

EXIT_FINE = 0
EXIT_CRASH = 1
EXIT_CONFIG = 2
"""A VI's exit code: the same configuration would fail again, so it is not started again."""


@dataclass(frozen=True, slots=True)
class ExitCause:
    """How a VI ended: exactly one of the two is set."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name}"
        return f"exit code {self.code}"


class ExecutionMode(StrEnum):
    """Where `process` runs. Measured in docs/how-to/write-a-service.md, "Which thread"."""

    AUTO = "auto"
    """On the reactor's thread until one chunk took over a second, then in a worker thread."""
    INLINE = "inline"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What a VI may use. Which of them are enforced is the isolation back-end's to say."""

    memory_mib: int = 256
    cpus: float = 1.0
    processes: int = 16
    open_files: int = 64


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One service, configured, and the router it is to serve."""

    name: str
    version: str
    entry_point: str
    """`module:Class`."""
    key_file: str
    router_host: str
    router_port: int
    router_guid: str | None = None
    """40 hexadecimal digits; None accepts whichever router answers there."""
    search_path: str | None = None
    """Folder that is added to `sys.path`: where the manifest of an author's own service lies."""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    limits: ResourceLimits = ResourceLimits()
    deadline_ms: int = 5000
    max_expansion_ratio: float = 2.0
    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES
    execution: ExecutionMode = ExecutionMode.AUTO
    concurrency: int = 16
    """Coroutines in progress at once, for `async def process`."""
    state_file: str | None = None
    """Imported at the start if it exists, written on an orderly end."""
    log_level: str = "INFO"
    private_links: tuple[str, ...] = LOOPBACK
    """Networks whose links nobody else can read or write: towards a router there that says the
    same, nothing is sealed."""
    lanes: str | None = None
    """Folder where routers of this machine hand out memory to share; None: chunks go in datagrams
    only."""
    instance: int = 0
    """32 bits: which bearer of the key this is. A new session of an instance replaces its old one,
    so a VI that is started again takes its place at the router at once."""
    listen: tuple[int, ...] = ()
    """TCP ports of its own that others reach: its cloudlet leads what comes to a port of the node
    there. On any of its addresses."""

    def to_json(self) -> str:
        """Return the value as one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a line that `to_json` wrote.

        Raises:
            LocalMisuseError: supervisor and child are not of the same version.
        """
        try:
            values = json.loads(text)
            known = {item.name for item in fields(cls)}
            if unknown := set(values) - known:
                raise LocalMisuseError(f"launch line has unknown keys: {sorted(unknown)}")
            values["limits"] = ResourceLimits(**values["limits"])
            values["private_links"] = tuple(values["private_links"])
            values["listen"] = tuple(values.get("listen", ()))
            values["execution"] = ExecutionMode(values["execution"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise LocalMisuseError(f"not a launch line: {error}") from error
