"""What requests enter into the registry, each within the transaction of its request.

Source: docs/decisions/0015-domain-controller.md.
"""

from __future__ import annotations

import json
from dataclasses import replace

from packetcloud.chunk.names import GUID, SID
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api.changes import Asking
from packetcloud.domain_controller.api.fields import Answered
from packetcloud.domain_controller.api.kept_places import bill_id, bill_info
from packetcloud.domain_controller.api.kept_registry import (
    cloudlet_info,
    find_cloudlet,
    find_service,
    find_tenant,
    key_info,
    rules_info,
    service_info,
    tenant_info,
    vi_type_info,
)
from packetcloud.domain_controller.api.port import AbsentError
from packetcloud.domain_controller.core.checks import shown
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport
from packetcloud.domain_controller.core.principals import Key, Principal, Role, Service
from packetcloud.domain_controller.core.resources import Resources, ViType
from packetcloud.domain_controller.core.slots import DAY_MS
from packetcloud.domain_controller.errors import InvalidValueError
from packetcloud.domain_controller.state import (
    bills,
    catalogue,
    registry,
    reservations,
    rule_outbox,
)
from packetcloud.domain_controller.state.answers import Answer
from packetcloud.domain_controller.state.bills import Draft
from packetcloud.domain_controller.state.catalogue import RuleSet
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.transaction import Transaction

KEY_MS = 2 * 366 * DAY_MS
"""A key for which nobody said when it ends."""


def add_tenant(transaction: Transaction, change: to.AddTenant, asking: Asking) -> Answer:
    tenant = Principal(change.name, Role.TENANT, change.title)
    known = registry.find_principal(transaction.connection, change.name)
    if known is not None and replace(known, is_open=True) == tenant:
        return answer(201, tenant_info(known))  # said again
    registry.add_principal(transaction, tenant)
    note(transaction, "tenant-added", tenant.name, tenant.name, asking)
    return answer(201, tenant_info(tenant))


def set_tenant_open(transaction: Transaction, change: to.SetTenantOpen, asking: Asking) -> Answer:
    tenant = find_tenant(transaction.connection, asking.owner, change.name)
    tenant = replace(tenant, is_open=change.is_open)
    registry.change_principal(transaction, tenant)
    note(transaction, "tenant-changed", tenant.name, tenant.name, asking)
    return answer(200, tenant_info(tenant))


def add_key(transaction: Transaction, change: to.AddKey, asking: Asking) -> Answer:
    owner = _owner_of_keys(transaction, change, asking)
    known = _known_key(transaction, change.name, change.public_key)
    if known is not None and change.until_ms in (None, known.until_ms):
        return answer(201, key_info(known))  # said again
    key = _key(change.name, change.public_key, transaction.now_ms, change.until_ms)
    registry.add_key(transaction, key)
    note(transaction, "key-added", key.key_id, owner, asking)
    return answer(201, key_info(key))


def revoke_key(transaction: Transaction, change: to.RevokeKey, asking: Asking) -> Answer:
    owner = _owner_of_keys(transaction, change, asking)
    keys = {key.key_id: key for key in registry.keys(transaction.connection, change.name)}
    if not registry.revoke_key(transaction, change.name, change.key_id):
        raise AbsentError(f"{change.name!r} has no key {change.key_id}, or it is revoked")
    note(transaction, "key-revoked", change.key_id, owner, asking)
    return answer(200, key_info(keys[change.key_id]))


def add_cloudlet(
    transaction: Transaction,
    change: to.AddCloudlet,
    asking: Asking,
    report: CloudletReport | None,
) -> Answer:
    cloudlet = Cloudlet(change.name, change.region, change.isp_share_permille)
    known = registry.find_cloudlet(transaction.connection, change.name)
    key = _known_key(transaction, change.name, change.public_key)
    if known is not None and key is not None and replace(known, is_open=True) == cloudlet:
        return answer(201, cloudlet_info(known, report, transaction.now_ms))  # said again
    registry.add_principal(transaction, Principal(change.name, Role.CLOUDLET))
    registry.add_key(transaction, _key(change.name, change.public_key, transaction.now_ms, None))
    registry.add_cloudlet(transaction, cloudlet)
    rules = catalogue.rule_sets_for(
        transaction.connection, cloudlet.name, cloudlet.region, transaction.now_ms
    )
    rule_outbox.want_all(transaction, cloudlet.name, rules)
    note(transaction, "cloudlet-added", cloudlet.name, None, asking)
    return answer(201, cloudlet_info(cloudlet, None, transaction.now_ms))


def set_vi_type(transaction: Transaction, change: to.SetViType, asking: Asking) -> Answer:
    sizes = change.sizes
    resources = Resources(sizes.milli_cpus, sizes.memory_bytes, sizes.disk_bytes, sizes.io_per_s)
    vi_type = ViType(change.name, resources, sizes.price_tier)
    known = registry.vi_types(transaction.connection).get(change.name)
    if known is not None and known.resources != resources:
        raise ConflictError(
            f"VI type {change.name!r} has other sizes, and what is reserved keeps its size; choose "
            "another name"
        )
    registry.put_vi_type(transaction, vi_type)
    note(transaction, "vi-type-set", vi_type.name, None, asking)
    return answer(200, vi_type_info(vi_type))


def add_service(transaction: Transaction, change: to.AddService, asking: Asking) -> Answer:
    service = Service(change.name, change.owner, SID.from_hex(change.sid), change.image)
    registry.put_service(transaction, service, change.until_ms)
    note(transaction, "service-added", change.sid, change.owner, asking)
    return answer(201, service_info(service))


def remove_service(transaction: Transaction, change: to.RemoveService, asking: Asking) -> Answer:
    service = find_service(transaction.connection, asking.owner, change.sid)
    user = reservations.serving(transaction.connection, service.owner, service.name)
    if user is not None:
        raise ConflictError(
            f"reservation {user} has places for service {service.name!r}; cancel it first, or wait "
            "for its end"
        )
    registry.remove_service(transaction, service.sid, service.owner)
    note(transaction, "service-removed", change.sid, service.owner, asking)
    return answer(200, service_info(service))


def add_rules(transaction: Transaction, change: to.AddRules, asking: Asking, new_id: str) -> Answer:
    if change.sid:
        find_service(transaction.connection, asking.owner, change.sid)
    for name in change.cloudlets:
        find_cloudlet(transaction.connection, name)
    rule_set = RuleSet(
        f"rules-{new_id}",
        change.owner,
        change.signer,
        change.set_name,
        change.serial,
        change.items_count,
        change.cloudlets,
        change.digest,
        transaction.now_ms,
        change.regions,
        change.rules_count,
        change.until_ms,
    )
    rule_set = catalogue.put_rule_set(transaction, rule_set, change.document)
    rule_outbox.want(transaction, rule_set.id, rule_set.serial, _targets(transaction, rule_set))
    kind = "rules-withdrawn" if rule_set.is_withdrawn else "rules-added"
    note(transaction, kind, rule_set.id, rule_set.owner, asking)
    at = rule_outbox.counts(transaction.connection, [rule_set.id])[rule_set.id]
    return answer(201, rules_info(rule_set, at, transaction.now_ms))


def _targets(transaction: Transaction, rule_set: RuleSet) -> frozenset[str]:
    """Return the cloudlets that a document of rules is for.

    Raises:
        ConflictError: an older document of the set would stay where the new one does not go.
        InvalidValueError: a region has no cloudlet.
    """
    before = rule_outbox.cloudlets_of(transaction.connection, rule_set.id)
    if rule_set.is_withdrawn:
        return before
    places = registry.regions_of_cloudlets(transaction.connection)
    unknown = sorted(set(rule_set.regions) - set(places.values()))
    if unknown:
        allowed = ", ".join(sorted(set(places.values()))) or "none yet"
        raise InvalidValueError("regions", shown(unknown[0]), allowed)
    targets = frozenset(name for name, region in places.items() if rule_set.goes_to(name, region))
    left_out = sorted(before - targets)
    if left_out:
        raise ConflictError(
            f"an older document of set {rule_set.name!r} is at cloudlet {left_out[0]!r}, and would "
            "stay there; name that too, or withdraw the set first and give the rules another set"
        )
    return targets


def close_bill(transaction: Transaction, draft: Draft, asking: Asking) -> Answer:
    bill = draft.bill
    if not bill.lines:
        raise ConflictError(f"{bill.tenant!r} used nothing until then that is on no bill")
    bills.close(transaction, draft)
    note(transaction, "bill-closed", bill_id(bill), bill.tenant, asking)
    return answer(201, bill_info(bill))


def note(
    transaction: Transaction, kind: str, subject: str, owner: str | None, asking: Asking
) -> None:
    """Put into the journal what was changed, with the signature that asked for it as evidence."""
    proof = asking.proof
    evidence = {
        "by": asking.principal,
        "key_id": proof.key_id,
        "signed": proof.signed.decode(),
        "signature": proof.signature.hex(),
    }
    transaction.note(kind, subject, owner, json.dumps(evidence, separators=(",", ":")))


def answer(status: int, info: Answered) -> Answer:
    return Answer(status, info.model_dump_json())


def _owner_of_keys(
    transaction: Transaction, change: to.AddKey | to.RevokeKey, asking: Asking
) -> str | None:
    """Return whose event it is; None: the domain's own. Raises: AbsentError: there is nobody."""
    if change.role is Role.CLOUDLET:
        find_cloudlet(transaction.connection, change.name)
        return None
    return find_tenant(transaction.connection, asking.owner, change.name).name


def _known_key(transaction: Transaction, principal: str, public_key: bytes) -> Key | None:
    """Return the key of somebody; None: it is not known, revoked, or does not count now."""
    for key in registry.keys(transaction.connection, principal):
        if key.public_key == public_key and key.counts_at(transaction.now_ms):
            return key
    return None


def _key(principal: str, public_key: bytes, now_ms: int, until_ms: int | None) -> Key:
    key_id = GUID.from_public_key(public_key).hex
    return Key(key_id, principal, public_key, now_ms, until_ms or now_ms + KEY_MS)
