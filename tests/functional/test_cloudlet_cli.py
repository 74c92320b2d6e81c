"""`packetcloud cloudlet status`, `vi` and `node` against a controller that runs, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from packetcloud.cli.main import main
from packetcloud.cloudlet.api import make_app
from packetcloud.cloudlet.containers import ContainerState
from packetcloud.cloudlet.daemon import serving
from packetcloud.cloudlet.metrics import CloudletCollector
from packetcloud.cloudlet.network import network_protections
from tests.functional.cloudlet_place import Place, fast, placed

__all__ = ["fast"]
pytestmark = pytest.mark.usefixtures("fast")


class Served:
    """A cloudlet whose controller serves its API on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._failure: BaseException | None = None
        self.place: Place
        self.url = ""

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._is_ready.wait(60)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def do(self, make: Callable[[Place], Coroutine[Any, Any, Any]]) -> Any:
        """Run something on the cloudlet's loop."""
        return asyncio.run_coroutine_threadsafe(make(self.place), self._loop).result(60)

    async def _serve(self) -> None:
        try:
            async with placed(self._folder) as self.place:
                await self.place.start()
                await self.place.settle()
                registry = CollectorRegistry()
                registry.register(CloudletCollector(self.place.controller))
                app = make_app(self.place.controller, self.place.launches, registry, "here:1")
                async with serving(app, "127.0.0.1", 0) as (host, port):
                    self.url = f"http://{host}:{port}"
                    self._is_ready.set()
                    await self._ended.wait()
        except BaseException as error:  # raised again in the test, which waits for this thread
            self._failure = error
            self._is_ready.set()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as one:
        yield one


Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command: exit code, JSON on standard output, errors."""

    def ask(*words: object) -> tuple[int, Any, str]:
        code = main(["--format", "json", *map(str, words), "--url", served.url])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return ask


def test_what_there_is(served: Served, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status, services, nodes and VIs as JSON and as tables."""
    code, document, _ = run("cloudlet", "status")
    assert code == 0
    assert (document["status"]["name"], document["status"]["vis"]) == ("c1", 3)
    assert [one["running"] for one in document["services"]] == [2, 1]
    code, vis, _ = run("vi", "list", "--service", "counts")
    assert (code, [one["state"] for one in vis]) == (0, ["running", "running"])
    code, nodes, _ = run("node", "list")
    assert (code, [one["name"] for one in nodes]) == (0, ["n1", "n2"])
    code, shown, _ = run("vi", "show", vis[0]["number"])
    assert (code, shown["status"]) == (0, {"attachment": "attached"})
    for words in (
        ["cloudlet", "status"],
        ["vi", "list"],
        ["vi", "show", "1"],
        ["node", "list"],
        ["node", "list", "--protections"],
    ):
        assert main([*words, "--url", served.url]) == 0
        assert "n1" in (out := capsys.readouterr().out) or "Service" in out or "n2" in out
    assert main(["vi", "logs", "1", "--url", served.url]) == 0
    assert capsys.readouterr().out.startswith("up ")


def test_protections_of_the_nodes(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Doctor, `node list` and the metrics say the same: what is not in force, cost and remedy."""

    async def lose_a_filter(place: Place) -> None:
        place.controller.network_protections = network_protections(["no bridge pcdata0"])

    served.do(lose_a_filter)
    assert main(["--format", "json", "doctor", "--cloudlet", served.url]) == 0
    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    for node in ("n1", "n2"):
        found = findings[f"{node}: everything"]
        assert (found["state"], found["cost"], found["remedy"]) == (
            "missing",
            "it is a fake",
            "use LXD",
        )
        assert "no bridge pcdata0" in findings[f"{node}: destinations of VIs"]["cost"]
    assert main(["--format", "json", "node", "list", "--url", served.url]) == 0
    (first, _) = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in first["protections"]] == ["everything", "destinations of VIs"]
    text = httpx.get(f"{served.url}/metrics").text
    for protection in ("everything", "destinations of VIs"):
        line = f'packetcloud_cloudlet_node_protection{{node="n1",protection="{protection}"}} 0.0'
        assert line in text


def test_the_life_of_a_vi(served: Served, run: Run) -> None:
    """Launch, resize, move, restart, drain and stop, each until it is done; each names its VI, a
    launch and a migration the new one."""
    for words, number in (
        (["vi", "launch", "counts", "--node", "n1"], 4),
        (["vi", "resize", "4", "medium"], 4),
        (["vi", "migrate", "4", "--to", "n2"], 5),
        (["vi", "restart", "3"], 3),
        (["vi", "drain", "1"], 1),
        (["vi", "stop", "2"], 2),
        (["node", "evacuate", "n1"], None),
        (["node", "evacuate", "n1", "--over"], None),
    ):
        code, end, error = run(*words)
        done = {"operation": end["operation"], "state": "done", "vi": number, "text": ""}
        assert (code, end) == (0, done), (words, error)
    _, vis, _ = run("vi", "list", "--service", "counts")
    assert [(one["number"], one["vi_type"], one["node"]) for one in vis] == [(5, "medium", "n2")]
    served.do(lambda place: place.settle())


def test_what_cannot_be_is_said(run: Run) -> None:
    """Exit code 1 and the reason; 2 where the thing itself is unknown or the words are wrong."""
    for words, text in (
        (["vi", "launch", "none"], "no service 'none'; declared: counts, plain"),
        (["vi", "launch", "plain"], "at most 1 (replicas_max)"),
        (["vi", "launch", "counts", "--type", "none"], "no VI type 'none'; types: "),
        (["vi", "resize", "1", "none"], "no VI type 'none'; types: "),
        (["vi", "migrate", "1", "--to", "none"], "no node 'none'; nodes: n1, n2"),
        (["vi", "stop", "99"], "no VI 99; there are: 1, 2, 3"),
        (["node", "evacuate", "none"], "no node 'none'"),
    ):
        for more in ([], ["--no-wait"]):
            code, end, _ = run(*words, *more)
            assert (code, end["state"]) == (1, "failed")
            assert text in end["text"]
    for words in (["vi", "show", "99"], ["vi", "logs", "99"]):
        code, _, error = run(*words)
        assert (code, error) == (2, "packetcloud: no VI 99; there are: 1, 2, 3\n")
    code, _, error = run("vi", "show", "x")
    assert code == 2 and error.count("\n") == 1


def test_what_takes_longer_goes_on(served: Served, run: Run) -> None:
    """Without waiting: code 0 at once; with a limit that is too short: code 1, and it goes on."""

    async def hold(place: Place) -> None:
        for vi in place.vis()[:2]:
            place.router.tasks[vi.instance] = 1

    async def let_go(place: Place) -> None:
        place.router.tasks.clear()
        place.router.change()
        await place.settle()

    served.do(hold)
    code, end, _ = run("vi", "migrate", "1", "--no-wait")
    assert (code, end["state"], end["vi"]) == (0, "running", 4)
    code, end, error = run("vi", "drain", "2", "--limit", "0")
    assert (code, end["state"]) == (1, "running")
    assert "not done within 0 s; it goes on" in error
    served.do(let_go)


def test_a_service_that_lacks_a_vi_shows(served: Served, run: Run) -> None:
    """Exit code 1 of `cloudlet status`, so that a script can alarm."""

    async def stop_router(place: Place) -> None:
        place.router.is_up = False
        await place.until(lambda: place.controller.core.router is None)

    served.do(stop_router)
    code, document, _ = run("cloudlet", "status")
    assert code == 1
    assert document["status"]["router"] == "silent"
    assert "nobody listens" in document["status"]["router_text"]


def test_health_and_metrics(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        assert client.get("/healthz").json() == {"status": "ok", "detail": ""}
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        assert 'packetcloud_cloudlet_vis{service="counts",state="running"} 2.0' in metrics
        assert 'packetcloud_cloudlet_node_up{node="n1"} 1.0' in metrics

        async def end_node(place: Place) -> None:
            place.nodes["n1"].go_down()
            await place.until(
                lambda: place.controller.core.inventory.nodes["n1"].silent_since is not None
            )

        served.do(end_node)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "no answer from n1")
        assert client.get("/v1/operations/77").status_code == 404
        assert client.post("/v1/vis", json={"service": "x", "more": 1}).status_code == 422


def test_a_controller_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, and what to look at."""
    for words in (["vi", "list"], ["node", "list"], ["cloudlet", "status"]):
        assert main([*words, "--url", "http://127.0.0.1:9"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("packetcloud: no controller at http://127.0.0.1:9: ")
        assert "api_listen" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        *(["vi", "list"], ["cloudlet", "list"], ["router", "status"], ["rule", "list"]),
        ["vi", "launch", "x"],
    ],
)
@pytest.mark.parametrize("option", ["--timeout=nan", "--timeout=-1", "--timeout=inf"])
def test_a_time_to_wait_is_a_number_of_seconds(
    words: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything else is said in one line, and is no fault of ours."""
    assert main([*words, option]) == 2
    error = capsys.readouterr().err
    assert error.startswith("packetcloud: Invalid value for '--timeout': ")
    assert error.count("\n") == 1


def test_a_stopped_container_is_seen(served: Served, run: Run) -> None:
    """What LXD's own tools do to a VI shows here, and is put right."""

    async def stop(place: Place) -> None:
        (vi,) = place.vis("plain")
        place.crash(place.agent(vi))
        await place.until(lambda: vi.restarts == 1)
        await place.settle()

    served.do(stop)
    _, vis, _ = run("vi", "list", "--service", "plain")
    assert [one["restarts"] for one in vis] == [1]
    with contextlib.suppress(StopIteration):
        assert next(iter(served.place.nodes["n1"].found.values())).state is ContainerState.RUNNING
