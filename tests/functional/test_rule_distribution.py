"""A rule from a domain's command to a chunk: domain, cloudlet, router and hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from twisted.internet.defer import Deferred

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.cli.main import main
from packetcloud.cloudlet import router_rules
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.domain_link import link as link_module
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.domain_controller.client import DomainClient
from packetcloud.domain_controller.core.installations import RulesState
from packetcloud.router.rules.document import Head, line_of
from packetcloud.router.state import format_address
from tests.functional.cloudlet_place import Place, fast
from tests.functional.cloudlet_router import CloudletRouter
from tests.functional.router_network import ManagementClient, Network, run
from tests.functional.test_domain_daemon import Served
from tests.functional.test_domain_link import CHANNEL, Linked, admit, register
from tests.unit.router.rules.rule_documents import signed

__all__ = ["fast"]
UNTIL_S = 4e9
T = TypeVar("T")


class _Rules(httpx.AsyncBaseTransport):
    """The way to a router: all is a real one's but its table, which is made up."""

    def __init__(self, table: CloudletRouter, url: str) -> None:
        self._table = table
        self._url = httpx.URL(url)
        self._real = httpx.AsyncHTTPTransport()
        self._made_up = table.client()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/cloudlet"):
            transport: httpx.AsyncBaseTransport = self._made_up._client._transport
            return await transport.handle_async_request(request)
        url = request.url.copy_with(host=self._url.host, port=self._url.port)
        content = await request.aread()
        return await self._real.handle_async_request(
            httpx.Request(request.method, url, headers=request.headers, content=content)
        )


class _Domain:
    """The command line of a domain's operator."""

    def __init__(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._options = ["--url", served.daemon.url, "--key", str(served.key)]

    async def rule(self, *words: str, code: int = 0) -> Any:
        """Run `packetcloud domain rule`; return what it prints."""
        arguments = ["--format", "json", "domain", "rule", *words, *self._options]
        self._capsys.readouterr()
        found = await _of(asyncio.to_thread(main, arguments))
        printed = self._capsys.readouterr()
        assert found == code, f"{printed.out}{printed.err}"
        return json.loads(printed.out)


async def _of(work: Awaitable[T]) -> T:
    """Wait on Twisted's terms for something of asyncio's."""
    result: T = await Deferred.fromFuture(asyncio.ensure_future(work))
    return result


def _document(isp: Identity, serial: int, *rules: dict[str, Any]) -> bytes:
    head = Head("web", serial, None, valid_until_s=UNTIL_S, replaces=True)
    return signed(head.to_bytes() + b"".join(map(line_of, rules)), isp)


@pytest.mark.usefixtures("fast")
def test_a_rule_goes_through_the_domain_and_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Added at the domain, it decides about chunks at the router; the router says which rules it
    refuses, and refuses what was altered on the way; what it lost comes back; withdrawn, it is
    gone everywhere."""
    monkeypatch.setattr(router_rules, "LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(link_module, "FIRST_PAUSE_S", 0.05)
    for name in ("domain", "router", "cloudlet"):
        (tmp_path / name).mkdir()
    isp = create_identity_file(tmp_path / "isp.key")
    service = create_identity_file(tmp_path / "service.key")
    edge = create_identity_file(tmp_path / "edge-1.key")
    file = tmp_path / "web.signed"

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path / "router")
        router = net.router(
            f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
            f'[[service]]\nsid = "{service.sid}"\nname = "s"\n'
        )
        a, b = await net.host(router), await net.host(router)
        await net.vi(router, service, b"<s>")
        await net.until(lambda: router.rules.figures().is_keeper_up)
        place = Place(tmp_path / "cloudlet")
        way = _Rules(place.router, f"http://{format_address(router.management.address)}")
        monkeypatch.setattr(
            place.router,
            "client",
            lambda name: RouterClient("http://router", name, place.router.token, way),
        )
        linked = Linked(place, served, tmp_path / "edge-1.key")
        await _of(asyncio.to_thread(admit, served, edge))
        await _of(asyncio.to_thread(_register_own, served, service))
        await _of(linked.start())
        domain = _Domain(served, capsys)

        async def crosses(payload: bytes) -> bytes:
            count = len(b.received)
            a.send(b.guid, payload)
            await net.until(lambda: len(b.received) > count)
            arrived: bytes = b.received[-1][1]
            return arrived

        visit = {"name": "r", "service": service.sid.hex, "destination": b.guid.hex}
        assert await crosses(b"x") == b"x"
        around = place.controller.surroundings
        hosts = tuple(sorted((a.guid.hex, b.guid.hex)))
        await net.until(lambda: around.now().na == 1 and around.now().hosts == hosts)
        file.write_bytes(_document(isp, 1, visit))
        added = await domain.rule("add", str(file), "--wait", "30")
        assert added["at"] == {"installed": 1}
        assert await crosses(b"x") == b"x<s>"

        wrong = visit | {"name": "wrong", "size_min": 9, "size_max": 1}
        file.write_bytes(_document(isp, 2, visit, wrong))
        partly = await domain.rule("add", str(file), "--wait", "30", code=1)
        (at,) = partly["cloudlet_states"]
        assert (at["state"], at["accepted"], at["refused"]) == ("partly", 1, 1)
        assert at["refusals"][0]["reason"] == "wrong field"

        # Whoever has the domain controller can alter what is signed; the router does not take it.
        known = place.controller.core.saved.rule_sets[added["id"]]
        altered = _document(isp, 3, visit).decode().replace('"r"', '"q"')
        said = saw.RulesSaid(1, known.name, known.signer, known.set_name, 3, None, altered)
        place.controller.tell(said)
        await net.until(lambda: known_of(place).state is RulesState.REFUSED)
        assert known_of(place).text.startswith("forged")
        assert await crosses(b"x") == b"x<s>"

        await _of(linked.kill())
        await _of(linked.start())
        file.write_bytes(_document(isp, 4, visit))
        assert (await domain.rule("add", str(file), "--wait", "30"))["at"] == {"installed": 1}

        # Somebody takes the set out by hand; the domain does not fight with them, and says so.
        api = ManagementClient(router)
        await api.ask("POST", "/v1/rules", content=_document(isp, 5))
        await net.until(lambda: known_of(place).state is RulesState.DIFFERENT)
        assert await crosses(b"x") == b"x"
        file.write_bytes(_document(isp, 6, visit))
        assert (await domain.rule("add", str(file), "--wait", "30"))["at"] == {"installed": 1}
        assert await crosses(b"x") == b"x<s>"

        key = str(tmp_path / "isp.key")
        gone = await domain.rule("withdraw", added["id"], "--rules-key", key, "--wait", "30")
        assert (gone["state"], gone["at"]) == ("withdrawn", {"installed": 1})
        assert await crosses(b"x") == b"x"
        assert await domain.rule("list") == []
        text = httpx.get(f"{served.daemon.watch_url}/metrics").text
        assert 'packetcloud_domain_rules{state="installed"} 1.0' in text
        await _of(linked.kill())
        await net.close()

    with Served(tmp_path / "domain", CHANNEL) as served:
        run(test)


def known_of(place: Place) -> Any:
    """Return the one set that the cloudlet keeps."""
    (known,) = place.controller.core.saved.rule_sets.values()
    return known


def _register_own(served: Served, service: Identity) -> None:
    with DomainClient(served.daemon.url, served.identity) as noc:
        register(noc, service, "noc", "s")
