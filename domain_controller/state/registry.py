"""Who there is: principals and their keys, cloudlets, VI types, services.

Every list is by name, after a name, and bounded. What belongs to somebody is found by its owner:
with an `owner`, another's things are not there; None sees all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, update

from packetcloud.chunk.names import SID
from packetcloud.domain_controller.core.cloudlets import Cloudlet
from packetcloud.domain_controller.core.principals import Key, Principal, Role, Service
from packetcloud.domain_controller.core.resources import ViType
from packetcloud.domain_controller.state.documents import dump, load
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.rows import insert_new, put
from packetcloud.domain_controller.state.tables import (
    CLOUDLETS,
    KEYS,
    PRINCIPALS,
    SERVICES,
    VI_TYPES,
)
from packetcloud.domain_controller.state.transaction import Transaction

T = TypeVar("T")
MAX_LISTED_COUNT = 1000
"""Rows that one reading returns; go on after the last name."""
MAX_KEYS_COUNT = 64
"""Keys of one principal that are not revoked."""
MAX_SERVICES_COUNT = 1024
"""Services of one owner."""
MAX_VI_TYPES_COUNT = 256
MAX_CLOUDLETS_COUNT = 10_000


def add_principal(transaction: Transaction, principal: Principal) -> None:
    """Register somebody.

    Raises:
        ConflictError: the name is taken.
    """
    row = {"name": principal.name, "role": principal.role.value, "made_ms": transaction.now_ms}
    row["document"] = dump(principal)
    if not insert_new(transaction.connection, PRINCIPALS, row):
        raise ConflictError(f"the name {principal.name!r} is taken; choose another one")


def change_principal(transaction: Transaction, principal: Principal) -> bool:
    """Make a principal be like this one, but for its role; tell whether it is there."""
    done = transaction.connection.execute(
        update(PRINCIPALS)
        .where(PRINCIPALS.c.name == principal.name, PRINCIPALS.c.role == principal.role.value)
        .values(document=dump(principal))
    )
    return done.rowcount == 1


def find_principal(connection: Connection, name: str) -> Principal | None:
    text = connection.execute(_PRINCIPAL, {"n": name}).scalar_one_or_none()
    return None if text is None else load(Principal, text)


def principals(
    connection: Connection, role: Role, after: str = "", limit: int = MAX_LISTED_COUNT
) -> list[Principal]:
    """Return those of a role."""
    query = select(PRINCIPALS.c.document).where(
        PRINCIPALS.c.role == role.value, PRINCIPALS.c.name > after
    )
    return _all(connection, query.order_by(PRINCIPALS.c.name), Principal, limit)


def add_key(transaction: Transaction, key: Key) -> None:
    """Let a principal sign by a key.

    Raises:
        ConflictError: the key is known already, perhaps revoked, or there are too many.
    """
    of_principal = (KEYS.c.principal == key.principal) & KEYS.c.revoked_ms.is_(None)
    query = select(func.count()).select_from(KEYS).where(of_principal)
    if transaction.connection.execute(query).scalar_one() >= MAX_KEYS_COUNT:
        raise ConflictError(
            f"{key.principal!r} has {MAX_KEYS_COUNT} keys, as many as it may; revoke one first"
        )
    row = {
        "id": key.key_id,
        "principal": key.principal,
        "public_key": key.public_key,
        "from_ms": key.from_ms,
        "until_ms": key.until_ms,
    }
    if not insert_new(transaction.connection, KEYS, row):
        raise ConflictError(f"key {key.key_id!r} is known already; make a new key")


def revoke_key(transaction: Transaction, principal: str, key_id: str) -> bool:
    """Let a key count no more, for ever; tell whether it did count."""
    done = transaction.connection.execute(
        update(KEYS)
        .where(KEYS.c.id == key_id, KEYS.c.principal == principal, KEYS.c.revoked_ms.is_(None))
        .values(revoked_ms=transaction.now_ms)
    )
    return done.rowcount == 1


def keys(connection: Connection, principal: str) -> list[Key]:
    """Return the keys of somebody that are not revoked."""
    query = select(KEYS).where(KEYS.c.principal == principal, KEYS.c.revoked_ms.is_(None))
    return [_key(row) for row in connection.execute(query.order_by(KEYS.c.id))]


def public_keys(connection: Connection, principal: str) -> list[bytes]:
    """Return every public key that somebody ever had, those that are revoked, too."""
    query = select(KEYS.c.public_key).where(KEYS.c.principal == principal).order_by(KEYS.c.id)
    return [bytes(key) for key in connection.execute(query).scalars()]


def signers(
    connection: Connection, key_ids: Sequence[str], now_ms: int
) -> list[tuple[Principal, Key]]:
    """Return whose keys these are, without those that are nobody's, or do not count now."""
    rows = connection.execute(_SIGNERS, {"ids": list(key_ids)}).all()
    return [
        (load(Principal, row.document), key) for row in rows if (key := _key(row)).counts_at(now_ms)
    ]


def add_cloudlet(transaction: Transaction, cloudlet: Cloudlet) -> None:
    """Admit a cloudlet.

    Raises:
        ConflictError: the name is taken, or there are too many.
    """
    count = transaction.connection.execute(select(func.count()).select_from(CLOUDLETS))
    if count.scalar_one() >= MAX_CLOUDLETS_COUNT:
        raise ConflictError(f"there are {MAX_CLOUDLETS_COUNT} cloudlets, as many as there may be")
    row = _cloudlet_row(cloudlet) | {"made_ms": transaction.now_ms}
    if not insert_new(transaction.connection, CLOUDLETS, row):
        raise ConflictError(f"cloudlet {cloudlet.name!r} is there already")


def change_cloudlet(transaction: Transaction, cloudlet: Cloudlet) -> bool:
    """Make a cloudlet be like this one; tell whether it is there."""
    transaction.lock([cloudlet.name])
    done = transaction.connection.execute(
        update(CLOUDLETS).where(CLOUDLETS.c.name == cloudlet.name).values(**_cloudlet_row(cloudlet))
    )
    return done.rowcount == 1


def find_cloudlet(connection: Connection, name: str) -> Cloudlet | None:
    query = select(CLOUDLETS.c.document).where(CLOUDLETS.c.name == name)
    return _first(connection, query, Cloudlet)


def cloudlets(
    connection: Connection, after: str = "", limit: int = MAX_LISTED_COUNT
) -> list[Cloudlet]:
    query = select(CLOUDLETS.c.document).where(CLOUDLETS.c.name > after)
    return _all(connection, query.order_by(CLOUDLETS.c.name), Cloudlet, limit)


def regions_of_cloudlets(connection: Connection) -> dict[str, str]:
    """Return the region of each cloudlet, by name."""
    rows = connection.execute(select(CLOUDLETS.c.name, CLOUDLETS.c.region))
    return {row.name: row.region for row in rows}


def put_vi_type(transaction: Transaction, vi_type: ViType) -> None:
    """Add a VI type, or change it for what is reserved from now on.

    Raises:
        ConflictError: there are too many.
    """
    known = vi_types(transaction.connection)
    if vi_type.name not in known and len(known) >= MAX_VI_TYPES_COUNT:
        raise ConflictError(f"there are {MAX_VI_TYPES_COUNT} VI types, as many as there may be")
    row = {"name": vi_type.name, "changed_ms": transaction.now_ms, "document": dump(vi_type)}
    put(transaction.connection, VI_TYPES, row)


def vi_types(connection: Connection) -> dict[str, ViType]:
    """Return the catalogue, by name."""
    query = select(VI_TYPES.c.document).order_by(VI_TYPES.c.name)
    found = (load(ViType, text) for text in connection.execute(query).scalars())
    return {vi_type.name: vi_type for vi_type in found}


def put_service(transaction: Transaction, service: Service, until_ms: int) -> None:
    """Add a service whose SID is proven until then, or prove it anew.

    Raises:
        ConflictError: the SID or the name stands for another service, or there are too many.
    """
    connection = transaction.connection
    known = find_service(connection, service.sid)
    if known is None:
        query = select(func.count()).select_from(SERVICES)
        query = query.where(SERVICES.c.owner == service.owner)
        if connection.execute(query).scalar_one() >= MAX_SERVICES_COUNT:
            raise ConflictError(
                f"{service.owner!r} has {MAX_SERVICES_COUNT} services, as many as it may"
            )
    elif replace(known, image=service.image) != service:
        raise ConflictError(
            f"SID {service.sid.hex} is registered already, or under another name; "
            "remove that first: packetcloud service unregister"
        )
    of_name = (SERVICES.c.owner == service.owner) & (SERVICES.c.name == service.name)
    query_name = select(SERVICES.c.sid).where(of_name, SERVICES.c.sid != service.sid.hex)
    if connection.execute(query_name).first() is not None:
        raise ConflictError(f"the name {service.name!r} stands for another service of this owner")
    row: dict[str, Any] = {"sid": service.sid.hex, "owner": service.owner, "name": service.name}
    row |= {"until_ms": until_ms, "document": dump(service)}
    if known is None:
        connection.execute(insert(SERVICES), row | {"made_ms": transaction.now_ms})
    else:
        of_sid = SERVICES.c.sid == service.sid.hex
        connection.execute(update(SERVICES).where(of_sid).values(**row))


def remove_service(transaction: Transaction, sid: SID, owner: str | None) -> bool:
    """Forget a service; tell whether it was there."""
    gone = delete(SERVICES).where(SERVICES.c.sid == sid.hex)
    if owner is not None:
        gone = gone.where(SERVICES.c.owner == owner)
    return transaction.connection.execute(gone).rowcount == 1


def find_service(connection: Connection, sid: SID, owner: str | None = None) -> Service | None:
    query = select(SERVICES.c.document).where(SERVICES.c.sid == sid.hex)
    if owner is not None:
        query = query.where(SERVICES.c.owner == owner)
    return _first(connection, query, Service)


def service_named(connection: Connection, owner: str, name: str) -> Service | None:
    """Return the service that a name stands for with its owner."""
    query = select(SERVICES.c.document)
    query = query.where(SERVICES.c.owner == owner, SERVICES.c.name == name)
    return _first(connection, query, Service)


def services(
    connection: Connection,
    owner: str | None = None,
    after: str = "",
    limit: int = MAX_LISTED_COUNT,
) -> list[Service]:
    """Return services by SID, after a SID."""
    query = select(SERVICES.c.document).where(SERVICES.c.sid > after)
    if owner is not None:
        query = query.where(SERVICES.c.owner == owner)
    return _all(connection, query.order_by(SERVICES.c.sid), Service, limit)


def _key(row: Any) -> Key:
    return Key(row.id, row.principal, bytes(row.public_key), row.from_ms, row.until_ms)


def _cloudlet_row(cloudlet: Cloudlet) -> dict[str, Any]:
    return {"name": cloudlet.name, "region": cloudlet.region, "document": dump(cloudlet)}


def _first(connection: Connection, query: Select[Any], kind: type[T]) -> T | None:
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else load(kind, text)


def _all(connection: Connection, query: Select[Any], kind: type[T], limit: int) -> list[T]:
    texts = connection.execute(query.limit(min(limit, MAX_LISTED_COUNT))).scalars()
    return [load(kind, text) for text in texts]


_PRINCIPAL = select(PRINCIPALS.c.document).where(PRINCIPALS.c.name == bindparam("n"))
_SIGNERS = select(KEYS, PRINCIPALS.c.document).join(PRINCIPALS)
_SIGNERS = _SIGNERS.where(
    KEYS.c.id.in_(bindparam("ids", expanding=True)), KEYS.c.revoked_ms.is_(None)
)
"""What each request asks for, made once."""
