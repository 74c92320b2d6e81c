"""Errors of the chunk room. Who is wrong decides the class.

`ProtocolError`: a peer sent bytes that break the specification. Count it by `reason`, drop, go on.
`LocalMisuseError`: our own caller broke a rule. Raise; it is a bug on this side.
`IdentityError`: a key file is missing, readable by others or damaged. Tell the operator.
`CaptureError`: a capture file cannot be read. Tell the user.
`GrantError`: a grant is not one. Refuse it.
"""

from __future__ import annotations


class PacketCloudError(Exception):
    """Base of every error that PacketCloud raises on purpose."""


class ProtocolError(PacketCloudError):
    """A peer's bytes break the wire format.

    `reason` is a short snake_case word, used as a metric label; the text says what was wrong.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class LocalMisuseError(PacketCloudError):
    """Our own code called something with values it must not use."""


class CaptureError(PacketCloudError):
    """A capture file cannot be read to its end; the text names the file and what is wrong."""


class IdentityError(PacketCloudError):
    """A key file cannot be used; the text names the file and the next step."""


class GrantError(PacketCloudError):
    """A grant cannot be read; the text names the key, its value and what is allowed."""
