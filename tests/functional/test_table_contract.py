"""The controller's updates at the router's own update code: neither can drift from the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from packetcloud.chunk.hop.api import Role as NeighbourRole
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import GUID, SID
from packetcloud.cloudlet import router_bounds
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Role
from packetcloud.cloudlet.core.table import RETRY_REFUSED_S, RETRY_S
from packetcloud.cloudlet.router_client import MAX_IDLE_WAIT_S
from packetcloud.router import cloudlet_api, cloudlet_table
from packetcloud.router.cloudlet_schemas import ServiceItem, Update, ViItem
from packetcloud.router.cloudlet_table import ItemReason, UpdateReason, ViState
from packetcloud.router.settings import ServiceSettings
from packetcloud.router.table_store import TABLE_NAME
from tests.functional.table_ends import FULL, Ends, entry, sid_of, vi
from tests.unit.router.cloudlet_tables import with_table
from tests.unit.router.router_fakes import A, B, chunk

ONE, TWO = sid_of(1), sid_of(2)
OWN = ServiceSettings(sid=SID.from_hex(ONE), name="own")


def run(folder: Path, body: Callable[[Ends], Awaitable[None]], **settings: object) -> None:
    ends = Ends(folder, with_table(**settings) if settings else None)
    try:
        asyncio.run(body(ends))  # type: ignore[arg-type]
    finally:
        ends.close()


# What is said


def test_every_key_and_every_state_arrives_as_it_was_meant(tmp_path: Path) -> None:
    """What the router goes by is what the core wanted, no more and no less; on disk as well."""

    async def body(ends: Ends) -> None:
        wanted = entry(
            1,
            vi(1),
            vi(2, slot=1, is_restricted=True),
            vi(3, role=Role.TWIN),
            vi(4, slot=2, is_draining=True),
            vi(5, slot=3, owner_epoch=9),
            vi(6, slot=4, is_draining=True, is_restricted=True),
            held=(5,),
            **FULL,
        )
        await ends.want(wanted)
        assert {one["state"] for one in wanted["vis"]} == set(ViState)  # type: ignore[attr-defined]
        assert set(wanted) == set(ServiceItem.model_fields)
        assert set(wanted["vis"][5]) == set(ViItem.model_fields)  # type: ignore[index]
        vis = [{"restricted": False} | one for one in wanted["vis"]]  # type: ignore[attr-defined]
        assert ends.in_force == {ONE: {**wanted, "vis": vis}}
        ends.restart_router()
        assert ends.in_force == {ONE: {**wanted, "vis": vis}}

    run(tmp_path, body)


def test_items_put_change_and_remove(tmp_path: Path) -> None:
    """Each kind of item alone and beside others; what did not change is not sent again."""

    async def body(ends: Ends) -> None:
        await ends.settle()
        await ends.want(entry(1, vi(1)), entry(2))
        await ends.want(entry(1, vi(1), vi(2, slot=1)), entry(2))
        await ends.want(entry(1, vi(1), vi(2, slot=1)))
        await ends.want(entry(3), entry(1, vi(2, slot=1), priority=3))
        sent = [Update.model_validate_json(body) for body in ends.bodies]
        assert [(one.version, one.base_version) for one in sent] == [
            (1, None),
            (2, 1),
            (3, 2),
            (4, 3),
            (5, 4),
        ]
        items = [
            [item.remove or item.put.sid[-1] for item in one.items if item.put or item.remove]
            for one in sent
        ]
        assert items == [[], ["1", "2"], ["1"], [TWO], ["3", "1"]]
        assert set(ends.in_force) == {ONE, sid_of(3)} and ends.in_force[ONE]["priority"] == 3
        await ends.settle()
        assert len(ends.bodies) == 5

    run(tmp_path, body)


def test_every_key_of_an_update_is_the_schemas(tmp_path: Path) -> None:
    """The body has the fields of the router's schema, all of them, under their names."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(1), **FULL))
        document = json.loads(ends.bodies[0])
        assert set(document) == set(Update.model_fields)
        assert [set(item) for item in document["items"]] == [{"put"}]

    run(tmp_path, body)


def test_the_bounds_are_the_same_on_both_sides() -> None:
    """What the controller's config allows, the router's table takes."""
    assert router_bounds.MAX_SERVICES_COUNT == cloudlet_table.MAX_SERVICES_COUNT
    assert router_bounds.MAX_SLOTS_COUNT == cloudlet_table.MAX_SLOTS_COUNT
    assert router_bounds.MAX_DESTINATIONS_COUNT == cloudlet_table.MAX_DESTINATIONS_COUNT
    assert MAX_IDLE_WAIT_S == cloudlet_api.MAX_IDLE_WAIT_S
    bounds = ServiceItem.model_fields["deadline_ms"].metadata
    assert next(one.ge for one in bounds if hasattr(one, "ge")) == router_bounds.MIN_DEADLINE_MS


# What is refused


async def _own_service(ends: Ends) -> None:
    await ends.want(entry(1))


async def _still_here(ends: Ends) -> None:
    ends.attach(1, 0)
    ends.configure_router(with_table())
    await ends.want(entry(1))


async def _name_in_use(ends: Ends) -> None:
    await ends.want(entry(2), entry(1, name="service-2"))


async def _twice(ends: Ends) -> None:
    update = do.PushTable(1, 5, None, {ONE: entry(1)}, [ONE])
    answer = await ends.client.push(update)
    assert isinstance(answer, saw.TableAnswered) and answer.is_in_force
    assert answer.refused[ONE].startswith("twice: ")


async def _too_many_services(ends: Ends) -> None:
    await ends.want(*(entry(number) for number in range(2, 258)), entry(1))


async def _too_many_vis(ends: Ends) -> None:
    full = [vi(number, slot=number) for number in range(256)]
    await ends.want(*(entry(number, *full) for number in range(2, 6)), entry(1, vi(7)))


async def _instance_twice(ends: Ends) -> None:
    await ends.want(entry(1, vi(7), vi(7, slot=1)))


async def _slot_taken(ends: Ends) -> None:
    await ends.want(entry(1, vi(7), vi(8)))


async def _old_owner(ends: Ends) -> None:
    await ends.want(entry(1, vi(7)))
    await ends.want(entry(1, vi(8, owner_epoch=2)))
    await ends.want(entry(1, vi(7)))


REFUSED = {
    ItemReason.OWN_SERVICE: _own_service,
    ItemReason.STILL_HERE: _still_here,
    ItemReason.NAME_IN_USE: _name_in_use,
    ItemReason.TWICE: _twice,
    ItemReason.TOO_MANY_SERVICES: _too_many_services,
    ItemReason.TOO_MANY_VIS: _too_many_vis,
    ItemReason.INSTANCE_TWICE: _instance_twice,
    ItemReason.SLOT_TAKEN: _slot_taken,
    ItemReason.OLD_OWNER: _old_owner,
}


def test_every_reason_of_an_item_is_tried() -> None:
    assert set(REFUSED) == set(ItemReason)


@pytest.mark.parametrize("reason", [one for one in ItemReason if one is not ItemReason.TWICE])
def test_a_refused_item_is_known_for_it(reason: ItemReason, tmp_path: Path) -> None:
    """The controller says so once, takes nothing of it for in force, and rests until it is due."""

    async def body(ends: Ends) -> None:
        await REFUSED[reason](ends)
        assert ends.table.refused[ONE].startswith(f"{reason.value}: ")
        said = [note for note in ends.notes if f"refuses service {ONE}: {reason.value}" in note]
        assert len(said) == 1
        assert not ends.table.is_in_force(ONE, 7, "serving")
        await ends.settle()
        before = len(ends.bodies)
        await ends.settle()
        assert len(ends.bodies) == before
        await ends.pass_time(RETRY_REFUSED_S)
        assert len(ends.bodies) == before + 1 and len(said) == 1
        assert ONE in ends.table.refused
        # Whatever was in the way is gone: the next attempt is taken without anybody's help.
        ends.restart_router(loses_its_folder=True)
        ends.configure_router(with_table())
        await ends.want(entry(1, vi(7)))
        await ends.settle()
        assert ends.table.refused == {} and ends.table.is_in_force(ONE, 7, "serving")
        assert ends.in_force[ONE]["vis"][0]["instance"] == 7

    is_of_config = reason in (ItemReason.OWN_SERVICE, ItemReason.STILL_HERE)
    run(tmp_path, body, **({"services": (OWN,)} if is_of_config else {}))


def test_a_sid_twice_in_an_update_is_refused_by_itself(tmp_path: Path) -> None:
    run(tmp_path, _twice)


def test_what_stood_in_the_way_may_go_without_the_controller(tmp_path: Path) -> None:
    """The operator takes a service out of the router's config: the table gets it by itself."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)), entry(2))
        assert list(ends.in_force) == [TWO]
        ends.configure_router(with_table())
        await ends.pass_time(RETRY_REFUSED_S - 0.1)
        assert list(ends.in_force) == [TWO]
        await ends.pass_time(0.1)
        assert set(ends.in_force) == {ONE, TWO} and ends.table.refused == {}
        assert ends.table.is_in_force(ONE, 7, "serving")

    run(tmp_path, body, services=(OWN,))


def test_an_update_about_another_service_does_not_clear_a_refusal(tmp_path: Path) -> None:
    """What is refused stays known as refused while others change."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)), entry(2))
        await ends.want(entry(1, vi(7)), entry(2, vi(3)))
        assert ONE in ends.table.refused and TWO not in ends.table.refused
        assert not ends.table.is_in_force(ONE, 7, "serving")
        assert ends.table.is_in_force(TWO, 3, "serving")

    run(tmp_path, body, services=(OWN,))


def test_a_refused_change_leaves_what_was_there(tmp_path: Path) -> None:
    """The controller knows that a VI is listed still, whatever it wanted instead."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)))
        await ends.want(entry(1, vi(8), vi(9)))
        assert ends.table.refused[ONE].startswith("slot_taken")
        assert ends.table.is_in_force(ONE, 7, "serving") and not ends.table.lacks(ONE, 7)
        assert ends.table.lacks(ONE, 8)
        await ends.want(entry(1, vi(7)))
        assert ends.table.refused == {}

    run(tmp_path, body)


def test_of_a_refused_whole_table_nothing_is_taken_for_known(tmp_path: Path) -> None:
    """The router keeps what it had of the service: no VI is taken for gone, none for listed; and
    what it kept is removed when nobody wants the service any more."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)))
        ends.start_controller(epoch=2, version=ends.table.version)
        await ends.want(entry(1, vi(8), vi(9)))
        assert ends.in_force[ONE]["vis"][0]["instance"] == 7
        assert not ends.table.lacks(ONE, 7) and not ends.table.is_in_force(ONE, 7, "serving")
        await ends.want(entry(2))
        assert list(ends.in_force) == [TWO] and ends.table.refused == {}

    run(tmp_path, body)


async def _old_epoch(ends: Ends) -> str:
    await ends.client.push(do.PushTable(9, 1, None, {}, ()))
    await ends.want(entry(1))
    return "epoch 9, ours is 1"


async def _other_controller(ends: Ends) -> str:
    await ends.another_client("c2").push(do.PushTable(1, 1, None, {}, ()))
    await ends.want(entry(1))
    return "epoch 1, ours is 1"


async def _old_version(ends: Ends) -> str:
    await ends.client.push(do.PushTable(1, 5000, None, {TWO: entry(2)}, ()))
    await ends.want(entry(1))
    assert (len(ends.bodies), ends.table.version) == (3, 5001)
    assert list(ends.in_force) == [ONE]
    return ""


async def _wrong_base(ends: Ends) -> str:
    await ends.want(entry(1))
    await ends.client.push(do.PushTable(1, 2, 1, {TWO: entry(2)}, ()))
    await ends.client.push(do.PushTable(1, 3, 2, {TWO: entry(2, vi(1))}, ()))
    ends.table.version = 7
    await ends.want(entry(1, vi(7)))
    assert list(ends.in_force) == [ONE] and ends.table.version == 9
    return ""


WHOLE = {
    UpdateReason.OLD_EPOCH: _old_epoch,
    UpdateReason.OTHER_CONTROLLER: _other_controller,
    UpdateReason.OLD_VERSION: _old_version,
    UpdateReason.WRONG_BASE: _wrong_base,
}


@pytest.mark.parametrize("reason", UpdateReason)
def test_an_update_that_is_refused_as_a_whole(reason: UpdateReason, tmp_path: Path) -> None:
    """Who is fenced ends and names both epochs; who is only behind comes to the same table, in a
    number of updates that does not grow with how far it is behind."""

    async def body(ends: Ends) -> None:
        ending = await WHOLE[reason](ends)
        assert ends.stepped_down.endswith(ending) and bool(ends.stepped_down) == bool(ending)
        if not ending:
            await ends.settle()

    run(tmp_path, body)


def test_a_controller_that_looks_before_it_writes_is_fenced_as_well(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        await ends.want(entry(1))
        await ends.another_client("c2").push(do.PushTable(2, 1, None, {}, ()))
        await ends.look()
        assert ends.stepped_down.endswith("epoch 2, ours is 1")

    run(tmp_path, body)


def test_what_is_refused_for_another_reason_is_tried_again(tmp_path: Path) -> None:
    """No token, no table there, too large an update: said, and tried again a little later."""

    async def body(ends: Ends) -> None:
        ends.client = ends.another_client(token="wrong")
        await ends.want(entry(1))
        assert "401" in ends.notes[-1] and "token" in ends.notes[-1]
        ends.client = ends.another_client()
        ends.service._store, store = None, ends.service._store
        await ends.pass_time(RETRY_S)
        assert "503" in ends.notes[-1] and "[cloudlet]" in ends.notes[-1]
        ends.service._store = store
        await ends.pass_time(RETRY_S)
        assert list(ends.in_force) == [ONE]
        many = {"allowed_destinations": [f"{number:040x}" for number in range(1024)]}
        large = [entry(number, **many) for number in range(1, 30)]
        await ends.want(*large)
        assert "413" in ends.notes[-1] and list(ends.in_force) == [ONE]
        await ends.want(entry(1), entry(2))
        await ends.pass_time(RETRY_S)
        assert list(ends.in_force) == [ONE, TWO]

    run(tmp_path, body)


# Epochs, versions, restarts


def test_an_answer_that_got_lost(tmp_path: Path) -> None:
    """The router took the update: the whole table comes once more, and both are at rest."""

    async def body(ends: Ends) -> None:
        await ends.settle()
        await ends.want(entry(1))
        ends.loses_next_answer = True
        await ends.want(entry(1, vi(7)))
        assert ends.in_force[ONE]["vis"] and not ends.table.is_in_force(ONE, 7, "serving")
        await ends.pass_time(RETRY_S)
        assert ends.table.is_in_force(ONE, 7, "serving")
        await ends.settle()
        assert len(ends.bodies) == 4

    run(tmp_path, body)


def test_the_same_update_twice_is_answered_twice(tmp_path: Path) -> None:
    """Also what it refused, and also by a router that was restarted in between."""

    async def body(ends: Ends) -> None:
        update = do.PushTable(1, 5, None, {ONE: entry(1), TWO: entry(2)}, ())
        first = await ends.client.push(update)
        assert isinstance(first, saw.TableAnswered) and set(first.refused) == {ONE}
        assert await ends.client.push(update) == first
        ends.restart_router()
        assert await ends.client.push(update) == first

    run(tmp_path, body, services=(OWN,))


@pytest.mark.parametrize("loses_its_folder", [False, True])
def test_the_router_is_restarted(loses_its_folder: bool, tmp_path: Path) -> None:
    """With its table or without: the next look finds another boot, and everything is given anew."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)), entry(2))
        await ends.settle()
        ends.restart_router(loses_its_folder=loses_its_folder)
        assert bool(ends.in_force) is not loses_its_folder
        seen = await ends.look()
        assert isinstance(seen, saw.RouterSeen) and seen.boot == "boot-2"
        await ends.settle()
        assert set(ends.in_force) == {ONE, TWO} and ends.table.is_in_force(ONE, 7, "serving")

    run(tmp_path, body)


def test_a_router_whose_table_was_damaged_takes_the_next_whole_one(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)))
        ends.service.close()
        (tmp_path / TABLE_NAME).write_bytes(b"torn")
        ends.start_router()
        assert ends.service.problem and ends.in_force == {}
        await ends.settle()
        assert list(ends.in_force) == [ONE] and not ends.service.problem

    run(tmp_path, body)


def test_the_controller_is_restarted(tmp_path: Path) -> None:
    """Its next epoch begins with the whole table; what it does not want any more goes."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)), entry(2))
        ends.start_controller(epoch=2, version=ends.table.version)
        await ends.want(entry(1, vi(7)))
        await ends.settle()
        assert list(ends.in_force) == [ONE]
        assert Update.model_validate_json(ends.bodies[-1]).base_version is None

    run(tmp_path, body)


def test_both_are_restarted_while_an_update_is_on_its_way(tmp_path: Path) -> None:
    """Neither knows what the other has; one look and one update later both do."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)))
        ends.loses_next_answer = True
        await ends.want(entry(1, vi(7)), entry(2))
        ends.restart_router()
        ends.start_controller(epoch=2, version=1)  # what it gave last was not written down
        await ends.want(entry(1, vi(7), vi(8, slot=1)))
        await ends.settle()
        assert {sid: len(one["vis"]) for sid, one in ends.in_force.items()} == {ONE: 2}

    run(tmp_path, body)


# What the router reports


def test_the_report_is_understood_with_everything_in_it(tmp_path: Path) -> None:
    """Attached and not, tasks, chunks that wait, violations, delay penalty."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7, is_restricted=True), vi(8, role=Role.TWIN)), entry(2))
        one = ends.attach(1, 7)
        source = ends.net.attach(A, NeighbourRole.HOST)
        ends.net.attach(GUID(B.value), NeighbourRole.HOST)
        wanted = SID.from_hex(ONE)
        for number in (1, 2, 3):
            assert source.chunk(chunk(services=(wanted,), chunk_id=number)) is None
        assert source.chunk(chunk(services=(SID.from_hex(TWO),), chunk_id=4)) is None
        first, second, _ = one.accept_all()
        ends.net.pass_time(0.5)
        one.verdict(first)
        one.verdict(second, VerdictCode.EMIT, emit_count=0)
        seen = await ends.look()
        assert isinstance(seen, saw.RouterSeen)
        service = seen.services[ONE]
        assert (seen.boot, seen.epoch, seen.version) == ("boot-1", 1, 1)
        assert service.vis[8] == saw.ViAtRouter(False, 0)
        assert service.vis[7].is_attached and service.vis[7].tasks == 1
        assert service.penalty_p99_s is not None and service.penalty_p99_s >= 0.5
        assert (seen.services[TWO].waiting, seen.services[TWO].oldest_wait_s) == (1, 0.5)

    run(tmp_path, body)


def test_violations_are_counted_as_the_controller_reads_them(tmp_path: Path) -> None:
    """By kind, with the chunk and what is wrong, also when the VI's session has ended."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7, is_restricted=True)))
        one = ends.attach(1, 7)
        source = ends.net.attach(A, NeighbourRole.HOST)
        source.chunk(chunk(services=(SID.from_hex(ONE),)))
        (task,) = one.accept_all()
        one.verdict(task, VerdictCode.UPDATE, bytes(5000))
        seen = await ends.look()
        assert isinstance(seen, saw.RouterSeen)
        found = seen.services[ONE].vis[7]
        assert found.violations == {"output": 1}
        (evidence,) = found.evidence
        assert (evidence.kind, evidence.source, evidence.chunk_id) == ("output", A.hex, 7)
        assert evidence.text.startswith("a restricted VI made 5000 bytes")
        one.go_down()
        again = await ends.look()
        assert isinstance(again, saw.RouterSeen)
        assert again.services[ONE].vis[7].violations == {"output": 1}

    run(tmp_path, body)


def test_who_is_idle(tmp_path: Path) -> None:
    """Held with a task, held without, serving, not listed, not attached: as the controller asks."""

    async def body(ends: Ends) -> None:
        await ends.want(entry(1, vi(7)))
        one = ends.attach(1, 7)
        source = ends.net.attach(A, NeighbourRole.HOST)
        source.chunk(chunk(services=(SID.from_hex(ONE),)))
        (task,) = one.accept_all()
        serving = await ends.client.await_idle(ONE, 7, 0.0)
        assert serving is not None and not serving.is_idle
        await ends.want(entry(1, vi(7), held=(7,)))
        asked = asyncio.ensure_future(ends.client.await_idle(ONE, 7, 30.0))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asked.done()
        one.verdict(task)
        assert await asked == saw.IdleAnswer(True, True, "boot-1", 1, 2)
        one.go_down()
        away = await ends.client.await_idle(ONE, 7, 0.0)
        assert away == saw.IdleAnswer(True, False, "boot-1", 1, 2), "idle, for it has none"
        assert await ends.client.await_idle(TWO, 7, 0.0) is None

    run(tmp_path, body)
