"""What the channel needs of the state. What is awaited is one transaction, or one reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.signatures import Proof
from packetcloud.domain_controller.channel.frames import AnswerFrame, DirectiveFrame, RulesFrame
from packetcloud.domain_controller.core.cloudlets import CloudletReport
from packetcloud.domain_controller.core.installations import RulesState, SetState
from packetcloud.domain_controller.core.reconciliation import Finding
from packetcloud.domain_controller.core.usage import Taken, UsageRecord
from packetcloud.domain_controller.state.ownership import Ownership
from packetcloud.domain_controller.state.usage import Signatures


class ChannelState(Protocol):
    """Everything that is kept.

    Whatever takes an `Ownership` raises a `StaleOwnerError` when another controller has the
    cloudlet by now; every method may raise another `StateError`: then nothing is known to be done.
    """

    def signer(self, key_id: str, now_ms: int) -> Signer | None:
        """Return whose key it is; None: nobody's, or it does not count now."""

    async def open_channel(self, cloudlet: str, proof: Proof, seen_epoch: int) -> Ownership:
        """Take a cloudlet's channel with an epoch above all that the cloudlet has seen."""

    async def waiting(self, cloudlets: Sequence[str], sent_before_ms: int) -> frozenset[str]:
        """Return which of these cloudlets have something to be told."""

    async def directives(
        self, owner: Ownership, cloudlet: str, sent_before_ms: int
    ) -> list[DirectiveFrame | RulesFrame]:
        """Return what is to be sent now, and note that it is."""

    async def answered(self, owner: Ownership, cloudlet: str, answer: AnswerFrame) -> None:
        """Note an answer; late or twice, it changes nothing."""

    async def rules_said(
        self, owner: Ownership, cloudlet: str, said: Sequence[SetState], *, is_whole: bool
    ) -> Counter[RulesState]:
        """Note what became of sets of rules; return how many are in which state there."""

    async def take(
        self,
        owner: Ownership,
        cloudlet: str,
        records: Sequence[UsageRecord],
        signatures: Signatures,
    ) -> list[Taken | None]:
        """Keep usage records and their signatures; return for each what became of it.

        None: it is to come again.
        """

    async def usage_complete(
        self, owner: Ownership, cloudlet: str, reservation: str, number: int
    ) -> None:
        """Note that a cloudlet has no more usage of a reservation; twice, it changes nothing.

        Of one of whose meters numbers are missing nothing is noted: that may be an error.
        """

    def put_report(self, report: CloudletReport) -> None:
        """Note what a cloudlet says of itself."""

    async def compare(self, report: CloudletReport) -> list[Finding]:
        """Return in what a report differs from what is reserved."""

    async def remind(self, owner: Ownership, cloudlet: str, reservation: str) -> None:
        """Have what a cloudlet was told of a reservation be told again."""
