"""Errors of the host room. What went wrong with one chunk is a `SendResult`, not an error here."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class HostError(PacketCloudError):
    """Base of every error that the host room raises on purpose."""


class RouterUnreachableError(HostError):
    """No session with the router came about; the text says why and what to look at."""


class MeetingPlaceError(HostError):
    """Programs of one key cannot meet: the text says why. Run one alone with each key."""


class EndpointClosedError(HostError):
    """The endpoint was closed; open a new one."""


class SendQueueFullError(HostError):
    """More sends wait than the endpoint keeps: await `writable()` between sends."""


class TransferError(HostError):
    """A file transfer ended without success; the text says why and whether it can be resumed.

    `resumable`: the receiver keeps what it has, and a later run with resume goes on from there.
    """

    def __init__(self, text: str, *, resumable: bool = False) -> None:
        super().__init__(text)
        self.resumable = resumable
