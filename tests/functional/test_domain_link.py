"""A cloudlet and a domain controller over a real WebSocket: a reservation's life, and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Close

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.core import metering
from packetcloud.cloudlet.daemon import clock_ms
from packetcloud.cloudlet.domain_link import link as link_module
from packetcloud.cloudlet.domain_link.link import DomainLink
from packetcloud.cloudlet.domain_link.settings import DomainSettings
from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.signatures import sign_request
from packetcloud.domain_controller.channel.frames import (
    MAX_FRAME_BYTES,
    WelcomeFrame,
    decode_down,
)
from packetcloud.domain_controller.channel.session import MAX_DROPPED_COUNT
from packetcloud.domain_controller.client import DomainClient
from packetcloud.domain_controller.sid_proof import prove_sid
from tests.functional.cloudlet_place import Place, fast, placed
from tests.functional.test_domain_daemon import Served

__all__ = ["fast"]
CHANNEL = "[channel]\nreport_every_ms = 100\n"
HOUR_MS = 3_600_000


class Linked:
    """A cloudlet whose controller has a link to a domain controller in another thread."""

    def __init__(self, place: Place, served: Served, key: Path) -> None:
        self.place = place
        text = (place.folder / "c1.toml").read_text()
        text += f'[domain]\nurl = ["{served.daemon.url}"]\nkey = "{key}"\nname = "edge-1"\n'
        (place.folder / "c1.toml").write_text(text)
        place.config = CloudletConfig.load(place.folder / "c1.toml")

    async def start(self) -> None:
        await self.place.start()
        domain = self.place.config.domain
        assert domain is not None
        self.link = DomainLink(self.place.controller, domain, clock_ms, os.urandom)
        self._task = asyncio.create_task(self.link.run())

    async def kill(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.place.kill()

    def running(self) -> int:
        """Return how many VIs serve for reservations."""
        core = self.place.controller.core
        return sum(len(core.reservations.running(name)) for name in core.saved.reserved)


def _run(tmp_path: Path, body: Callable[[Linked, Served, Path], object]) -> None:
    """Run a test's body with both sides; the cloudlet's controller has not begun."""

    async def whole(served: Served) -> None:
        folder = tmp_path / "cloudlet"
        folder.mkdir()
        async with placed(folder) as place:
            linked = Linked(place, served, tmp_path / "edge-1.key")
            await linked.start()
            try:
                await body(linked, served, tmp_path)  # type: ignore[misc]
            finally:
                linked._task.cancel()

    (tmp_path / "domain").mkdir()
    create_identity_file(tmp_path / "edge-1.key")
    with Served(tmp_path / "domain", CHANNEL) as served:
        asyncio.run(whole(served))


def _prepare(served: Served, folder: Path, service: Identity) -> Identity:
    """Have the operator admit the cloudlet, and a tenant who has a service; return its key."""
    tenant = create_identity_file(folder / "tenant.key")
    cloudlet = (folder / "edge-1.key").read_bytes()
    assert cloudlet
    with DomainClient(served.daemon.url, served.identity) as noc:
        size = {"milli_cpus": 500, "memory_bytes": 256 << 20, "disk_bytes": 1 << 30}
        noc.change(say.ViTypeInfo, "PUT", "/v1/vi-types/small", size)
        noc.make(say.TenantInfo, "/v1/tenants", {"name": "tenant"})
        body = {"public_key": tenant.public_key.hex()}
        noc.make(say.KeyInfo, "/v1/tenants/tenant/keys", body)
    with DomainClient(served.daemon.url, tenant) as client:
        register(client, service, "tenant", "plain")
    return tenant


def register(client: DomainClient, service: Identity, owner: str, name: str) -> None:
    """Register a service with the proof of its key."""
    proof = prove_sid(service, "example", owner, clock_ms() + HOUR_MS)
    body = {
        "name": name,
        "sid": service.sid.hex,
        "image": "probe",
        "proof": {
            "public_key": proof.public_key.hex(),
            "until_ms": proof.until_ms,
            "signature": proof.signature.hex(),
        },
    }
    client.make(say.ServiceInfo, "/v1/services", body)


def admit(served: Served, identity: Identity, name: str = "edge-1") -> None:
    with DomainClient(served.daemon.url, served.identity) as noc:
        body = {"name": name, "region": "north", "public_key": identity.public_key.hex()}
        noc.make(say.CloudletInfo, "/v1/cloudlets", body)


def _reserve(served: Served, tenant: Identity) -> str:
    now_ms = clock_ms()
    slot = {"begin_ms": now_ms + 500, "end_ms": now_ms + HOUR_MS}
    body = {"vi_type": "small", "count": 2, "slot": slot, "service": "plain"}
    with DomainClient(served.daemon.url, tenant) as client:
        made = client.make(say.OperationInfo, "/v1/reservations", body)
        ended = client.await_operation(made, 20)
        assert ended.state == "done", ended
        return made.subject


def _cancel(served: Served, tenant: Identity, name: str) -> None:
    with DomainClient(served.daemon.url, tenant) as client:
        client.make(say.OperationInfo, f"/v1/reservations/{name}/cancel", None)
        client.await_reservation(name, lambda one: one.state == "settled", 20)


def _used_ms(served: Served, tenant: Identity) -> int:
    with DomainClient(served.daemon.url, tenant) as client:
        page = client.get(say.UsagePage, "/v1/usage")
    assert all(one.cloudlet == "edge-1" for one in page.records)
    return sum(one.quantity for one in page.records)


@pytest.mark.usefixtures("fast")
def test_a_reservation_from_wish_to_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cloudlet says yes; its VIs run, over a restart of its controller too, and are charged."""
    monkeypatch.setattr(metering, "RECORD_MS", 500)
    monkeypatch.setattr(link_module, "METER_EVERY_S", 0.1)
    monkeypatch.setattr(link_module, "FIRST_PAUSE_S", 0.05)

    async def body(linked: Linked, served: Served, folder: Path) -> None:
        place = linked.place
        service = {one.name: one.identity for one in place.config.services}["plain"]
        domain = place.config.domain
        assert domain is not None
        await asyncio.to_thread(admit, served, domain.identity)
        tenant = await asyncio.to_thread(_prepare, served, folder, service)
        await place.until(lambda: linked.link.text == "")
        age = 'packetcloud_domain_report_age_seconds{cloudlet="edge-1"}'
        await place.until(lambda: age in httpx.get(f"{served.daemon.watch_url}/metrics").text)
        name = await asyncio.to_thread(_reserve, served, tenant)
        await place.until(lambda: linked.running() == 2)
        await linked.kill()
        await linked.start()
        await place.until(lambda: linked.running() == 2)
        await place.until(lambda: place.controller.core.saved.domain_epoch == 2)
        meters = place.controller.core.saved.meters
        await place.until(lambda: name in meters and meters[name].number >= 3)
        await place.until(lambda: not place.controller.core.saved.records)
        assert await asyncio.to_thread(_used_ms, served, tenant) > 1000
        await asyncio.to_thread(_cancel, served, tenant, name)
        await place.until(lambda: not place.controller.core.saved.reserved)
        await place.until(
            lambda: not [vi for vi in place.controller.core.saved.vis.values() if vi.reservation]
        )
        text = httpx.get(f"{served.daemon.watch_url}/metrics").text
        assert "packetcloud_domain_channels 1.0" in text
        assert "packetcloud_domain_channels_opened_total 2.0" in text
        assert 'packetcloud_domain_usage_records_total{outcome="new"}' in text

    _run(tmp_path, body)


@pytest.mark.usefixtures("fast")
def test_who_may_not_open_a_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that nobody admitted is told so; once admitted under another name, that too."""
    monkeypatch.setattr(link_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(link_module, "LONGEST_PAUSE_S", 0.05)

    async def body(linked: Linked, served: Served, folder: Path) -> None:
        await linked.place.until(lambda: "no key of this id is registered" in linked.link.text)
        domain = linked.place.config.domain
        assert domain is not None
        await asyncio.to_thread(admit, served, domain.identity, "edge-2")
        await linked.place.until(
            lambda: "it knows this key as cloudlet 'edge-2'" in linked.link.text
        )
        for method, path, status in (("GET", "/v1/channel", 401), ("GET", "/v1/other", 401)):
            url = f"{served.daemon.url}{path}"
            headers = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            }
            got = await asyncio.to_thread(httpx.request, method, url, headers=headers)
            assert got.status_code == (404 if path == "/v1/other" else status), got.text

    _run(tmp_path, body)


class _EndedLink(DomainLink):
    """Its channels are opened, and ended at once by the other side, with this code."""

    code = 0

    async def _one_channel(self) -> str:
        self._has_welcome = True
        raise ConnectionClosedError(Close(self.code, "why"), None)


@pytest.mark.parametrize(("code", "is_sent_away"), [(1008, True), (1001, False)])
def test_two_controllers_with_one_key_come_again_later_each_time(
    tmp_path: Path, code: int, is_sent_away: bool
) -> None:
    """They ended each other's channels twice a second, without end. Who is not sent away, as by a
    domain controller that stops, is back soon."""
    pauses_s: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)
        if len(pauses_s) == 10:
            raise asyncio.CancelledError

    async def body() -> str:
        identity = create_identity_file(tmp_path / "edge.key")
        settings = DomainSettings(("http://127.0.0.1:1",), "edge-1", identity)
        link = _EndedLink(
            cast(Controller, SimpleNamespace()), settings, clock_ms, os.urandom, sleep
        )
        link.code = code
        with contextlib.suppress(asyncio.CancelledError):
            await link._keep_open()
        return link.text

    assert asyncio.run(body()) == "it ended the channel: why"
    assert (pauses_s[-1] >= link_module.LONGEST_PAUSE_S / 2) == is_sent_away
    assert pauses_s[0] <= link_module.FIRST_PAUSE_S


class _Raw:
    """Opens channels by hand, and sends over them what no cloudlet would."""

    def __init__(self, served: Served) -> None:
        self.url = served.daemon.url
        self.nonces = itertools.count()

    def headers(self, identity: Identity, query: str = "?epoch=0") -> list[tuple[str, str]]:
        request = httpx.Request("GET", f"{self.url}/v1/channel{query}")
        nonce = f"nonce-of-a-test-{next(self.nonces):08}"
        sign_request(request, b"", identity, nonce, clock_ms() / 1000)
        return [(name, value) for name, value in request.headers.items() if name != "host"]

    def open(self, headers: list[tuple[str, str]], query: str = "?epoch=0") -> connect:
        return connect(
            f"ws{self.url.removeprefix('http')}/v1/channel{query}",
            additional_headers=headers,
            subprotocols=["packetcloud-channel-1"],  # type: ignore[list-item]
            compression=None,
        )

    async def refused(
        self, headers: list[tuple[str, str]], query: str = "?epoch=0"
    ) -> tuple[int, str]:
        """Return how an attempt is refused: status, and the word for the problem."""
        with pytest.raises(InvalidStatus) as found:
            async with self.open(headers, query):
                pass
        body = json.loads(found.value.response.body or b"")
        return found.value.response.status_code, body["type"].rpartition(":")[2]


def test_bad_input_costs_its_sender_alone(tmp_path: Path) -> None:
    """What is refused at the door, and what is dropped behind it; other channels go on."""
    edges = [create_identity_file(tmp_path / f"edge-{number}.key") for number in (1, 2)]

    async def body(served: Served) -> None:
        raw = _Raw(served)
        for number, edge in enumerate(edges, 1):
            admit(served, edge, f"edge-{number}")
        used = raw.headers(edges[0])
        async with raw.open(used) as bad, raw.open(raw.headers(edges[1])) as good:
            assert decode_down(await bad.recv()).kind == "welcome"
            assert decode_down(await good.recv()).kind == "welcome"
            assert await raw.refused(used) == (401, "signature-replayed")
            assert await raw.refused(raw.headers(served.identity)) == (403, "forbidden")
            more = "?epoch=0&more=1"
            assert await raw.refused(raw.headers(edges[0], more), more) == (400, "invalid")
            huge = f"?epoch={(1 << 53) - 1}"
            assert await raw.refused(raw.headers(edges[0], huge), huge) == (422, "not-possible")
            for number in range(MAX_DROPPED_COUNT + 1):
                await bad.send((b"\xff", "[", '{"kind": "report"}')[number % 3])
            with pytest.raises(ConnectionClosed):
                while True:
                    await bad.recv()
            await good.send('{"kind": "report", "sequence": 1, "nodes": []}')
            text = ""
            while 'frames_received_total{kind="report"} 1.0' not in text:
                text = (
                    await asyncio.to_thread(httpx.get, f"{served.daemon.watch_url}/metrics")
                ).text
            assert 'frames_dropped_total{reason="json"}' in text
            assert "packetcloud_domain_channels 1.0" in text
            async with raw.open(raw.headers(edges[1], "?epoch=41"), "?epoch=41") as second:
                welcome = decode_down(await second.recv())
                assert isinstance(welcome, WelcomeFrame)
                assert welcome.epoch == 42
                with pytest.raises(ConnectionClosed, match="another channel"):
                    await good.recv()
                await second.send("x" * (MAX_FRAME_BYTES + 1))
                with pytest.raises(ConnectionClosed):
                    await second.recv()

    (tmp_path / "domain").mkdir()
    with Served(tmp_path / "domain", CHANNEL) as served:
        asyncio.run(body(served))
