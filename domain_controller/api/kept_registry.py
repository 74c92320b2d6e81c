"""What is kept of tenants, cloudlets, services and rules, as the API shows it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection

from packetcloud.chunk.names import SID
from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.gate import Signer
from packetcloud.domain_controller.api.known_keys import KNOWN_ALONE_MS, KNOWN_MS, KnownKeys
from packetcloud.domain_controller.api.port import AbsentError, Page
from packetcloud.domain_controller.core.choice import FRESH_MS
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport
from packetcloud.domain_controller.core.principals import Key, Principal, Role, Service
from packetcloud.domain_controller.core.resources import NOTHING, Resources, ViType
from packetcloud.domain_controller.state import (
    catalogue,
    journal,
    operations,
    registry,
    rule_outbox,
)
from packetcloud.domain_controller.state.catalogue import RuleSet
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import DatabaseAwayError
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.rule_outbox import AtCloudlet

T = TypeVar("T")


class KeptRegistry:
    """Readings of the registry. Used by several threads.

    Args:
        reports: the last one of each cloudlet.
    """

    def __init__(self, database: Database, reports: Reports, clock_ms: Callable[[], int]) -> None:
        self.clock_ms = clock_ms
        self._database = database
        self._reports = reports
        self.known_keys = KnownKeys(KNOWN_ALONE_MS if database.is_sqlite else KNOWN_MS)

    def signer(self, key_id: str, now_ms: int) -> Signer | None:
        return self._signers([key_id], now_ms).get(key_id)

    def known_signer(self, key_id: str, now_ms: int) -> Signer | None:
        if old := self.known_keys.to_refresh(now_ms):
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._refresh, old, now_ms)
        return self.known_keys.get(key_id, now_ms)

    def _refresh(self, key_ids: Sequence[str], now_ms: int) -> None:
        with suppress(DatabaseAwayError):  # whoever asks next is told
            found = self._signers(key_ids, now_ms)
            for key_id in set(key_ids) - found.keys():
                self.known_keys.drop(key_id)

    def _signers(self, key_ids: Sequence[str], now_ms: int) -> dict[str, Signer]:
        """Return whose keys these are, without those that do not count now; know them from now."""
        turn = self.known_keys.turn
        with self._database.reading() as connection:
            rows = registry.signers(connection, key_ids, now_ms)
        found = {key.key_id: Signer(principal, key.public_key) for principal, key in rows}
        for _, key in rows:
            self.known_keys.put(key.key_id, found[key.key_id], now_ms, key.until_ms, turn)
        return found

    def counts(self, now_ms: int) -> tuple[int, int]:
        """Return how many cloudlets there are, and how many reported lately."""
        found = self.cloudlets(now_ms).cloudlets
        return len(found), sum(one.is_connected for one in found)

    def tenants(self, owner: str | None, page: Page) -> say.TenantPage:
        with self._database.reading() as connection:
            if owner is not None:
                found = [registry.find_principal(connection, owner)] if not page.cursor else []
            else:
                after, most = page.cursor or "", page.limit + 1
                found = [*registry.principals(connection, Role.TENANT, after, most)]
        shown = [tenant_info(one) for one in found if one is not None and one.role is Role.TENANT]
        some, cursor = cut(shown, page, lambda one: one.name)
        return say.TenantPage(tenants=some, cursor=cursor)

    def tenant(self, owner: str | None, name: str) -> say.TenantInfo:
        with self._database.reading() as connection:
            return tenant_info(find_tenant(connection, owner, name))

    def keys(self, owner: str | None, tenant: str) -> say.KeyList:
        with self._database.reading() as connection:
            find_tenant(connection, owner, tenant)
            return say.KeyList(keys=[key_info(one) for one in registry.keys(connection, tenant)])

    def cloudlet_keys(self, name: str) -> say.KeyList:
        with self._database.reading() as connection:
            find_cloudlet(connection, name)
            return say.KeyList(keys=[key_info(one) for one in registry.keys(connection, name)])

    def cloudlets(self, now_ms: int) -> say.CloudletList:
        with self._database.reading() as connection:
            found: list[Cloudlet] = []
            while some := registry.cloudlets(connection, found[-1].name if found else ""):
                found += some
        shown = [cloudlet_info(one, self._reports.get(one.name), now_ms) for one in found]
        return say.CloudletList(cloudlets=shown)

    def cloudlet(self, name: str, now_ms: int) -> say.CloudletInfo:
        with self._database.reading() as connection:
            found = find_cloudlet(connection, name)
            keys = registry.public_keys(connection, name)
        info = cloudlet_info(found, self._reports.get(name), now_ms)
        return info.model_copy(update={"public_keys": [key.hex() for key in keys]})

    def vi_types(self) -> say.ViTypeList:
        with self._database.reading() as connection:
            found = registry.vi_types(connection).values()
        return say.ViTypeList(vi_types=[vi_type_info(one) for one in found])

    def services(self, owner: str | None, page: Page) -> say.ServicePage:
        with self._database.reading() as connection:
            found = registry.services(connection, owner, page.cursor or "", page.limit + 1)
        some, cursor = cut([service_info(one) for one in found], page, lambda one: one.sid)
        return say.ServicePage(services=some, cursor=cursor)

    def service(self, owner: str | None, sid: str) -> say.ServiceInfo:
        with self._database.reading() as connection:
            return service_info(find_service(connection, owner, sid))

    def rules(self, owner: str | None, page: Page, now_ms: int) -> say.RulesPage:
        with self._database.reading() as connection:
            before = place_of(page.cursor)
            found = catalogue.rule_sets(connection, owner, before, page.limit + 1)
            some, cursor = cut(found, page, lambda one: cursor_of(one.made_ms, one.id))
            at = rule_outbox.counts(connection, [one.id for one in some])
        shown = [rules_info(one, at[one.id], now_ms) for one in some]
        return say.RulesPage(rules=shown, cursor=cursor)

    def rules_detail(self, owner: str | None, rules_id: str, now_ms: int) -> say.RulesDetail:
        with self._database.reading() as connection:
            rule_set, text = find_rules(connection, owner, rules_id)
            found = rule_outbox.states(connection, rule_set.id)
        at = Counter(one.told.state.value for one in found)
        info = rules_info(rule_set, dict(at), now_ms)
        states = [rules_at_info(one) for one in found]
        return say.RulesDetail(**info.model_dump(), document=text, cloudlet_states=states)

    def operation(self, owner: str | None, operation_id: str) -> say.OperationInfo:
        with self._database.reading() as connection:
            return operation_info(find_operation(connection, owner, operation_id))

    def price_list(self, name: str, version: int) -> say.PriceListInfo:
        with self._database.reading() as connection:
            found = catalogue.find_price_list(connection, name, version)
        if found is None:
            raise AbsentError(f"there is no version {version} of a price list {name!r}")
        return say.PriceListInfo(
            name=found.name,
            version=found.version,
            digest=found.digest.hex(),
            document=found.to_text(),
        )

    def events(self, owner: str | None, after: int, limit: int) -> list[say.EventInfo]:
        with self._database.reading() as connection:
            found = journal.read(connection, after, owner=owner, limit=limit)
        return [
            say.EventInfo(
                number=one.number,
                at_ms=one.note.at_ms,
                kind=one.note.kind,
                subject=one.note.subject,
                owner=one.note.owner,
                data=json.loads(one.note.document),
            )
            for one in found
        ]

    def last_event(self) -> int:
        with self._database.reading() as connection:
            return journal.head(connection)[0]


def find_tenant(connection: Connection, owner: str | None, name: str) -> Principal:
    """Raises: AbsentError."""
    found = registry.find_principal(connection, name)
    if found is None or found.role is not Role.TENANT or owner not in (None, name):
        raise AbsentError(f"there is no tenant {name!r}; see: packetcloud tenant list")
    return found


def find_cloudlet(connection: Connection, name: str) -> Cloudlet:
    """Raises: AbsentError."""
    found = registry.find_cloudlet(connection, name)
    if found is None:
        raise AbsentError(f"there is no cloudlet {name!r}; see: packetcloud cloudlet list")
    return found


def find_service(connection: Connection, owner: str | None, sid: str) -> Service:
    """Raises: AbsentError."""
    found = registry.find_service(connection, SID.from_hex(sid), owner)
    if found is None:
        raise AbsentError(f"there is no service {sid}; see: packetcloud service registered")
    return found


def find_rules(connection: Connection, owner: str | None, rules_id: str) -> tuple[RuleSet, str]:
    """Raises: AbsentError."""
    found = catalogue.find_rule_set(connection, rules_id, owner)
    if found is None:
        raise AbsentError(f"there are no rules {rules_id!r}; see: packetcloud domain rule list")
    return found


def find_operation(
    connection: Connection, owner: str | None, operation_id: str
) -> operations.Operation:
    """Raises: AbsentError."""
    found = operations.find(connection, operation_id, owner)
    if found is None:
        raise AbsentError(f"there is no operation {operation_id!r}, or it ended long ago")
    return found


def tenant_info(principal: Principal) -> say.TenantInfo:
    return say.TenantInfo(name=principal.name, title=principal.title, is_open=principal.is_open)


def key_info(key: Key) -> say.KeyInfo:
    return say.KeyInfo(
        key_id=key.key_id,
        public_key=key.public_key.hex(),
        from_ms=key.from_ms,
        until_ms=key.until_ms,
    )


def cloudlet_info(
    cloudlet: Cloudlet, report: CloudletReport | None, now_ms: int
) -> say.CloudletInfo:
    nodes = () if report is None else report.nodes
    reserved = available = NOTHING
    for node in nodes:
        reserved += node.reserved
        if node.is_usable:
            available += node.available
    age_ms = None if report is None else report.age_ms(now_ms)
    return say.CloudletInfo(
        name=cloudlet.name,
        region=cloudlet.region,
        is_open=cloudlet.is_open,
        isp_share_permille=cloudlet.isp_share_permille,
        is_connected=age_ms is not None and age_ms <= FRESH_MS,
        report_age_ms=age_ms,
        capacity=resources_info(NOTHING if report is None else report.capacity),
        reserved=resources_info(reserved),
        available=resources_info(available),
        nodes=[
            say.NodeInfo(
                name=node.name,
                is_usable=node.is_usable,
                capacity=resources_info(node.capacity),
                reserved=resources_info(node.reserved),
                available=resources_info(node.available),
                vis=[say.TypeCountInfo(vi_type=one.vi_type, count=one.count) for one in node.vis],
            )
            for node in nodes
        ],
    )


def resources_info(resources: Resources) -> say.ResourcesInfo:
    return say.ResourcesInfo(
        milli_cpus=resources.milli_cpus,
        memory_bytes=resources.memory_bytes,
        disk_bytes=resources.disk_bytes,
        io_per_s=resources.io_per_s,
    )


def vi_type_info(vi_type: ViType) -> say.ViTypeInfo:
    sizes = resources_info(vi_type.resources).model_dump()
    return say.ViTypeInfo(name=vi_type.name, **sizes, price_tier=vi_type.price_tier)


def service_info(service: Service) -> say.ServiceInfo:
    return say.ServiceInfo(
        name=service.name, owner=service.owner, sid=service.sid.hex, image=service.image
    )


def rules_info(rule_set: RuleSet, at: dict[str, int], now_ms: int) -> say.RulesInfo:
    is_over = rule_set.until_ms is not None and rule_set.until_ms <= now_ms
    return say.RulesInfo(
        id=rule_set.id,
        owner=rule_set.owner,
        set_name=rule_set.name,
        serial=rule_set.serial,
        signer=rule_set.signer,
        items=rule_set.items_count,
        digest=rule_set.digest.hex(),
        rules=rule_set.rules_count,
        cloudlets=list(rule_set.cloudlets),
        regions=list(rule_set.regions),
        made_ms=rule_set.made_ms,
        until_ms=rule_set.until_ms,
        state="withdrawn" if rule_set.is_withdrawn else "ended" if is_over else "in_force",
        at=at,
    )


def rules_at_info(one: AtCloudlet) -> say.RulesAtInfo:
    said = one.told.said
    return say.RulesAtInfo(
        cloudlet=one.cloudlet,
        state=one.told.state,
        serial=said.serial if said is not None else None,
        accepted=said.accepted_count if said is not None else 0,
        refused=said.refused_count if said is not None else 0,
        revoked=said.revoked_count if said is not None else 0,
        text=said.text if said is not None else "",
        refusals=[
            say.RefusedRuleInfo(name=rule.name, reason=rule.reason, text=rule.text)
            for rule in (said.refusals if said is not None else ())
        ],
        changed_ms=one.changed_ms,
    )


def operation_info(operation: operations.Operation) -> say.OperationInfo:
    return say.OperationInfo(
        id=operation.id,
        kind=operation.kind,
        subject=operation.subject,
        state=operation.state.value,
        text=operation.text,
        made_ms=operation.made_ms,
        changed_ms=operation.changed_ms,
    )


def cut(found: Sequence[T], page: Page, name: Callable[[T], str]) -> tuple[list[T], str | None]:
    """Return a page of what was found, of which one more than it takes was asked for."""
    some = list(found[: page.limit])
    return some, name(some[-1]) if len(found) > page.limit else None


def cursor_of(made_ms: int, name: str) -> str:
    """Return the cursor of a list that is in the order of time."""
    return f"{made_ms}:{name}"


def place_of(cursor: str | None) -> tuple[int, str] | None:
    """Return what `cursor_of` made; of another text: the beginning of everything that is older."""
    if cursor is None:
        return None
    digits, _, name = cursor.partition(":")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= 15
    return (int(digits), name) if is_number else (0, "")
