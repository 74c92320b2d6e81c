"""Errors of the services room. Who is wrong decides the class.

`ManifestError`, `ParameterError`, `ServiceConfigError`: the operator or author wrote something that
cannot run; the text names the file, the key and what is allowed, and the command exits with 2.
`ServiceMisuseError`: the service's own code broke a rule of the SDK; the chunk's verdict is FAILED.
"""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class ServiceConfigError(PacketCloudError):
    """A service cannot start as it is configured; the text says what to change.

    A service raises it from `start` for a key file that is missing, a value that does not fit
    another, and so on. The supervisor does not try again: the same config would fail again.
    """


class ManifestError(ServiceConfigError):
    """A manifest is missing, no TOML, or breaks its schema: file, table, key, what is allowed."""


class ParameterError(ServiceConfigError):
    """A parameter is unknown, missing, of the wrong type or outside its allowed values."""


class ServiceMisuseError(PacketCloudError):
    """A service broke a rule of the SDK, such as an output over the limit of its manifest."""
