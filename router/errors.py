"""Errors of the router room."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.names import SID
from packetcloud.chunk.reasons import Reason


class RouterConfigError(PacketCloudError):
    """The config file cannot be used; the text names file, table, key and the allowed values."""


class RouterUnreachableError(PacketCloudError):
    """The management API of a router does not answer; the text says where it was looked for."""


class ChunkRefusedError(PacketCloudError):
    """This chunk cannot be taken or sent on. Counted by `reason`, and told to the source."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.word}: {detail}" if detail else reason.word)
        self.reason = reason
        self.detail = detail


class ServiceAbsentError(ChunkRefusedError):
    """A rule demands a service that this router does not know."""

    def __init__(self, rule_number: int, sid: SID) -> None:
        text = f"rule {rule_number} demands service {sid}, which is not here"
        super().__init__(Reason.UNKNOWN_SID, text)


class TooManyCapturesError(PacketCloudError):
    """As many captures run as may; end one of them, or wait until one has ended."""


class DamagedRecordError(PacketCloudError):
    """A chunk on disk is not what was written. It is given up and counted; nothing altered is
    sent."""


class PatternError(PacketCloudError):
    """A payload pattern cannot be looked for; the text says what is wrong and what is allowed."""


class SegmentError(PacketCloudError):
    """A table of rules on disk is damaged or of another version; the text names the file.

    Nothing of it is used. The keeper writes it anew from its database when it starts."""


class RuleStoreError(PacketCloudError):
    """The folder of the rules cannot be used; the text says why and what to do. A router does not
    start without the rules that were installed."""


class RulesUnavailableError(PacketCloudError):
    """Rules cannot be changed or asked for just now; those in force stay. Try again."""


class RuleUploadError(PacketCloudError):
    """A document of rules is not taken from the network; `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class RuleNotFoundError(PacketCloudError):
    """No such rule; the text says how to see which there are."""


class AmbiguousRuleError(PacketCloudError):
    """Several signers have such a rule; the text says who, so that one can be named."""


class TableFileError(PacketCloudError):
    """The file with the cloudlet's table is damaged; the text says how. The router starts without
    it, and has the services again when the controller has sent the whole table."""


class TableUnavailableError(PacketCloudError):
    """The cloudlet's table cannot be changed or asked for now; `status` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
