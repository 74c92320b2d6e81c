"""The controller as a whole: ports, folder, reload, its end, and the end of a cloudlet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.containers import NodeAdapter
from packetcloud.cloudlet.controller import Controller
from packetcloud.cloudlet.daemon import CloudletDaemon
from packetcloud.cloudlet.errors import CloudletConfigError, CloudletError
from packetcloud.cloudlet.image_files import find_images
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.cloudlet.openapi import OPENAPI_FILE, openapi_text
from packetcloud.cloudlet.policy import NodeSite
from packetcloud.cloudlet.removal import remove_vis
from packetcloud.cloudlet.service_files import ServiceFiles
from packetcloud.cloudlet.store import Store
from packetcloud.services.secure_communication.keys import create_key_file, rotate_key_file
from packetcloud.testbed.fake_lxd import FakeNode
from packetcloud.testbed.peers.tools import free_port
from tests.functional.cloudlet_place import CONFIG, Place, fast, run

__all__ = ["fast"]


class _Set:
    """A daemon on loopback addresses, with a node that answers."""

    def __init__(self, folder: Path) -> None:
        text = CONFIG.split("[[service]]")[0].replace(
            'state = "state"',
            'state = "state"\n'
            f'api_listen = "127.0.0.1:{free_port()}"\ncontrol_port = {free_port()}',
        )
        text += '[network]\ncontrol_ipv4 = "127.64.0.0/20"\n[router]\nurl = "http://127.0.0.1:9"\n'
        self.file = folder / "c1.toml"
        self.file.write_text(text)
        self.nodes = {name: FakeNode(name) for name in ("n1", "n2")}

    def daemon(self) -> CloudletDaemon:
        return CloudletDaemon(CloudletConfig.load(self.file), find_images, self.open)

    async def open(
        self, config: CloudletConfig
    ) -> tuple[dict[str, NodeAdapter], dict[str, NodeSite]]:
        adapters: dict[str, NodeAdapter] = dict(self.nodes)
        return adapters, {node.name: node.site for node in self.nodes.values()}


async def _while_it_runs(
    daemon: CloudletDaemon, body: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> None:
    started = asyncio.Event()
    task = asyncio.create_task(daemon.run(lambda _: started.set()))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        await task
    url = "http://{}:{}".format(*daemon.api_address)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        await body(client)
    daemon.stop()
    await task


def test_it_serves_and_ends_and_serves_again(tmp_path: Path) -> None:
    """An end in good order gives back ports, folder and nodes."""
    place = _Set(tmp_path)

    async def body(client: httpx.AsyncClient) -> None:
        status = (await client.get("/v1/status")).json()
        assert status["name"] == "c1"
        assert status["control_listen"].startswith("127.64.0.1:")

    for _ in range(2):
        asyncio.run(_while_it_runs(place.daemon(), body))
        place.nodes = {name: FakeNode(name) for name in place.nodes}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_api_that_others_may_reach_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    place = _Set(tmp_path)
    text = place.file.read_text()
    place.file.write_text(text.replace('api_listen = "127.0.0.1', f'api_listen = "{host}'))

    async def body(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200

    asyncio.run(_while_it_runs(place.daemon(), body))
    told = f"[cloudlet] api_listen is {host}, and asks for no proof" in caplog.text
    assert told == (host == "0.0.0.0")


def test_a_second_controller_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    place = _Set(tmp_path)

    async def body(client: httpx.AsyncClient) -> None:
        with pytest.raises(CloudletConfigError, match="another controller uses it"):
            await place.daemon().run(lambda _: None)
        with pytest.raises(CloudletConfigError, match="another controller uses it"):
            await remove_vis(CloudletConfig.load(place.file), print, place.open)
        assert (await client.get("/healthz")).status_code == 200

    asyncio.run(_while_it_runs(place.daemon(), body))


def test_a_port_that_is_taken_is_named_by_its_key(tmp_path: Path) -> None:
    place = _Set(tmp_path)

    async def body(client: httpx.AsyncClient) -> None:
        text = place.file.read_text()
        for old, words in (
            ('state = "state"', r"control port 127\.64\.0\.1:.*control_port"),
            ('control_ipv4 = "127.64', r"\[cloudlet\] api_listen = '127\.0\.0\.1:"),
        ):
            other = text.replace('state = "state"', 'state = "other"')
            if old.startswith("control"):
                other = other.replace(old, 'control_ipv4 = "127.65')
            place.file.write_text(other)
            with pytest.raises(CloudletConfigError, match=words):
                await place.daemon().run(lambda _: None)

    asyncio.run(_while_it_runs(place.daemon(), body))


def test_taking_over_needs_the_router(tmp_path: Path) -> None:
    place = _Set(tmp_path)
    config = CloudletConfig.load(place.file)
    daemon = CloudletDaemon(config, find_images, place.open, is_taking_over=True)
    with pytest.raises(CloudletError, match=r"cannot take over: the router at .* does not answer"):
        asyncio.run(daemon.run(lambda _: None))


@pytest.mark.usefixtures("fast")
def test_a_cloudlet_can_be_taken_down(tmp_path: Path) -> None:
    """No container, an empty table; a later controller begins with an epoch of its own."""

    async def body(place: Place) -> None:
        await place.kill()

        async def open_all(
            config: CloudletConfig,
        ) -> tuple[dict[str, NodeAdapter], dict[str, NodeSite]]:
            adapters: dict[str, NodeAdapter] = dict(place.nodes)
            return adapters, {}

        told: list[str] = []
        router = place.router.client()
        text = (tmp_path / "c1.toml").read_text()
        place.declare(text.replace('name = "c1"', 'name = "c2"'))
        words = r"name = 'c2': .* has VIs of 'c1'.*packetcloud cloudlet down"
        with pytest.raises(CloudletConfigError, match=words):
            await remove_vis(place.config, told.append, open_all, router)
        with pytest.raises(CloudletConfigError, match=words):
            await place.start(name="c2")
        await place.kill()
        assert sum(len(node.found) for node in place.nodes.values()) == 3
        place.declare(text)
        for node in place.nodes.values():
            node._is_closed = False
        router = place.router.client()
        assert await remove_vis(place.config, told.append, open_all, router) == 3
        assert all(node.found == {} for node in place.nodes.values())
        assert place.router.table.services == {}
        assert len(told) == 3
        for node in place.nodes.values():
            node._is_closed = False
        place.processed.clear()
        await place.start()
        await place.settle()
        assert place.controller.core.table.epoch == 3
        assert min(vi.number for vi in place.vis()) > 3

    run(tmp_path, body)


def test_the_description_of_the_api_is_the_apis() -> None:
    """openapi.json in the tree is what the code says: python -m packetcloud.cloudlet.openapi."""
    assert OPENAPI_FILE.read_text() == openapi_text()


def test_a_config_read_again_takes_effect(tmp_path: Path) -> None:
    """SIGHUP: services and types; a mistake is logged and changes nothing."""
    place = _Set(tmp_path)
    daemon = place.daemon()
    reload = None
    original = daemon._await_signals

    def note(*given: object) -> None:
        nonlocal reload
        reload = given
        original(*given)  # type: ignore[arg-type]

    daemon._await_signals = note  # type: ignore[method-assign]

    async def body(client: httpx.AsyncClient) -> None:
        assert reload is not None
        good = place.file.read_text()
        place.file.write_text("no toml")
        daemon._reload(*reload)
        assert (await client.get("/v1/services")).json() == []
        create_identity_file(tmp_path / "w.key")
        place.file.write_text(
            good + '[[service]]\nmanifest = "wan-optimizer"\nkey = "w.key"\n'
            'replicas_min = 0\nsettings = { direction = "compress" }\n'
        )
        daemon._reload(*reload)
        (service,) = (await client.get("/v1/services")).json()
        assert (service["name"], service["wanted"]) == ("wan-optimizer", 0)

    asyncio.run(_while_it_runs(daemon, body))
    Store(tmp_path / "state").close()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "c1"', 'name = "c2"', r"\[cloudlet\] name changed"),
        ("[router]", 'data_ipv4 = "10.9.0.0/20"\n[router]', r"\[network\] changed"),
        ('"n1.socket"', '"n3.socket"', r"\[node\] changed"),
    ],
)
def test_a_reload_changes_nothing_that_vis_are_made_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: str, new: str, words: str
) -> None:
    """By another name no container would be known any more, by other addresses all be put right."""
    place = _Set(tmp_path)
    create_identity_file(tmp_path / "w.key")
    text = place.file.read_text() + (
        '[[service]]\nmanifest = "wan-optimizer"\nkey = "w.key"\n'
        'image = ["image"]\nsettings = { direction = "compress" }\n'
    )
    (tmp_path / "image").write_bytes(b"an image")
    place.file.write_text(text)
    daemon = place.daemon()
    given: list[tuple[Controller, ConfiguredLaunches]] = []
    daemon._await_signals = lambda *them: given.append(them)  # type: ignore[assignment, method-assign]

    async def body(client: httpx.AsyncClient) -> None:
        ((controller, launches),) = given
        (vi,) = controller.core.saved.vis.values()
        limits = launches.limits(vi.vi_type)
        before = launches.wish(vi, limits)
        place.file.write_text(text.replace(old, new, 1))
        daemon._reload(controller, launches)
        assert launches.wish(vi, limits) == before
        assert controller.core.settings.name == "c1"
        assert re.search(rf"config not read again, the old one stays: .*{words}", caplog.text)

    asyncio.run(_while_it_runs(daemon, body))


def test_a_file_that_changed_is_launched_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGHUP: a launch after that has the new content, and nobody has to start a VI again."""
    place = _Set(tmp_path)
    create_key_file(tmp_path / "keys.json")
    create_identity_file(tmp_path / "s.key")
    text = place.file.read_text() + (
        '[[service]]\nmanifest = "secure-communication"\nkey = "s.key"\n'
        'settings = { direction = "encrypt" }\nfiles = { key_file = "keys.json" }\n'
    )
    place.file.write_text(text)
    daemon = place.daemon()
    given: list[tuple[Controller, ConfiguredLaunches]] = []
    original = daemon._await_signals

    def note(controller: Controller, launches: ConfiguredLaunches) -> None:
        given.append((controller, launches))
        original(controller, launches)

    daemon._await_signals = note  # type: ignore[method-assign]

    async def body(client: httpx.AsyncClient) -> None:
        ((controller, launches),) = given
        (vi,) = controller.core.saved.vis.values()
        before = launches.message(vi)["files"]
        daemon._reload(controller, launches)
        assert "changed" not in caplog.text
        rotate_key_file(tmp_path / "keys.json")
        daemon._reload(controller, launches)
        assert "vi restart" not in caplog.text
        after = launches.message(vi)["files"]
        assert after != before
        (tmp_path / "keys.json").unlink()
        daemon._reload(controller, launches)
        assert "files: key_file = " in caplog.text and "No such file" in caplog.text
        assert launches.message(vi)["files"] == after

    asyncio.run(_while_it_runs(daemon, body))


def test_it_ends_with_whoever_looks_at_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault there would leave VIs with keys that were replaced, and nobody would know."""

    async def fails(self: ServiceFiles) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(ServiceFiles, "watch", fails)
    with pytest.raises(CloudletError, match=r"a fault of the files of services: .*boom"):
        asyncio.run(asyncio.wait_for(_Set(tmp_path).daemon().run(lambda _: None), 20))
