"""A whole router with a cloudlet's table on loopback: put over HTTP, in force, kept on disk."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.capture import read_packets
from packetcloud.chunk.captured import captured_chunks
from packetcloud.chunk.hop.udp import HopConnectError
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.pcap import CaptureDecoder
from packetcloud.chunk.reasons import Reason
from packetcloud.router.cloudlet_api import MAX_UPDATE_BYTES
from packetcloud.router.cloudlet_table import InspectionPlan, OutputBudget
from packetcloud.router.daemon import RouterDaemon
from packetcloud.router.table_store import TABLE_NAME
from tests.functional.router_network import FakeVi, ManagementClient, Network, run

PATH = "/v1/cloudlet/table"
CONFIG = '[cloudlet]\npath = "cloudlet"\n'


class _Controller(ManagementClient):
    """A cloudlet controller that keeps no state."""

    async def put(
        self,
        version: int,
        *items: dict[str, Any],
        epoch: int = 1,
        base: int | None = None,
        name: str = "controller",
    ) -> httpx.Response:
        document = {
            "controller": name,
            "epoch": epoch,
            "version": version,
            "base_version": base,
            "items": items,
        }
        return await self.ask("PUT", PATH, json=document)

    async def get(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.ask("GET", PATH)).raise_for_status().json()
        return answer


def _vi(instance: int, state: str = "serving", slot: int = 0) -> dict[str, Any]:
    return {"instance": instance, "owner_epoch": instance + 1, "slot": slot, "state": state}


def _put(key: Identity, *vis: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values = {"sid": key.sid.hex, "name": "mark", "vis": list(vis)}
    return {"put": values | changes}


def test_migration_over_http_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    """Twin held, old held, idle, cut-over: each chunk is delivered once, in the order of its flow,
    by one VI and then by the other."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        router = net.router(CONFIG)
        controller = _Controller(router)
        answer = await controller.put(1, _put(key, _vi(0)))
        sid = key.sid.hex
        accepted = {"sid": sid, "accepted": True, "reason": None, "detail": ""}
        assert (answer.status_code, answer.json()) == (
            200,
            {"epoch": 1, "version": 1, "items": [accepted]},
        )
        a, b = await net.host(router), await net.host(router)
        old = await net.vi(router, key, b"<old>", instance=0)
        sent = [a.send(b.guid, b"1", key.sid)]
        await net.until(lambda: b.ids() == sent)
        assert (await controller.put(2, _put(key, _vi(0), _vi(1, "held")), base=1)).is_success
        twin = await net.vi(router, key, b"<new>", instance=1)
        old.is_hung = True
        sent += [a.send(b.guid, b"2", key.sid), a.send(b.guid, b"3", key.sid)]
        await net.until(lambda: len(old.tasks) == 3)
        await controller.put(3, _put(key, _vi(0, "held"), _vi(1, "held")), base=2)
        idle = controller.begin("GET", f"{PATH}/idle", params={"sid": sid, "instance": 0})
        sent += [a.send(b.guid, b"4", key.sid), a.send(b.guid, b"5", key.sid)]
        await net.until(lambda: router.core.book.held_count == 4)
        shown = (await controller.get())["services"][0]
        assert (shown["waiting"], shown["held_slots"]) == (2, [0])
        assert [(vi["instance"], vi["tasks"], vi["state"]) for vi in shown["vis"]] == [
            (0, 2, "held"),
            (1, 0, "held"),
        ]
        assert not idle.called and not twin.tasks
        for task in old.tasks[1:]:
            old.answer(*task)
        answer = await idle
        assert answer.json()["idle"] and answer.json()["tasks"] == 0
        assert (await controller.put(4, _put(key, _vi(1)), base=3)).is_success
        await net.until(lambda: b.ids() == sent)
        assert [payload for _, payload in b.received] == [
            b"1<old>", b"2<old>", b"3<old>", b"4<new>", b"5<new>",
        ]  # fmt: skip
        await net.until(lambda: old.router is None)
        shown = (await controller.get())["services"][0]
        assert shown["vis"][0]["to_chunks"] == shown["vis"][0]["from_chunks"] == 2
        assert shown["vis"][0]["verdicts"] == {"update": 2}
        assert shown["vis"][0]["delay_penalty"]["count"] == 2
        await net.close()

    run(test)


def test_table_outlives_its_controller_and_a_kill_of_the_router(tmp_path: Path) -> None:
    """What was answered is in force after a start with what is on disk; the boot id is another; a
    repeated update is answered as before, and an older epoch stays refused."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key, other = Identity.generate(), Identity.generate()
        net.key("r1")
        path = net.config("r1", CONFIG + f'[[service]]\nsid = "{other.sid}"\nname = "own"\n')
        router = net.start(path)
        controller = _Controller(router)
        items = [_put(key, _vi(7)), _put(other, name="other")]
        first = (await controller.put(3, *items, epoch=2)).json()
        assert [item["accepted"] for item in first["items"]] == [True, False]
        assert first["items"][1]["reason"] == "own_service"
        boot_id = (await controller.get())["boot_id"]
        # What is on disk now is what a kill would leave.
        left = (tmp_path / "cloudlet" / TABLE_NAME).read_bytes()
        await router.stopService()
        net.routers.remove(router)
        (tmp_path / "cloudlet" / TABLE_NAME).write_bytes(left)
        router = net.start(path)
        controller = _Controller(router)
        shown = await controller.get()
        assert (shown["epoch"], shown["version"], shown["problem"]) == (2, 3, "")
        assert shown["boot_id"] != boot_id
        a, b = await net.host(router), await net.host(router)
        await net.vi(router, key, b"<s>", instance=7)
        sent = a.send(b.guid, b"x", key.sid)
        await net.until(lambda: b.ids() == [sent])
        assert (await controller.put(3, *items, epoch=2)).json() == first
        stale = await controller.put(9, epoch=1, name="stopped")
        assert stale.status_code == 409
        assert stale.json()["reason"] == "old_epoch"
        assert "epoch 1" in stale.json()["detail"] and "epoch 2" in stale.json()["detail"]
        assert (stale.json()["epoch"], stale.json()["version"]) == (2, 3)
        assert (await controller.put(4, epoch=2, base=1)).json()["reason"] == "wrong_base"
        await net.close()

    run(test)


def test_torn_table_is_not_believed_and_the_router_says_so(tmp_path: Path) -> None:
    """It starts without it, keeps a copy, and takes the next whole table."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        net.key("r1")
        path = net.config("r1", CONFIG)
        router = net.start(path)
        await _Controller(router).put(1, _put(key, _vi(0)))
        await router.stopService()
        net.routers.remove(router)
        file = tmp_path / "cloudlet" / TABLE_NAME
        torn = file.read_bytes()[:-80]
        file.write_bytes(torn)
        router = net.start(path)
        controller = _Controller(router)
        shown = await controller.get()
        assert (shown["epoch"], shown["services"]) == (0, [])
        assert "torn or altered" in shown["problem"]
        assert file.with_name("table.damaged").read_bytes() == torn
        assert (await controller.put(2, _put(key, _vi(0)))).is_success
        assert (await controller.get())["problem"] == ""
        await net.close()

    run(test)


def test_requests_that_are_refused(tmp_path: Path) -> None:
    """Each says what is wrong, and what is in force."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        controller = _Controller(net.router(CONFIG))
        malformed = _put(key, _vi(1, "sleeping"))
        answer = await controller.put(1, malformed)
        assert (answer.status_code, answer.json()["reason"]) == (422, "malformed")
        assert "items.0.put.vis.0.state = sleeping" in answer.json()["detail"]
        both = _put(key) | {"remove": key.sid.hex}
        assert "either put or remove" in (await controller.put(1, both)).json()["detail"]
        answer = await controller.ask("PUT", PATH, content=b" " * (MAX_UPDATE_BYTES + 1))
        assert (answer.status_code, answer.json()["reason"]) == (413, "too_large")
        idle = {"sid": key.sid.hex, "instance": 1, "timeout_s": 0.05}
        answer = await controller.ask("GET", f"{PATH}/idle", params=idle)
        assert (answer.status_code, answer.json()["reason"]) == (404, "not_listed")
        await controller.put(1, _put(key, _vi(1)))
        answer = await controller.ask("GET", f"{PATH}/idle", params=idle)
        assert (answer.json()["idle"], answer.json()["state"]) == (False, "serving")
        plain = _Controller(net.router())
        answer = await plain.put(1)
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        assert "[cloudlet]" in answer.json()["detail"]
        await net.close()

    run(test)


def test_table_is_written_with_the_token_only(tmp_path: Path) -> None:
    """Everybody may read it; who writes shows what is in the file."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        token = "0123456789abcdef" * 4
        file = tmp_path / "token"
        file.write_text(f"{token}\n")
        file.chmod(0o600)
        controller = _Controller(net.router(f'{CONFIG}token_file = "token"\n'))
        document = {"controller": "c", "epoch": 1, "version": 1, "items": []}
        for given in (None, token, f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer \u00e9"):
            headers = {} if given is None else {"Authorization": given.encode()}
            answer = await controller.ask("PUT", PATH, json=document, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "not_authorised")
        assert (await controller.get())["epoch"] == 0
        headers = {"Authorization": f"Bearer {token}"}
        assert (await controller.ask("PUT", PATH, json=document, headers=headers)).is_success
        assert (await controller.get())["epoch"] == 1
        await net.close()

    run(test)


def test_idle_answers_at_its_time_limit_and_when_the_hold_ends(tmp_path: Path) -> None:
    """Nobody waits for a VI that is not held any more."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        router = net.router(CONFIG)
        controller = _Controller(router)
        await controller.put(1, _put(key, _vi(0)))
        a, b = await net.host(router), await net.host(router)
        one = await net.vi(router, key, instance=0)
        one.is_hung = True
        a.send(b.guid, b"x", key.sid)
        await net.until(lambda: one.tasks)
        await controller.put(2, _put(key, _vi(0, "held")), base=1)
        idle = {"sid": key.sid.hex, "instance": 0, "timeout_s": 0.05}
        answer = (await controller.ask("GET", f"{PATH}/idle", params=idle)).json()
        assert (answer["idle"], answer["state"], answer["tasks"]) == (False, "held", 1)
        waiting = controller.begin("GET", f"{PATH}/idle", params=idle | {"timeout_s": 30})
        await net.until(lambda: router.table._waiters)
        await controller.put(3, _put(key, _vi(0)), base=2)
        answer = (await waiting).json()
        assert (answer["idle"], answer["state"], answer["version"]) == (False, "serving", 3)
        one.answer(*one.tasks[0])
        await net.until(lambda: b.received)
        await net.close()

    run(test)


def test_config_cannot_have_what_the_table_has(tmp_path: Path) -> None:
    """A reload that names a service of the table changes nothing; at a start the config wins."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        net.key("r1")
        router = net.start(net.config("r1", CONFIG))
        await _Controller(router).put(1, _put(key, _vi(0)))
        own = f'[[service]]\nsid = "{key.sid}"\nname = "own"\n'
        path = net.config("r1", CONFIG + own)
        router.reload()
        reload = router.state.last_reload
        assert reload is not None and not reload.succeeded
        assert "the cloudlet's table has its SID" in reload.detail
        await router.stopService()
        net.routers.remove(router)
        router = net.start(path)
        assert (await _Controller(router).get())["services"] == []
        (service,) = router.state.services()
        assert service.name == "own"
        await net.close()

    run(test)


def test_what_vis_may_not_say_is_told_with_its_chunk_and_written_down(tmp_path: Path) -> None:
    """A payload that nobody declared, then more bytes than the budget: neither reaches the host,
    both are in the report, and all that passed is in the VI's capture."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        router = net.router(CONFIG)
        controller = _Controller(router)
        looked_at = {"inspection": {"one_in": 1, "snap_bytes": 4}}
        declared = _put(key, _vi(0), verdicts=["forward", "drop"], **looked_at)
        assert (await controller.put(1, declared)).json()["items"][0]["accepted"]
        a, b = await net.host(router), await net.host(router)
        one = await net.vi(router, key, b"x" * 3000)
        first = a.send(b.guid, b"hello", key.sid)
        await net.until(lambda: a.told(first) is Reason.SERVICE_FAILED)
        await controller.put(2, _put(key, _vi(0), output_bytes_ratio=2.0, **looked_at), base=1)
        second = a.send(b.guid, b"again", key.sid)
        await net.until(lambda: a.told(second) is Reason.SERVICE_FAILED)
        one.mark = b"!"
        third = a.send(b.guid, b"small", key.sid)
        await net.until(lambda: b.ids() == [third])
        (shown,) = (await controller.get())["services"][0]["vis"]
        assert shown["violations"] == {"budget": 1, "payload": 1}
        assert [(seen["kind"], seen["chunk_id"]) for seen in shown["evidence"]] == [
            ("payload", first),
            ("budget", second),
        ]
        assert {seen["source"] for seen in shown["evidence"]} == {a.guid.hex}
        assert "3005 bytes of 5" in shown["evidence"][1]["text"]
        metrics = (await controller.ask("GET", "/metrics")).text
        assert "packetcloud_router_inspection_looks_total 6.0" in metrics
        await net.close()
        (capture,) = (tmp_path / "cloudlet" / "inspection").iterdir()
        assert capture.name == "mark-0.pcapng"
        packets = read_packets(io.BytesIO(capture.read_bytes()), capture.name)
        comments = [packet.comment for packet in packets]
        assert [comment.split(";")[0] for comment in comments] == ["task", "verdict"] * 3
        packets = read_packets(io.BytesIO(capture.read_bytes()), capture.name)
        tasks = [one for one in captured_chunks(CaptureDecoder().decode(packets)) if one.is_task]
        assert [one.payload for one in tasks] == [b"hell", b"agai", b"smal"]

    run(test)


def test_table_of_a_router_keeps_what_vis_may_send(tmp_path: Path) -> None:
    """After a start with what is on disk it is the same."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        net.key("r1")
        path = net.config("r1", CONFIG)
        router = net.start(path)
        more = {
            "verdicts": ["update", "emit"],
            "output_bytes_ratio": 3.0,
            "output_chunks_ratio": 2.5,
            "inspection": {"one_in": 7, "snap_bytes": 0, "keep_mib": 2},
        }
        await _Controller(router).put(1, _put(key, _vi(0), **more))
        assert router.core.cloudlet is not None
        before = router.core.cloudlet.table.services
        await router.stopService()
        net.routers.remove(router)
        router = net.start(path)
        assert router.core.cloudlet is not None
        assert router.core.cloudlet.table.services == before
        (entry,) = before.values()
        assert entry.budget == OutputBudget(3.0, 2.5)
        assert entry.inspection == InspectionPlan(7, 0, 2 << 20)
        assert entry.verdicts == {VerdictCode.UPDATE, VerdictCode.EMIT}
        await net.close()

    run(test)


def test_vi_that_the_table_does_not_list_is_told_why(tmp_path: Path) -> None:
    """The handshake ends with the reason."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        router = net.router(CONFIG)
        await _Controller(router).put(1, _put(key, _vi(0)))
        stranger = FakeVi(reactor, key, instance=3)
        told = "instance 3 of service mark is not in the cloudlet's table"
        with pytest.raises(HopConnectError, match=told):
            await stranger.attach(_address(router))
        await stranger.node.close()
        a = await net.host(router)
        sent = a.send(a.guid, b"x", Identity.generate().sid)
        await net.until(lambda: a.told(sent) is Reason.UNKNOWN_SID)
        await net.close()

    run(test)


def _address(router: RouterDaemon) -> tuple[str, int]:
    assert router.hop.address is not None
    return router.hop.address
