"""What the API needs of the state. Readings are asked in worker threads, changes are awaited.

`owner`: whose things are seen; None: everybody's. It is part of each query, so that what belongs to
somebody else is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.asked import AdviceAsked
from packetcloud.domain_controller.api.changes import Asking, Change
from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import DomainError


class AbsentError(DomainError):
    """There is no such thing, or it is somebody else's."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The answer to a change: as it goes out, and as it is kept for the same idempotency key."""

    status: int
    body: str
    is_repeated: bool = False


class DomainState(Protocol):
    """Everything that is kept.

    Every method raises a `StateError` as its class says, and `AbsentError` where something is named
    that is not there.
    """

    def signer(self, key_id: str, now_ms: int) -> Signer | None: ...

    def known_signer(self, key_id: str, now_ms: int) -> Signer | None: ...

    def counts(self, now_ms: int) -> tuple[int, int]:
        """Return how many cloudlets there are, and how many reported lately."""

    def tenants(self, owner: str | None, page: Page) -> say.TenantPage: ...

    def tenant(self, owner: str | None, name: str) -> say.TenantInfo: ...

    def keys(self, owner: str | None, tenant: str) -> say.KeyList: ...

    def cloudlet_keys(self, name: str) -> say.KeyList: ...

    def cloudlets(self, now_ms: int) -> say.CloudletList: ...

    def cloudlet(self, name: str, now_ms: int) -> say.CloudletInfo: ...

    def vi_types(self) -> say.ViTypeList: ...

    def services(self, owner: str | None, page: Page) -> say.ServicePage: ...

    def service(self, owner: str | None, sid: str) -> say.ServiceInfo: ...

    def rules(self, owner: str | None, page: Page, now_ms: int) -> say.RulesPage: ...

    def rules_detail(self, owner: str | None, rules_id: str, now_ms: int) -> say.RulesDetail: ...

    def quote(self, owner: str, wish: Wish, now_ms: int) -> say.QuoteInfo: ...

    def ways(self, wanted: AdviceAsked, now_ms: int) -> say.WaysInfo: ...

    def when(self, owner: str, wish: Wish, until_ms: int, now_ms: int) -> say.WhenInfo: ...

    def reservations(
        self, owner: str | None, states: Sequence[str], page: Page
    ) -> say.ReservationPage: ...

    def reservation(self, owner: str | None, reservation_id: str) -> say.ReservationInfo: ...

    def operation(self, owner: str | None, operation_id: str) -> say.OperationInfo: ...

    def terms(self, owner: str | None, reservation_id: str) -> say.TermsInfo: ...

    def usage(
        self, owner: str | None, reservation_id: str | None, bill: int | None, page: Page
    ) -> say.UsagePage: ...

    def bills(self, owner: str | None, page: Page) -> say.BillPage: ...

    def bill(self, owner: str | None, bill_id: str) -> say.BillInfo: ...

    def price_list(self, name: str, version: int) -> say.PriceListInfo: ...

    def events(self, owner: str | None, after: int, limit: int) -> list[say.EventInfo]: ...

    def last_event(self) -> int:
        """Return the number of the newest event."""

    async def change(self, change: Change, asking: Asking) -> Given: ...
