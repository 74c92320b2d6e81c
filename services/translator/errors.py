"""Errors of the translator."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.streams.wire import ResetCode


class RefusedConnectionError(PacketCloudError):
    """A connection that a host asked for did not come about; it is told the code and the text."""

    def __init__(self, code: ResetCode, text: str) -> None:
        super().__init__(text)
        self.code = code
