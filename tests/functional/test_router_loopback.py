"""A whole router on loopback: real sockets, real timers, hosts and fake VIs in one process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from packetcloud.chunk.hop.api import Settlement
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import Outcome
from packetcloud.chunk.reasons import Reason
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendOutcome
from packetcloud.router.errors import RouterConfigError
from packetcloud.router.status import fetch_status
from tests.functional.router_network import Network, kill, run
from tests.unit.router.router_fakes import guid, sid


def test_chunks_of_all_sizes_cross_a_router_intact(tmp_path: Path) -> None:
    """Plain chunks, through one service and through two, arrive once and as the services left."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        s, t = Identity.generate(), Identity.generate()
        await net.vi(router, s, b"<s>")
        await net.vi(router, t, b"<t>")
        expected = {}
        for size in (0, 1, 1000, 10_000, 300_000, 1 << 20):
            payload = os.urandom(size)
            expected[a.send(b.guid, payload)] = payload
            expected[a.send(b.guid, payload, s.sid)] = payload + b"<s>"
            expected[a.send(b.guid, payload, t.sid, s.sid)] = payload + b"<t><s>"
        await net.until(lambda: len(b.received) >= len(expected))
        assert {h.chunk_id.value: payload for h, payload in b.received} == expected
        assert len(b.received) == len(expected)
        await net.until(lambda: router.core.book.held_count == 0)
        assert router.core.book.delivered_count == len(expected)
        await net.close()

    run(test)


def test_every_refusal_reaches_the_source_with_its_reason(tmp_path: Path) -> None:
    """Whatever cannot be delivered is told: at the door or in a report."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        broken, other = Identity.generate(), Identity.generate()
        router = net.router(
            f'[[service]]\nsid = "{broken.sid}"\nname = "hung"\ndeadline_ms = 200\n'
            f'[[service]]\nsid = "{other.sid}"\nname = "gone"\ngrace_s = 0.1\n'
            f'[[neighbour]]\nguid = "{guid("q")}"\nna = 2\n'
            f'[[name]]\nguid = "{guid("d")}"\nna = 2\n',
            router="max_payload_bytes = 100_000\ndetached_hold_s = 0.3",
        )
        a, b = await net.host(router), await net.host(router)
        vi = await net.vi(router, broken)
        vi.is_hung = True
        expected = {
            a.send(b.guid, b"", sid("x")): Reason.UNKNOWN_SID,
            a.send(guid("x")): Reason.UNRESOLVABLE_GUID,
            a.send(guid("d"), hop_limit=0): Reason.HOP_LIMIT,
            a.send(guid("d")): Reason.NEIGHBOUR_LOST,
            a.send(b.guid, b"x" * 100_001): Reason.PAYLOAD_TOO_LARGE,
            a.send(b.guid, b"x", broken.sid): Reason.SERVICE_FAILED,
            a.send(b.guid, b"x", broken.sid, lifetime_ms=100): Reason.DEADLINE_PASSED,
            a.send(b.guid, b"x", other.sid): Reason.SERVICE_FAILED,
            a.send(b.guid, source=b.guid): Reason.NOT_AUTHORISED,
        }
        await net.until(lambda: all(a.told(number) for number in expected))
        assert {number: a.told(number) for number in expected} == expected
        assert not b.received
        await net.close()

    run(test)


def test_service_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The tasks of a killed VI go to the one that comes next; each chunk arrives once."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        key = Identity.generate()
        victim = await net.vi(router, key, b"<old>")
        victim.is_hung = True
        numbers = [a.send(b.guid, b"x" * 50_000, key.sid) for _ in range(30)]
        await net.until(lambda: len(victim.tasks) == 30)
        for task_id, payload in victim.tasks[:10]:
            victim.answer(task_id, payload)
        await net.until(lambda: len(b.received) == 10)
        kill(victim)
        await net.vi(router, key, b"<new>")
        await net.until(lambda: len(b.received) >= 30)
        assert sorted(b.ids()) == numbers
        marks = [payload[50_000:] for _, payload in b.received]
        assert marks.count(b"<old>") == 10 and marks.count(b"<new>") == 20
        await net.until(lambda: router.core.book.held_count == 0)
        await net.close()

    run(test)


def test_replicas_share_the_work_and_one_takes_over(tmp_path: Path) -> None:
    """Two VIs of one service; when one is killed, the other finishes its tasks."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router(router="vi_window_count = 5\nidle_timeout_s = 1.0")
        a, b = await net.host(router), await net.host(router)
        key = Identity.generate()
        vis = [await net.vi(router, key, b"!", instance=number) for number in (1, 2)]
        for vi in vis:
            vi.is_hung = True
        numbers = [a.send(b.guid, b"x", key.sid) for _ in range(20)]
        await net.until(lambda: all(len(vi.tasks) == 5 for vi in vis))
        kill(vis[0])
        vis[1].is_hung = False
        for task_id, payload in list(vis[1].tasks):
            vis[1].answer(task_id, payload)
        await net.until(lambda: len(b.received) >= 20)
        assert sorted(b.ids()) == numbers
        await net.close()

    run(test)


def test_restarted_host_gets_what_waited_for_it(tmp_path: Path) -> None:
    """A host killed and started again with its key gets the chunks that came in between."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        before = [a.send(b.guid, b"before") for _ in range(3)]
        await net.until(lambda: len(b.received) == 3)
        kill(b)
        between = [a.send(b.guid, b"between") for _ in range(5)]
        await net.until(lambda: router.core.book.taken_in_count == 8)
        again = await net.host(router, b.identity)
        after = [a.send(b.guid, b"after") for _ in range(2)]
        await net.until(lambda: len(again.received) >= 7)
        assert b.ids() == before
        assert sorted(again.ids()) == between + after
        await net.close()

    run(test)


def test_two_routers_find_each_other_and_report_across(tmp_path: Path) -> None:
    """Names lead to the neighbour, a sequence is split between two cloudlets, reports come back."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key1, key2 = net.key("r1"), net.key("r2")
        here, there, destination = (Identity.generate() for _ in range(3))
        r2 = net.start(
            net.config(
                "r2",
                f'[services]\nunlisted = "accept"\n[[neighbour]]\nguid = "{key1.guid}"\nna = 1\n',
                na=2,
            )
        )
        assert r2.hop.address is not None
        r1 = net.start(
            net.config(
                "r1",
                '[services]\nunlisted = "accept"\n'
                f'[[neighbour]]\nguid = "{key2.guid}"\nna = 2\n'
                f'address = "127.0.0.1:{r2.hop.address[1]}"\n'
                f'[[name]]\nguid = "{destination.guid}"\nna = 2\n'
                f'[[name]]\nguid = "{there.sid}"\nna = 2\n',
            )
        )
        a, b = await net.host(r1), await net.host(r2, destination)
        await net.vi(r1, here, b"<1>")
        await net.vi(r2, there, b"<2>")
        number = a.send(b.guid, b"x", here.sid, there.sid)
        await net.until(lambda: b.received)
        header, payload = b.received[0]
        assert payload == b"x<1><2>"
        assert header.chunk_id.value == number
        assert (header.hop_limit, header.source_na.value) == (31, 1)
        assert (r1.core.book.sent_on_count, r2.core.book.delivered_count) == (1, 1)
        lost = a.send(b.guid, b"x", there.sid, sid("x"))
        await net.until(lambda: a.told(lost))
        assert a.told(lost) is Reason.UNKNOWN_SID
        await net.close()

    run(test)


def test_drain_delivers_what_it_can_and_tells_the_rest(tmp_path: Path) -> None:
    """After the order to stop: new chunks refused, held ones told to their sources, none lost."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router(router="drain_limit_s = 0.3")
        a, b = await net.host(router), await net.host(router)
        await b.node.close()
        await net.until(lambda: len(router.core.attachments) == 1)
        held = a.send(b.guid, b"held")
        await net.until(lambda: router.core.book.held_count == 1)
        drained = asyncio.ensure_future(Deferred.fromCoroutine(router.drain()).asFuture(_loop()))
        await net.until(lambda: router.core.is_draining)
        late = a.send(b.guid, b"late")
        await net.until(lambda: a.told(held) and a.told(late))
        assert (a.told(held), a.told(late)) == (Reason.SHUTTING_DOWN, Reason.SHUTTING_DOWN)
        await Deferred.fromFuture(drained)
        assert router.core.book.held_count == 0
        await net.close()

    run(test)


def test_reload_takes_new_tables_and_keeps_the_old_ones_on_a_mistake(tmp_path: Path) -> None:
    """SIGHUP: a good file is taken over, a bad one changes nothing and is reported."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router("")
        a, b = await net.host(router), await net.host(router)
        key = Identity.generate()
        assert a.send(b.guid, b"x", key.sid)
        await net.until(lambda: a.told(1))
        assert a.told(1) is Reason.UNKNOWN_SID
        service = f'[[service]]\nsid = "{key.sid}"\nname = "s"\n'
        net.config("r1", service + "prioritty = 3\n")
        router.reload()
        reload = router.state.info().reload
        assert reload is not None and not reload.succeeded
        assert "[[service]] number 1 prioritty: unknown key" in reload.detail
        net.config("r1", service)
        router.reload()
        reload = router.state.info().reload
        assert reload is not None and reload.succeeded
        await net.vi(router, key, b"!")
        a.send(b.guid, b"x", key.sid)
        await net.until(lambda: b.received)
        assert b.received[0][1] == b"x!"
        await net.close()

    run(test)


def test_reload_leaves_the_spool_as_it_is_and_says_so(tmp_path: Path) -> None:
    """`/config` shows what is in force; what was changed in the file needs a restart."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router('[spool]\npath = "spool"\n')
        net.config("r1", '[spool]\npath = "spool"\nmemory_bytes = 1048576\n')
        router.reload()
        reload = router.state.info().reload
        assert reload is not None and reload.succeeded
        assert "changes in [spool] need a restart" in reload.detail
        spool = router.state.configuration.file.spool
        assert spool is not None and spool.memory_bytes != 1048576
        await net.close()

    run(test)


def test_what_is_settled_while_a_router_stops_is_noted_on_disk(tmp_path: Path) -> None:
    """The disk closes after the hop: what was handed on is not found at the next start."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router('[spool]\npath = "spool"\n', router='custody = "durable"')
        a, b = await net.host(router), await net.host(router)
        await b.node.close()
        await net.until(lambda: len(router.core.attachments) == 1)
        a.send(b.guid, b"held")
        await net.until(lambda: router.core.book.held_count == 1)
        [entry] = router.core.book.wheel
        close = router.hop.node.close

        async def close_late() -> None:
            await close()
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.05, pause.callback, None)
            await pause
            router.core.forwarder.waiting.stop_waiting(entry)
            router.core.book.passed_on(entry, to_router=False)

        router.hop.node.close = close_late  # type: ignore[method-assign]  # a slow end
        await net.close()
        net.routers.clear()
        net.ends.clear()
        router = net.start(tmp_path / "r1.toml")
        assert router.core.book.restored_count == 0
        await net.close()

    run(test)


def test_management_api_answers_while_chunks_flow(tmp_path: Path) -> None:
    """Health, metrics, tables and the held sample over HTTP, from the loop that moves chunks."""
    import httpx

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        key = Identity.generate()
        vi = await net.vi(router, key, b"!")
        a.send(b.guid, b"x", key.sid)
        await net.until(lambda: b.received)
        vi.is_hung = True
        a.send(b.guid, b"y", key.sid)
        await net.until(lambda: len(vi.tasks) == 2)
        assert router.management.address is not None
        url = f"http://127.0.0.1:{router.management.address[1]}"
        status = await _in_thread(lambda: fetch_status(url, 10.0))
        assert status.is_fine and status.info.conservation.held == 1
        assert {one.role for one in status.neighbours} == {"host", "service"}
        (service,) = status.services
        assert (service.sid, service.verdicts) == (key.sid.hex, {"update": 1})
        penalty = service.delay_penalty
        assert penalty.count == 1 and 0 < penalty.p50_s < 5
        assert penalty.buckets is None

        def get() -> dict[str, httpx.Response]:
            paths = (
                *("healthz", "readyz", "metrics", "config", "chunks/held?limit=5", "nothing"),
                "services?buckets=true",
            )
            with httpx.Client(base_url=url) as client:
                return {path: client.get("/" + path) for path in paths}

        answers = await _in_thread(get)
        codes = [answer.status_code for answer in answers.values()]
        assert codes == [200, 200, 200, 200, 200, 404, 200]
        (listed,) = answers["services?buckets=true"].json()
        assert listed["delay_penalty"]["buckets"] == [[penalty.p50_s, 1]]
        (chunk,) = answers["chunks/held?limit=5"].json()["chunks"]
        assert (chunk["phase"], chunk["source"]) == ("tasked", a.guid.hex)
        lines = answers["metrics"].text.splitlines()
        assert "packetcloud_router_chunks_taken_in_total 2.0" in lines
        assert "packetcloud_router_conservation_balance 0.0" in lines
        labels = f'service="{key.sid.short}",sid="{key.sid.hex}"'
        count = f"packetcloud_router_service_delay_penalty_seconds_count{{{labels}}} 1.0"
        assert count in lines
        router.core.start_draining()
        ready = await _in_thread(lambda: httpx.get(url + "/readyz"))
        assert (ready.status_code, ready.json()["detail"]) == (503, "draining")
        await net.close()

    run(test)


def test_taken_port_is_a_config_error(tmp_path: Path) -> None:
    """A port that cannot be bound is told with table, key and value."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        first = net.router()
        assert first.hop.address is not None and first.management.address is not None
        net.key("r9")
        taken = f'listen = "127.0.0.1:{first.hop.address[1]}"'
        path = net.config("r9")
        path.write_text(path.read_text().replace('listen = "127.0.0.1:0"', taken, 1))
        with pytest.raises(RouterConfigError, match=r"\[router\] listen = .*allowed: a free UDP"):
            net.start(path)
        control = f'control_listen = "127.0.0.1:{first.management.address[1]}"'
        path = net.config("r9")
        path.write_text(path.read_text().replace('control_listen = "127.0.0.1:0"', control))
        with pytest.raises(RouterConfigError, match=r"control_listen = .*allowed: a free TCP"):
            net.start(path)
        await net.close()

    run(test)


def test_real_endpoints_hear_how_their_chunks_ended(tmp_path: Path) -> None:
    """The host's own endpoint through a router: delivered, refused at the door, refused later."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key = Identity.generate()
        router = net.router(f'[[service]]\nsid = "{key.sid}"\nname = "s"\ndeadline_ms = 100\n')
        assert router.hop.address is not None
        vi = await net.vi(router, key, b"!")
        a = await Endpoint.open(reactor, router.hop.address, Identity.generate())
        b = await Endpoint.open(reactor, router.hop.address, Identity.generate())
        taken: list[bytes] = []

        def take(chunks: list[ReceivedChunk]) -> None:
            for chunk in chunks:
                taken.append(bytes(chunk.payload))
                chunk.release()

        b.on_chunks(take)
        plain = await a.send(b.guid, b"x" * 500_000)
        served = await a.send(b.guid, b"x", sid=key.sid)
        assert (plain.outcome, served.outcome) == (SendOutcome.DELIVERED, SendOutcome.DELIVERED)
        unknown = await a.send(b.guid, b"x", sid=sid("x"))
        assert (unknown.outcome, unknown.reason_word) == (SendOutcome.REFUSED, "unknown_sid")
        vi.is_hung = True
        failed = await a.send(b.guid, b"x", sid=key.sid)
        assert (failed.outcome, failed.reason_word) == (SendOutcome.REFUSED, "service_failed")
        assert taken == [b"x" * 500_000, b"x!"]
        await a.close()
        await b.close()
        await net.close()

    run(test)


def test_sender_hears_accepted_only_when_the_router_has_custody(tmp_path: Path) -> None:
    """ACCEPTED means custody; a refusal at the door is told by the hop and needs no report."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        good, bad = a.send(b.guid), a.send(guid("x"))
        await net.until(lambda: len(a.settled) == 2)
        assert a.settled[good][0] is Settlement.ACCEPTED
        assert a.settled[bad] == (Settlement.REFUSED, Reason.UNRESOLVABLE_GUID)
        assert not [r for r in a.reports if r.outcome is not Outcome.DELIVERED]
        await net.close()

    run(test)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_event_loop()


async def _in_thread(work: Any) -> Any:
    return await Deferred.fromFuture(asyncio.ensure_future(_loop().run_in_executor(None, work)))
