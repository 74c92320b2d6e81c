"""Errors about documents of rules."""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.router.rules.refusals import Refused


class RuleDocumentError(PacketCloudError):
    """A document of rules cannot be read as a whole; the text says where, and what is allowed."""


class RuleFieldError(PacketCloudError):
    """A field of an item, or of the head, is wrong; the text says what is allowed."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}{text}")
        self.field = field


class RulesRefusedError(PacketCloudError):
    """A document of rules is refused as a whole. Counted by `refused.reason`; the text says why."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.refused = refused
