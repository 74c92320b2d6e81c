"""The cloudlet's table: versions, epochs, items, owners."""

from __future__ import annotations

import pytest

from packetcloud.chunk.names import SID
from packetcloud.router.cloudlet_table import (
    MAX_OWNERS_COUNT,
    MAX_SERVICES_COUNT,
    MAX_VIS_COUNT,
    CloudletTable,
    ItemReason,
    ServiceEntry,
    TableRefusedError,
    TableUpdate,
    UpdateReason,
    ViEntry,
)
from packetcloud.router.settings import ServiceSettings
from tests.unit.router.cloudlet_tables import (
    HELD,
    RESTRICTED,
    SERVING,
    entry,
    no_objection,
    update,
    vi,
)
from tests.unit.router.router_fakes import S, T, U


def applied(*updates: TableUpdate) -> CloudletTable:
    table = CloudletTable()
    for one in updates:
        table = table.apply(one, no_objection)
    return table


def refused(table: CloudletTable, sent: TableUpdate) -> TableRefusedError:
    with pytest.raises(TableRefusedError) as caught:
        table.apply(sent, no_objection)
    return caught.value


def reasons(table: CloudletTable) -> list[ItemReason | None]:
    return [result.reason for result in table.results]


def number(value: int) -> SID:
    return SID(value.to_bytes(20, "big"))


def many(count: int, first: int = 1) -> list[ServiceEntry]:
    return [
        ServiceEntry(ServiceSettings(number(one), f"n{one}")) for one in range(first, first + count)
    ]


def test_whole_table_replaces_and_changes_add_to_it() -> None:
    """Without a base the items are the table; with one they change what is in force."""
    table = applied(update(entry(vi(1)), entry(sid=T)))
    assert set(table.services) == {S.value, T.value}
    table = table.apply(update(entry(sid=U), T, version=2, base=1), no_objection)
    assert set(table.services) == {S.value, U.value}
    table = table.apply(update(entry(sid=T), version=7), no_objection)
    assert set(table.services) == {T.value}
    assert (table.epoch, table.version) == (1, 7)


def test_older_epoch_is_refused_whole_and_both_are_named() -> None:
    """A controller that was stopped while another took over changes nothing."""
    table = applied(update(entry(), epoch=3, version=5, controller="new"))
    error = refused(table, update(S, epoch=2, version=9, controller="old"))
    assert error.reason is UpdateReason.OLD_EPOCH
    assert "epoch 2, version 9 of old" in str(error)
    assert "epoch 3, version 5 of new" in str(error)


def test_new_epoch_begins_with_a_whole_table() -> None:
    """What a new controller believes to be in force may not be."""
    table = applied(update(entry(), version=5))
    error = refused(table, update(entry(sid=T), epoch=2, version=6, base=5))
    assert error.reason is UpdateReason.WRONG_BASE
    assert table.apply(update(entry(), epoch=2), no_objection).epoch == 2


def test_epoch_belongs_to_one_controller() -> None:
    """Two controllers that believe to have the same epoch do not overwrite each other."""
    table = applied(update(entry(), controller="one"))
    error = refused(table, update(entry(), version=2, controller="two"))
    assert error.reason is UpdateReason.OTHER_CONTROLLER


def test_same_version_again_is_answered_as_before() -> None:
    """A repeated update is no change; the same version with other content is refused."""
    first = update(entry(vi(1)), version=3)
    table = applied(first)
    assert table.apply(first, no_objection) is table
    assert refused(table, update(entry(), version=3)).reason is UpdateReason.OLD_VERSION
    assert refused(table, update(entry(), version=2)).reason is UpdateReason.OLD_VERSION


def test_wrong_base_is_refused_with_what_is_in_force() -> None:
    """The controller then sends a whole table."""
    table = applied(update(entry(), version=3))
    error = refused(table, update(entry(sid=T), version=4, base=2))
    assert error.reason is UpdateReason.WRONG_BASE
    assert "version 3" in str(error)


def test_refused_item_changes_nothing_and_the_others_are_taken() -> None:
    """Also in a whole table: what was in force of a refused service stays."""
    table = applied(update(entry(vi(1), priority=1), entry(sid=T)))
    broken = entry(vi(1), vi(2), priority=2)
    table = table.apply(update(broken, entry(sid=U), version=2), no_objection)
    assert reasons(table) == [ItemReason.SLOT_TAKEN, None]
    assert set(table.services) == {S.value, U.value}
    assert table.services[S.value].settings.priority == 1


def test_taking_out_what_is_not_there_is_fine() -> None:
    """Every item may be repeated."""
    table = applied(update(), update(S, version=2, base=1))
    assert reasons(table) == [None]


def test_items_that_are_refused() -> None:
    """Each has its reason."""

    def objection(sid: SID, name: str) -> tuple[ItemReason, str] | None:
        return (ItemReason.OWN_SERVICE, "of the config") if sid == U else None

    def reason(*items: ServiceEntry | SID) -> list[ItemReason | None]:
        return reasons(CloudletTable().apply(update(*items), objection))

    assert reason(entry(sid=U)) == [ItemReason.OWN_SERVICE]
    assert reason(entry(), entry()) == [None, ItemReason.TWICE]
    assert reason(entry(vi(1), vi(1, slot=1))) == [ItemReason.INSTANCE_TWICE]
    assert reason(entry(vi(1), vi(2, RESTRICTED))) == [ItemReason.SLOT_TAKEN]
    assert reason(entry(vi(1), vi(2, HELD))) == [None]
    named = ServiceEntry(ServiceSettings(T, entry().settings.name))
    assert reason(entry(), named) == [None, ItemReason.NAME_IN_USE]


def test_name_is_free_when_its_service_is_gone_or_called_otherwise() -> None:
    """Names are compared with what the items before have left."""
    one, two = ServiceSettings(S, "one"), ServiceSettings(T, "one")
    table = applied(update(ServiceEntry(one)))
    table = table.apply(update(ServiceEntry(two), version=2), no_objection)
    assert reasons(table) == [None] and set(table.services) == {T.value}
    renamed = ServiceEntry(ServiceSettings(T, "two"))
    table = table.apply(update(renamed, ServiceEntry(one), version=3, base=2), no_objection)
    assert reasons(table) == [None, None]


def test_caps_on_services_and_vis() -> None:
    """At the cap all is taken, one more is refused, and the rest goes on."""
    table = applied(update(*many(MAX_SERVICES_COUNT)))
    assert reasons(table) == [None] * MAX_SERVICES_COUNT
    one_more = many(1, MAX_SERVICES_COUNT + 1)
    table = table.apply(update(*one_more, version=2, base=1), no_objection)
    assert reasons(table) == [ItemReason.TOO_MANY_SERVICES]
    table = table.apply(update(number(1), *one_more, version=3, base=2), no_objection)
    assert reasons(table) == [None, None]
    crowd = [vi(instance, HELD) for instance in range(1, MAX_VIS_COUNT + 1)]
    table = applied(update(entry(*crowd)))
    assert reasons(table) == [None]
    table = table.apply(update(entry(vi(1), sid=T), version=2, base=1), no_objection)
    assert reasons(table) == [ItemReason.TOO_MANY_VIS]


def test_slot_has_one_owner_at_a_time() -> None:
    """Who served before another does so again only by a greater epoch, for good."""
    table = applied(update(entry(vi(1, SERVING, owner_epoch=4))))

    def put(*vis: ViEntry) -> ItemReason | None:
        nonlocal table
        version = table.version + 1
        sent = update(entry(*vis), version=version, base=table.version, epoch=table.epoch)
        table = table.apply(sent, no_objection)
        return reasons(table)[0]

    assert put(vi(1, HELD, owner_epoch=4), vi(2, HELD, owner_epoch=4)) is None
    assert put(vi(1, owner_epoch=4), vi(2, HELD, owner_epoch=4)) is None, "rolled back"
    assert put(vi(1, HELD, owner_epoch=4), vi(2, HELD, owner_epoch=4)) is None
    assert put(vi(2, owner_epoch=5)) is None
    assert put(vi(1, owner_epoch=4)) is ItemReason.OLD_OWNER
    assert put(vi(1, owner_epoch=5)) is ItemReason.OLD_OWNER
    assert put(vi(2, owner_epoch=4)) is ItemReason.OLD_OWNER
    assert put(vi(2, RESTRICTED, owner_epoch=5)) is None
    sent = update(entry(vi(1, owner_epoch=4)), epoch=2)
    table = table.apply(sent, no_objection)
    assert reasons(table) == [ItemReason.OLD_OWNER], "also for the next controller"
    assert put(vi(3, owner_epoch=1)) is None, "a new one has taken nothing over"
    assert put(vi(2, owner_epoch=5)) is None
    assert put(vi(1, HELD, owner_epoch=4)) is None, "it may stay to be asked for its state"


def test_owners_of_a_slot_that_are_remembered() -> None:
    """So many as it takes to know one that was thought dead, and no more."""
    table = applied(
        *(update(entry(vi(n)), version=n, base=n - 1 or None) for n in range(1, 20)),
    )
    owners = table.services[S.value].owners[0]
    assert [one.instance for one in owners] == list(range(20 - MAX_OWNERS_COUNT, 20))
