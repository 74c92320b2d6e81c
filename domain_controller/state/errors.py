"""Errors of the state. Who is wrong decides the class; the text says what to do next.

`StateConfigError`: the operator's URL, file or schema cannot be used.
`NotDoneError` and what is under it: nothing was written; asking again is safe and may help.
`OutcomeUnknownError`: it may have been written; the same idempotency key tells later.
`ConflictError` and what is under it: the asker is wrong, or too late; asking again does not help.
"""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class StateError(PacketCloudError):
    """Anything of the state's that somebody may have to read."""


class StateConfigError(StateError):
    """The database cannot be used as it is; the text names it, what is wrong, and the next step."""


class BackupError(StateError):
    """A backup cannot be made, or is not one; the text names the file and the next step."""


class NotDoneError(StateError):
    """Nothing of the request was written. Ask again after `retry_after_s`."""

    def __init__(self, text: str, retry_after_s: int = 1) -> None:
        super().__init__(f"{text}; nothing was written, ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class QueueFullError(NotDoneError):
    """More requests wait to be written than may. Nothing is broken."""


class DatabaseAwayError(NotDoneError):
    """The database did not answer in time, was locked, or was restarted.

    It is asked again without an operator. Where it lasts: see whether the server runs, and who
    holds a lock.
    """


class DiskFullError(NotDoneError):
    """The database's disk takes no more. Make room: writing goes on by itself."""


class ClosedError(NotDoneError):
    """This controller ends."""


class OutcomeUnknownError(StateError):
    """The answer to a commit did not come: it may have been done or not.

    Ask again with the same idempotency key: what was done is answered, what was not is done.
    """


class ConflictError(StateError):
    """What is asked for does not fit to what is kept."""


class KeyReusedError(ConflictError):
    """An idempotency key came again with another body. Choose a new key."""


class StaleOwnerError(ConflictError):
    """Another controller owns this by now. Stop acting on it."""


class ReplayedError(ConflictError):
    """A signature's nonce came a second time. Sign anew."""
