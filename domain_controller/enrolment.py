"""What the config file says of the domain goes into the state when the controller starts."""

from __future__ import annotations

from packetcloud.chunk.names import GUID
from packetcloud.domain_controller.config import DomainConfig
from packetcloud.domain_controller.core.checks import MAX_TIME_MS
from packetcloud.domain_controller.core.price_file import MAX_PRICE_LIST_BYTES, parse_price_list
from packetcloud.domain_controller.core.prices import PriceList
from packetcloud.domain_controller.core.principals import Key, Principal, Role
from packetcloud.domain_controller.errors import DomainConfigError
from packetcloud.domain_controller.state import catalogue, registry
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer


async def enrol(config: DomainConfig, writer: Writer) -> None:
    """Register operators and price lists that are not registered yet.

    An operator's key that the file no longer names signs no more.

    Raises:
        DomainConfigError: what the file says contradicts what is kept.
        PriceListError: a price list cannot be used.
    """
    lists = read_price_lists(config)

    def work(transaction: Transaction) -> None:
        for operator in config.file.operator:
            principal = Principal(operator.name, Role(operator.role))
            _enrol_operator(transaction, principal, bytes.fromhex(operator.public_key))
        named = {operator.name for operator in config.file.operator}
        for role in (Role.ISP, Role.AUDITOR):
            for former in registry.principals(transaction.connection, role):
                if former.name not in named:
                    _revoke(transaction, former.name, frozenset())
        for prices in lists:
            catalogue.put_price_list(transaction, prices, transaction.now_ms)

    try:
        await writer.do(work)
    except ConflictError as error:
        raise DomainConfigError(f"{config.path}: {error}") from None


def read_price_lists(config: DomainConfig) -> list[PriceList]:
    """Return the price lists that a config names, each name's versions in order.

    Raises:
        DomainConfigError: a file cannot be read.
        PriceListError: a price list cannot be used.
    """
    lists = []
    for path in config.file.domain.price_lists:
        file = config.within(path)
        try:
            with file.open(encoding="utf-8") as stream:
                text = stream.read(MAX_PRICE_LIST_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise DomainConfigError(
                f"{config.path}: [domain] price_lists: {file}: {reason}"
            ) from None
        lists.append(parse_price_list(text, str(file)))
    return sorted(lists, key=lambda one: (one.name, one.version))


def _enrol_operator(transaction: Transaction, principal: Principal, public_key: bytes) -> None:
    known = registry.find_principal(transaction.connection, principal.name)
    if known is None:
        registry.add_principal(transaction, principal)
    elif known.role is not principal.role:
        raise ConflictError(
            f"[[operator]] name = {principal.name!r}: that is a {known.role.value} already; "
            "allowed: another name"
        )
    key_id = GUID.from_public_key(public_key).hex
    _revoke(transaction, principal.name, frozenset({key_id}))
    if not any(
        one.key_id == key_id for one in registry.keys(transaction.connection, principal.name)
    ):
        key = Key(key_id, principal.name, public_key, transaction.now_ms, MAX_TIME_MS)
        registry.add_key(transaction, key)


def _revoke(transaction: Transaction, principal: str, but: frozenset[str]) -> None:
    for key in registry.keys(transaction.connection, principal):
        if key.key_id not in but:
            registry.revoke_key(transaction, principal, key.key_id)
