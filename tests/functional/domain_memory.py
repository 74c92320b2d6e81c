"""A domain's state in memory, as the API needs one: what is written is there, nothing is decided.

It keeps each promise of `DomainState` that a client can see: owners, idempotency keys, nonces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID
from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api import port
from packetcloud.domain_controller.api.asked import AdviceAsked
from packetcloud.domain_controller.api.changes import Asking, Change
from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.port import Given, Page
from packetcloud.domain_controller.core.principals import Principal, Role
from packetcloud.domain_controller.core.wishes import Wish
from packetcloud.domain_controller.errors import LifeError
from packetcloud.domain_controller.state.errors import (
    ConflictError,
    DatabaseAwayError,
    KeyReusedError,
    ReplayedError,
)

Clock = Callable[[], int]
T = TypeVar("T")
NO_RESOURCES = say.ResourcesInfo(milli_cpus=0, memory_bytes=0, disk_bytes=0, io_per_s=0)


@dataclass
class MemoryState:
    """One domain."""

    clock_ms: Clock
    principals: dict[str, Principal] = field(default_factory=dict)
    keys_by_id: dict[str, tuple[str, say.KeyInfo]] = field(default_factory=dict)
    tenants_by_name: dict[str, say.TenantInfo] = field(default_factory=dict)
    cloudlets_by_name: dict[str, say.CloudletInfo] = field(default_factory=dict)
    vi_types_by_name: dict[str, say.ViTypeInfo] = field(default_factory=dict)
    services_by_sid: dict[str, say.ServiceInfo] = field(default_factory=dict)
    rules_by_id: dict[str, say.RulesDetail] = field(default_factory=dict)
    reservations_by_id: dict[str, say.ReservationInfo] = field(default_factory=dict)
    operations_by_id: dict[str, tuple[str, say.OperationInfo]] = field(default_factory=dict)
    journal: list[say.EventInfo] = field(default_factory=list)
    is_busy: bool = False
    answers: dict[tuple[str, str], tuple[bytes, Given]] = field(default_factory=dict)
    nonces: set[tuple[str, str]] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def enroll(self, name: str, role: Role, key: Identity) -> None:
        """Let a key sign for somebody."""
        self.principals[name] = Principal(name, role)
        if role is Role.TENANT:
            info = say.TenantInfo(name=name, title="", is_open=True)
            self.tenants_by_name[name] = info
        self._add_key(name, key.public_key, None)

    def known_signer(self, key_id: str, now_ms: int) -> Signer | None:
        return None

    def signer(self, key_id: str, now_ms: int) -> Signer | None:
        self._be_there()
        name, info = self.keys_by_id.get(key_id, ("", None))
        if info is None or info.until_ms <= now_ms:
            return None
        return Signer(self.principals[name], bytes.fromhex(info.public_key))

    def counts(self, now_ms: int) -> tuple[int, int]:
        return len(self.cloudlets_by_name), 0

    def tenants(self, owner: str | None, page: Page) -> say.TenantPage:
        found = [one for one in self.tenants_by_name.values() if owner in (None, one.name)]
        some, cursor = _some(sorted(found, key=lambda one: one.name), lambda one: one.name, page)
        return say.TenantPage(tenants=some, cursor=cursor)

    def tenant(self, owner: str | None, name: str) -> say.TenantInfo:
        info = self.tenants_by_name.get(name)
        if info is None or owner not in (None, name):
            raise port.AbsentError(f"no tenant {name}")
        return info

    def keys(self, owner: str | None, tenant: str) -> say.KeyList:
        self.tenant(owner, tenant)
        return say.KeyList(keys=[info for name, info in self.keys_by_id.values() if name == tenant])

    def cloudlet_keys(self, name: str) -> say.KeyList:
        self.cloudlet(name, 0)
        return say.KeyList(keys=[info for of, info in self.keys_by_id.values() if of == name])

    def cloudlets(self, now_ms: int) -> say.CloudletList:
        return say.CloudletList(cloudlets=list(self.cloudlets_by_name.values()))

    def cloudlet(self, name: str, now_ms: int) -> say.CloudletInfo:
        if name not in self.cloudlets_by_name:
            raise port.AbsentError(f"no cloudlet {name}")
        return self.cloudlets_by_name[name]

    def vi_types(self) -> say.ViTypeList:
        return say.ViTypeList(vi_types=list(self.vi_types_by_name.values()))

    def services(self, owner: str | None, page: Page) -> say.ServicePage:
        found = [one for one in self.services_by_sid.values() if owner in (None, one.owner)]
        some, cursor = _some(sorted(found, key=lambda one: one.sid), lambda one: one.sid, page)
        return say.ServicePage(services=some, cursor=cursor)

    def service(self, owner: str | None, sid: str) -> say.ServiceInfo:
        info = self.services_by_sid.get(sid)
        if info is None or owner not in (None, info.owner):
            raise port.AbsentError(f"no service {sid}")
        return info

    def rules(self, owner: str | None, page: Page, now_ms: int) -> say.RulesPage:
        found = [one for one in self.rules_by_id.values() if owner in (None, one.owner)]
        some, cursor = _some(found, lambda one: one.id, page)
        shown = [_rules_info(one) for one in some]
        return say.RulesPage(rules=shown, cursor=cursor)

    def rules_detail(self, owner: str | None, rules_id: str, now_ms: int) -> say.RulesDetail:
        info = self.rules_by_id.get(rules_id)
        if info is None or owner not in (None, info.owner):
            raise port.AbsentError(f"no rules {rules_id}")
        return info

    def quote(self, owner: str, wish: Wish, now_ms: int) -> say.QuoteInfo:
        return say.QuoteInfo(is_possible=False, why="no cloudlet has room", offer=None, others=[])

    def ways(self, wanted: AdviceAsked, now_ms: int) -> say.WaysInfo:
        return say.WaysInfo(ways=[], currency="EUR", price_list="standard 1")

    def when(self, owner: str, wish: Wish, until_ms: int, now_ms: int) -> say.WhenInfo:
        return say.WhenInfo(begin_ms=None, offer=None, why="no cloudlet has room until then")

    def reservations(
        self, owner: str | None, states: Sequence[str], page: Page
    ) -> say.ReservationPage:
        found = [
            one
            for one in reversed(self.reservations_by_id.values())
            if owner in (None, one.owner) and (not states or one.state in states)
        ]
        some, cursor = _some(found, lambda one: one.id, page)
        return say.ReservationPage(reservations=some, cursor=cursor)

    def reservation(self, owner: str | None, reservation_id: str) -> say.ReservationInfo:
        self._be_there()
        info = self.reservations_by_id.get(reservation_id)
        if info is None or owner not in (None, info.owner):
            raise port.AbsentError(f"no reservation {reservation_id}")
        return info

    def operation(self, owner: str | None, operation_id: str) -> say.OperationInfo:
        found = self.operations_by_id.get(operation_id)
        if found is None or owner not in (None, found[0]):
            raise port.AbsentError(f"no operation {operation_id}")
        return found[1]

    def terms(self, owner: str | None, reservation_id: str) -> say.TermsInfo:
        self.reservation(owner, reservation_id)
        return say.TermsInfo(terms=[])

    def usage(
        self, owner: str | None, reservation_id: str | None, bill: int | None, page: Page
    ) -> say.UsagePage:
        return say.UsagePage(records=[], cursor=None)

    def bills(self, owner: str | None, page: Page) -> say.BillPage:
        return say.BillPage(bills=[], cursor=None)

    def bill(self, owner: str | None, bill_id: str) -> say.BillInfo:
        raise port.AbsentError(f"no bill {bill_id}")

    def price_list(self, name: str, version: int) -> say.PriceListInfo:
        raise port.AbsentError(f"no price list {name} {version}")

    def events(self, owner: str | None, after: int, limit: int) -> list[say.EventInfo]:
        return [one for one in self.journal if one.number > after and owner in (None, one.owner)][
            :limit
        ]

    def last_event(self) -> int:
        return len(self.journal)

    async def change(self, change: Change, asking: Asking) -> Given:
        self._be_there()
        nonce = (asking.proof.key_id, asking.proof.nonce)
        if nonce in self.nonces:
            raise ReplayedError("the nonce was used before; sign anew")
        if asking.idempotency_key is None:
            given = self._do(change, asking)
        else:
            name = (asking.principal, asking.idempotency_key)
            digest, known = self.answers.get(name, (asking.digest, None))
            if digest != asking.digest:
                raise KeyReusedError("the key stands for another request; choose a new one")
            if known is not None:
                given = Given(known.status, known.body, is_repeated=True)
            else:
                given = self._do(change, asking)
                self.answers[name] = (digest, given)
        self.nonces.add(nonce)
        return given

    def settle(
        self, operation_id: str, state: str, reservation_state: say.ReservationState
    ) -> None:
        """Let an operation end, as a cloudlet would."""
        owner, info = self.operations_by_id[operation_id]
        ended = info.model_copy(update={"state": state, "changed_ms": self.clock_ms()})
        self.operations_by_id[operation_id] = (owner, ended)
        self._move(info.subject, state=reservation_state)

    def _be_there(self) -> None:
        if self.is_busy:
            raise DatabaseAwayError("the database is away", 3)

    def _do(self, change: Change, asking: Asking) -> Given:
        now_ms, owner = self.clock_ms(), asking.owner
        match change:
            case to.AddTenant():
                if change.name in self.principals:
                    raise ConflictError(f"{change.name} exists already")
                self.principals[change.name] = Principal(change.name, Role.TENANT, change.title)
                tenant = say.TenantInfo(name=change.name, title=change.title, is_open=True)
                self.tenants_by_name[change.name] = tenant
                return _given(201, tenant)
            case to.SetTenantOpen():
                tenant = self.tenant(owner, change.name)
                tenant = tenant.model_copy(update={"is_open": change.is_open})
                self.tenants_by_name[change.name] = tenant
                role = Role.TENANT
                self.principals[change.name] = Principal(change.name, role, "", change.is_open)
                return _given(200, tenant)
            case to.AddKey():
                self._see_holder(owner, change)
                return _given(201, self._add_key(change.name, change.public_key, change.until_ms))
            case to.RevokeKey():
                self._see_holder(owner, change)
                name, key = self.keys_by_id.get(change.key_id, ("", None))
                if key is None or name != change.name:
                    raise port.AbsentError(f"no key {change.key_id}")
                del self.keys_by_id[change.key_id]
                return _given(200, key)
            case to.AddCloudlet():
                if change.name in self.principals:
                    raise ConflictError(f"{change.name} exists already")
                self.principals[change.name] = Principal(change.name, Role.CLOUDLET)
                self._add_key(change.name, change.public_key, None)
                cloudlet = say.CloudletInfo(
                    name=change.name,
                    region=change.region,
                    is_open=True,
                    isp_share_permille=change.isp_share_permille,
                    is_connected=False,
                    report_age_ms=None,
                    capacity=NO_RESOURCES,
                    reserved=NO_RESOURCES,
                    available=NO_RESOURCES,
                    nodes=[],
                )
                self.cloudlets_by_name[change.name] = cloudlet
                return _given(201, cloudlet)
            case to.SetCloudletOpen():
                cloudlet = self.cloudlet(change.name, now_ms)
                cloudlet = cloudlet.model_copy(update={"is_open": change.is_open})
                self.cloudlets_by_name[change.name] = cloudlet
                return _given(200, cloudlet)
            case to.SetViType():
                made = say.ViTypeInfo(name=change.name, **change.sizes.model_dump())
                self.vi_types_by_name[change.name] = made
                return _given(200, made)
            case to.AddService():
                if change.sid in self.services_by_sid:
                    raise ConflictError(f"the service {change.sid} exists already")
                service = say.ServiceInfo(
                    name=change.name,
                    owner=change.owner,
                    sid=change.sid,
                    image=change.image,
                )
                self.services_by_sid[change.sid] = service
                return _given(201, service)
            case to.RemoveService():
                service = self.service(owner, change.sid)
                del self.services_by_sid[change.sid]
                return _given(200, service)
            case to.AddRules():
                rules = say.RulesDetail(
                    id=f"rules-{next(self._numbers)}",
                    owner=change.owner,
                    set_name=change.set_name,
                    serial=change.serial,
                    signer=change.signer,
                    items=change.items_count,
                    digest=change.digest.hex(),
                    rules=change.rules_count,
                    cloudlets=list(change.cloudlets),
                    regions=list(change.regions),
                    made_ms=now_ms,
                    until_ms=change.until_ms,
                    state="in_force" if change.rules_count else "withdrawn",
                    at={},
                    document=change.document,
                    cloudlet_states=[],
                )
                self.rules_by_id[rules.id] = rules
                return _given(201, _rules_info(rules))
            case to.Reserve():
                return self._reserve(change)
            case to.Extend():
                slot = self.reservation(owner, change.reservation).slot
                longer = slot.model_copy(update={"end_ms": change.end_ms})
                return self._begin("extend", change.reservation, owner, slot=longer)
            case to.Resize():
                return self._begin("resize", change.reservation, owner, count=change.count)
            case to.CancelReservation():
                return self._begin("cancel", change.reservation, owner, state="cancelled")
            case to.CancelOperation():
                info = self.operation(owner, change.operation)
                if info.state == "running":
                    self.settle(change.operation, "cancelled", "cancelled")
                return _given(200, self.operation(owner, change.operation))
            case to.CloseBill():
                raise ConflictError(f"{change.tenant} used nothing")
        raise AssertionError(f"a change that nobody knows: {change}")

    def _see_holder(self, owner: str | None, change: to.AddKey | to.RevokeKey) -> None:
        if change.role is Role.CLOUDLET:
            self.cloudlet(change.name, self.clock_ms())
        else:
            self.tenant(owner, change.name)

    def _add_key(self, name: str, public_key: bytes, until_ms: int | None) -> say.KeyInfo:
        info = say.KeyInfo(
            key_id=GUID.from_public_key(public_key).hex,
            public_key=public_key.hex(),
            from_ms=self.clock_ms(),
            until_ms=until_ms or self.clock_ms() + 10**9,
        )
        if info.key_id in self.keys_by_id:
            raise ConflictError(f"the key {info.key_id} is registered already")
        self.keys_by_id[info.key_id] = (name, info)
        return info

    def _reserve(self, change: to.Reserve) -> Given:
        wish, now_ms = change.wish, self.clock_ms()
        repeat = wish.slot.repeat
        info = say.ReservationInfo(
            id=f"r-{next(self._numbers)}",
            owner=change.owner,
            state="requested",
            version=1,
            vi_type=wish.vi_type,
            count=wish.count,
            slot=say.SlotInfo(
                begin_ms=wish.slot.begin_ms,
                end_ms=wish.slot.end_ms,
                repeat=repeat
                and say.RepeatInfo(
                    every=repeat.every.value, count=repeat.count, until_ms=repeat.until_ms
                ),
            ),
            service=wish.service,
            places=[],
            price_micros=None,
            currency=None,
            price_list=None,
            why="",
            made_ms=now_ms,
            changed_ms=now_ms,
            operation=None,
        )
        self.reservations_by_id[info.id] = info
        return self._begin("reserve", info.id, None)

    def _begin(self, kind: str, subject: str, owner: str | None, **changed: object) -> Given:
        info = self.reservation(owner, subject)
        if kind != "reserve" and info.state in say.LAST_STATES:
            raise LifeError(info.state, f"{subject} is {info.state}; allowed: before its end")
        now_ms = self.clock_ms()
        operation = say.OperationInfo(
            id=f"op-{next(self._numbers)}",
            kind=kind,
            subject=subject,
            state="running",
            text="",
            made_ms=now_ms,
            changed_ms=now_ms,
        )
        self.operations_by_id[operation.id] = (info.owner, operation)
        self._move(subject, operation=operation.id, **changed)
        return _given(202, operation)

    def _move(self, reservation_id: str, **changed: object) -> None:
        info = self.reservations_by_id[reservation_id]
        info = info.model_copy(update={**changed, "version": info.version + 1})
        self.reservations_by_id[reservation_id] = info
        self.journal.append(
            say.EventInfo(
                number=len(self.journal) + 1,
                at_ms=self.clock_ms(),
                kind=f"reservation-{info.state}",
                subject=info.id,
                owner=info.owner,
            )
        )


def _given(status: int, info: say.Answered) -> Given:
    return Given(status, info.model_dump_json())


def _some(found: list[T], name: Callable[[T], str], page: Page) -> tuple[list[T], str | None]:
    names = [name(one) for one in found]
    start = names.index(page.cursor) + 1 if page.cursor in names else 0
    some = found[start : start + page.limit]
    is_last = start + page.limit >= len(found)
    return some, None if is_last else name(some[-1])


def _rules_info(detail: say.RulesDetail) -> say.RulesInfo:
    return say.RulesInfo(**detail.model_dump(exclude={"document", "cloudlet_states"}))
