"""Errors of the domain controller's room. Who is wrong decides the class.

`InvalidValueError`: a caller gave a value that cannot be; it names the field and what is allowed.
`PriceListError`: the operator wrote a price list that cannot be used.
`LifeError`: something was asked of a reservation that its state does not allow.
`UsageError`: what a cloudlet sent as usage is not usage.
`DomainConfigError`, `BundleError`: a file of the operator's or a tenant's cannot be used.
`OwnershipError`, `RuleDocumentError`: somebody's proof does not prove what it should.
`FrameError`: what came over a channel is no frame; it is counted, dropped, and nothing else.
"""

from __future__ import annotations

from packetcloud.chunk.errors import PacketCloudError


class DomainError(PacketCloudError):
    """Anything of the domain controller's that people may have to read."""


class InvalidValueError(DomainError):
    """A value cannot be; send one that is allowed.

    Attributes:
        where: the object and the field, `slot.end_ms`.
        allowed: what may stand there, for people.
    """

    def __init__(self, where: str, given: str, allowed: str) -> None:
        super().__init__(f"{where} = {given}: not possible; allowed: {allowed}")
        self.where = where
        self.allowed = allowed


class PriceListError(DomainError):
    """A price list cannot be used: file, table, key, what is allowed there. Mend the file."""


class LifeError(DomainError):
    """The state of a reservation does not allow this; the text says which states do.

    Attributes:
        state: the state that it has.
    """

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class UsageError(DomainError):
    """A usage record cannot be read; it is refused, and its sender is told why."""


class DomainConfigError(DomainError):
    """The operator's config cannot be used: file, table, key, what is allowed there."""


class OwnershipError(DomainError):
    """Somebody speaks for a name and does not prove that it is theirs; the text says what would."""


class RuleDocumentError(DomainError):
    """What was sent is no signed document of rules, or is too large; the text says where."""


class BundleError(DomainError):
    """A file with a bill and its records cannot be read; the text names the file and the field."""


class FrameError(DomainError):
    """What came over a channel is no frame of it: it is counted and dropped.

    Attributes:
        reason: `size`, `json` or `schema`: for the counter.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
