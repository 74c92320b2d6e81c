"""Who may ask for what: one table of roles and endpoints. What is not in it is refused.

Source: docs/decisions/0015; docs/reference/domain-requests.md, "Who may what".
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from packetcloud.domain_controller.core.principals import Role

SMALL_BODY_BYTES = 64 << 10
"""More than any request but a document of rules has."""
RULES_BODY_BYTES = 1 << 20

_ISP = frozenset({Role.ISP})
_READERS = frozenset({Role.ISP, Role.TENANT, Role.AUDITOR})
_OPERATORS = frozenset({Role.ISP, Role.AUDITOR})
_ASKERS = frozenset({Role.ISP, Role.TENANT})
_ALL = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use an endpoint, and how."""

    roles: Set[Role]
    changes: bool = False
    """Its nonce becomes a row, written with the change."""
    is_new: bool = False
    """It asks for something new: not for who is suspended."""
    max_body_bytes: int = SMALL_BODY_BYTES


def _changing(roles: Set[Role]) -> Access:
    return Access(roles, changes=True)


def _new(roles: Set[Role], max_body_bytes: int = SMALL_BODY_BYTES) -> Access:
    return Access(roles, changes=True, is_new=True, max_body_bytes=max_body_bytes)


ACCESS: dict[tuple[str, str], Access] = {
    ("GET", "/v1/status"): Access(_ALL),
    ("GET", "/v1/tenants"): Access(_READERS),
    ("POST", "/v1/tenants"): _new(_ISP),
    ("GET", "/v1/tenants/{name}"): Access(_READERS),
    ("PATCH", "/v1/tenants/{name}"): _changing(_ISP),
    ("GET", "/v1/tenants/{name}/keys"): Access(_READERS),
    ("POST", "/v1/tenants/{name}/keys"): _new(_ASKERS),
    ("DELETE", "/v1/tenants/{name}/keys/{key_id}"): _changing(_ASKERS),
    ("GET", "/v1/cloudlets"): Access(_READERS),
    ("POST", "/v1/cloudlets"): _new(_ISP),
    ("GET", "/v1/cloudlets/{name}"): Access(_READERS),
    ("PATCH", "/v1/cloudlets/{name}"): _changing(_ISP),
    ("GET", "/v1/cloudlets/{name}/keys"): Access(_OPERATORS),
    ("POST", "/v1/cloudlets/{name}/keys"): _new(_ISP),
    ("DELETE", "/v1/cloudlets/{name}/keys/{key_id}"): _changing(_ISP),
    ("GET", "/v1/vi-types"): Access(_ALL),
    ("PUT", "/v1/vi-types/{name}"): _changing(_ISP),
    ("GET", "/v1/services"): Access(_READERS),
    ("POST", "/v1/services"): _new(_ASKERS),
    ("GET", "/v1/services/{sid}"): Access(_READERS),
    ("DELETE", "/v1/services/{sid}"): _changing(_ASKERS),
    ("GET", "/v1/rules"): Access(_READERS),
    ("POST", "/v1/rules"): _new(_ASKERS, RULES_BODY_BYTES),
    ("GET", "/v1/rules/{rules_id}"): Access(_READERS),
    ("POST", "/v1/quotes"): Access(_ASKERS),
    ("POST", "/v1/calendar"): Access(_ASKERS),
    ("POST", "/v1/advice"): Access(_ASKERS),
    ("GET", "/v1/reservations"): Access(_READERS),
    ("POST", "/v1/reservations"): _new(_ASKERS),
    ("GET", "/v1/reservations/{reservation_id}"): Access(_READERS),
    ("GET", "/v1/reservations/{reservation_id}/terms"): Access(_READERS),
    ("POST", "/v1/reservations/{reservation_id}/extend"): _new(_ASKERS),
    ("POST", "/v1/reservations/{reservation_id}/resize"): _new(_ASKERS),
    ("POST", "/v1/reservations/{reservation_id}/cancel"): _changing(_ASKERS),
    ("GET", "/v1/operations/{operation_id}"): Access(_READERS),
    ("POST", "/v1/operations/{operation_id}/cancel"): _changing(_ASKERS),
    ("GET", "/v1/usage"): Access(_READERS),
    ("GET", "/v1/bills"): Access(_READERS),
    ("POST", "/v1/bills"): _new(_ISP),
    ("GET", "/v1/bills/{bill_id}"): Access(_READERS),
    ("GET", "/v1/price-lists/{name}/{version}"): Access(_READERS),
    ("GET", "/v1/events"): Access(_READERS),
}
"""By method and path, as the app has it. A test compares this with the app."""

OPEN = frozenset({("GET", "/healthz")})
"""What strangers may ask."""
