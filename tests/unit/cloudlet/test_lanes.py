"""The folder of the router's door: which one is believed, and who hears of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.cloudlet.lanes import RouterLanes, check_folder
from packetcloud.cloudlet.router_client import RouterClient

GUID = "0123456789abcdef" + "00" * 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a router of this user makes it."""
    made = tmp_path / "packetcloud-0" / "lanes" / GUID[:16]
    for one in (made.parent.parent, made.parent):
        one.mkdir(mode=0o700)
    made.mkdir(mode=0o755)
    return made


def _why_not(folder: object, guid: str = GUID) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check_folder(folder, guid)
    return str(caught.value)


def test_a_folder_that_the_router_made_is_believed(folder: Path) -> None:
    check_folder(str(folder), GUID)


@pytest.mark.parametrize(
    "said", [7, "", "/", "/etc", "lanes", "/run/../packetcloud-0/lanes/" + "0" * 16]
)
def test_what_is_no_folder_of_a_router_is_not_believed(said: object) -> None:
    """Whatever a router says, nothing else of this machine is shown to VIs."""
    assert "is no folder of a router" in _why_not(said)


def test_another_routers_folder_is_not_believed(folder: Path) -> None:
    assert "another router's" in _why_not(str(folder), "ff" * 20)


def test_a_folder_of_another_machine_is_not_believed(folder: Path) -> None:
    folder.rmdir()
    assert "No such file" in _why_not(str(folder))


def _make_link(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to("/etc")


def _make_link_above(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("others"))
    folder.parent.symlink_to("others")


def _make_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def _open_it(folder: Path) -> None:
    folder.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_make_link, "a link is in its path"),
        (_make_link_above, "a link is in its path"),
        (_make_file, "is no folder"),
        (_open_it, "may be changed by others"),
    ],
)
def test_what_others_could_put_there_is_not_believed(
    folder: Path, change: Callable[[Path], None], said: str
) -> None:
    change(folder)
    assert said in _why_not(str(folder))


def test_a_folder_of_another_user_is_not_believed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(folder.parent, 12345, -1)
    else:
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert "is neither root's nor this user's" in _why_not(str(folder))


def test_whoever_makes_vis_hears_of_another_folder_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A router that is silent, shares no more, or says what is not believed changes nothing."""
    other = folder.with_name("f" * 16)
    other.mkdir()
    answers: list[Any] = [
        httpx.ConnectError("away"),
        {"guid": GUID, "lanes": None},
        {"guid": GUID},
        {"guid": GUID, "lanes": "/etc"},
        {"guid": GUID, "lanes": "/etc"},
        {"guid": GUID, "lanes": str(folder)},
        {"guid": GUID, "lanes": str(folder)},
        httpx.ConnectError("away"),
        [],
        {"guid": GUID, "lanes": None},
        {"guid": GUID, "lanes": str(folder)},
        {"guid": "f" * 40, "lanes": str(other)},
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        said = answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return httpx.Response(200, json=said)

    shared: list[str] = []

    async def body() -> None:
        router = RouterClient("http://router", "c1", transport=httpx.MockTransport(answer))
        lanes = RouterLanes(router, shared.append)
        while answers:
            await lanes.ask()
        await router.close()

    asyncio.run(body())
    assert shared == [str(folder), str(other)]
    assert [one.levelname for one in caplog.records].count("WARNING") == 1
