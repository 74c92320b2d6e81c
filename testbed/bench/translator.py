"""`packetcloud bench translator`: curl through proxy, router and translator, against curl alone.

A - R - B, every NIC at the same rate. On A curl and our proxy, on R the router and the translator,
on B nginx. Direct, R forwards packets; the peer is a plain SOCKS relay on R.
Source: docs/reference/bench.md, "translator".
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Progress, Timing, ratio
from packetcloud.testbed.bench.scene import LOOPBACK_ADDRESS, Scene, path_scene
from packetcloud.testbed.errors import ChildError, MissingToolError, TestbedError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers.socks import start_microsocks
from packetcloud.testbed.peers.tools import find_tool
from packetcloud.testbed.peers.web_server import start_web_server
from packetcloud.testbed.processes import Child, Children
from packetcloud.testbed.translated import Translated, TranslatedPlan, start_translated

DIRECT, OURS, PEER = "direct", "ours", "microsocks"
QUEUE_BYTES = 1 << 20
"""Of each NIC: 8 ms at 1 Gbit/s."""
BURST_BYTES = 32 << 10
"""Leaves at once, 0.26 ms at 1 Gbit/s: with a timer for each packet the machine was the limit."""
CURL_LIMIT_S = 300
LOOK_S = 0.1
_WRITTEN = "%{http_code} %{size_download} %{time_total}"


@dataclass(frozen=True, slots=True)
class TranslatorPlan:
    """What is measured."""

    rates_bps: tuple[int, ...] = (1_000_000_000, 0)
    """Of every NIC; 0: as fast as the machine. The first is the one that counts."""
    download_bytes: int = 256 << 20
    files_count: int = 10_000
    largest_file_bytes: int = 1 << 20
    connections_count: int = 200
    connection_bytes: int = 1 << 20
    seed: int = 1


QUICK = TranslatorPlan(
    rates_bps=(1_000_000_000,), download_bytes=16 << 20, files_count=100, connections_count=20
)
"""To see that it works."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One scene with everything running in it."""

    scene: Scene
    children: Children
    folder: Path
    there: Translated
    web: Child
    url: str
    peer: Child | None
    peer_address: tuple[str, int]

    def proxy_words(self, way: str) -> list[str]:
        if way == DIRECT:
            return ["--noproxy", "*"]
        host, port = self.there.proxy_address if way == OURS else self.peer_address
        return ["-x", f"socks5h://{host}:{port}"]

    def meter(self) -> Meter:
        ours = [self.there.router.child, self.there.translator, self.there.proxy]
        return Meter([child for child in (*ours, self.web, self.peer) if child is not None])

    def start_curl(self, *words: object) -> subprocess.Popen[str]:
        command = [find_tool("curl"), "-sS", "-m", str(CURL_LIMIT_S), *map(str, words)]

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

        return self.scene.run_in("a", start)

    def curl(self, *words: object) -> str:
        """Run curl on A, and return what it printed.

        Raises:
            ChildError: it failed.
        """
        with self.start_curl(*words) as running:
            printed, said = running.communicate()
        if running.returncode != 0:
            raise ChildError(f"curl ended with {running.returncode}: {said.strip()[-300:]}")
        return printed


def bench_translator(plan: TranslatorPlan, timing: Timing, progress: Progress) -> Document:
    """Measure goodput at each rate; at the first also many connections and many files."""
    from packetcloud.testbed.namespaces import can_make_namespaces

    has_namespaces = can_make_namespaces()
    tools = ("curl", "nginx")
    document = begin_document("translator", timing, not has_namespaces, tools)
    document |= {"plan": _plan_document(plan), "rates": {}, "failures": []}
    rates = plan.rates_bps if has_namespaces else (0,)
    with Children() as files:
        www = files.directory / "www"
        sums = _make_files(www, plan)
        for number, rate_bps in enumerate(rates):
            name = f"{rate_bps / 1e6:g} Mbit/s" if rate_bps else "unlimited"
            try:
                with _place(rate_bps, www) as place:
                    found = document["rates"][name] = _goodput(place, plan, timing, progress, name)
                    if number == 0:
                        document["translator_share_of_direct"] = found["share_of_direct"]
                        document |= _many_connections(place, plan, progress)
                        document |= _many_files(place, plan, sums, progress)
                        document["failures"] += translator_failures(document, plan)
            except (ChildError, TestbedError) as error:
                document["failures"].append(f"{name}: {error}")
    for key in ("translator_share_of_direct", "connections", "files_wrong"):
        document.setdefault(key, None)
    return document


def translator_failures(document: Document, plan: TranslatorPlan) -> list[str]:
    """Return what is wrong with files and connections of a benchmark, in sentences."""
    failures = []
    if document["files_wrong"] or document["files_failure"]:
        said = f": {document['files_failure']}" if document["files_failure"] else ""
        wrong = f"{document['files_wrong']} of {document['files']} files"
        failures.append(f"{wrong} are missing or altered{said}")
    # How many are seen at once depends on the machine where they are few and soon over.
    is_small = plan.connections_count < TranslatorPlan().connections_count
    served = document["connections_whole" if is_small else "connections"]
    if served < plan.connections_count:
        failures.append(
            f"of {plan.connections_count} connections at once {document['connections_seen']} were "
            f"seen together, and {document['connections_whole']} came whole"
        )
    return failures


@contextmanager
def _place(rate_bps: int, www: Path) -> Iterator[_Place]:
    from packetcloud.testbed.namespaces import can_make_namespaces

    mode = LinkMode.WIRE if can_make_namespaces() else None
    with path_scene(mode) as scene, Children() as children:
        if rate_bps:
            _limit(scene, rate_bps)
        server = scene.address("b", scene.centre), scene.port()
        web = start_web_server(children, scene.place("b"), server, www)
        plan = TranslatedPlan(
            {"allow": f"{server[0]}/32"},
            router=(LOOPBACK_ADDRESS if scene.is_loopback else "0.0.0.0", scene.port()),
            proxy=(LOOPBACK_ADDRESS, scene.port()),
            router_seen=scene.address(scene.centre, "a"),
            router_place=scene.place(scene.centre),
            host_place=scene.place("a"),
        )
        folder = children.directory
        there = start_translated(children, folder, plan)
        peer_address = scene.address(scene.centre, "a"), scene.port()
        peer = None
        with suppress(MissingToolError):  # said in the runs
            peer = start_microsocks(children, scene.place(scene.centre), peer_address)
        url = f"http://{server[0]}:{server[1]}"
        yield _Place(scene, children, folder, there, web, url, peer, peer_address)


def _limit(scene: Scene, rate_bps: int) -> None:
    """Give every NIC its rate: what is sent leaves by a queue of `QUEUE_BYTES`."""
    bucket = ["rate", f"{rate_bps}bit", "burst", f"{BURST_BYTES}b", "limit", f"{QUEUE_BYTES}b"]
    for role in (*scene.leaves, scene.centre):
        place = scene.place(role)
        assert place is not None, "rates need namespaces"
        for end in _devices(scene, role):
            command = [find_tool("tc"), "qdisc", "replace", "dev", end, "root", "tbf", *bucket]
            done = place.run(_run, command)
            if done.returncode != 0:
                raise TestbedError(f"{' '.join(command)}: {done.stderr.strip()}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def _devices(scene: Scene, role: str) -> list[str]:
    place = scene.place(role)
    assert place is not None, "rates need namespaces"
    listed = place.run(_run, [find_tool("ip"), "-o", "link", "show", "type", "veth"]).stdout
    return re.findall(r"^\d+: ([^:@]+)", listed, re.MULTILINE)


def _goodput(
    place: _Place, plan: TranslatorPlan, timing: Timing, progress: Progress, name: str
) -> Document:
    """One large file at a time, by each way in turn."""
    ways = [DIRECT, OURS, *([PEER] if place.peer is not None else [])]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu_s: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for number in range(timing.repeats + 1):
        for way in ways:
            progress(f"{name}: {way}, {number} of {timing.repeats}")
            with place.meter() as meter:
                words = ["-o", "/dev/null", "-w", _WRITTEN, *place.proxy_words(way)]
                code, size, took = place.curl(*words, f"{place.url}/large").split()
            if code != "200" or int(size) != plan.download_bytes:
                raise ChildError(f"{way}: status {code}, {size} bytes")
            if number:  # the first warms up
                seconds[way].append(float(took))
                for child, used in meter.cpu_seconds(0.0, meter.end_s).items():
                    cpu_s[way].setdefault(child, []).append(used)
    mbps = {
        way: [plan.download_bytes * 8e-6 / one for one in times] for way, times in seconds.items()
    }
    medians = {way: median(values) for way, values in mbps.items()}
    peer_gone = None if PEER in ways else "microsocks is not installed"
    return {
        "mbps": medians,
        "share_of_direct": ratio(medians[OURS], medians[DIRECT]),
        "share_of_peer": ratio(medians[OURS], medians.get(PEER)),
        "samples_mbps": mbps,
        "cpu_s": {
            way: {child: median(used) for child, used in sums.items()}
            for way, sums in cpu_s.items()
        },
        "runs": {
            way: {"missing": peer_gone if way == PEER else None} for way in (DIRECT, OURS, PEER)
        },
    }


def _many_connections(place: _Place, plan: TranslatorPlan, progress: Progress) -> Document:
    """Fetch by many connections at once, so slowly that all are there together."""
    count = plan.connections_count
    progress(f"{count} connections")
    target = place.folder / "connections"
    urls = [(f"{place.url}/medium?{number}", target / str(number)) for number in range(count)]
    config = _curl_config(urls, target)
    rate = ["--limit-rate", str(plan.connection_bytes // 4)]
    words = [*place.proxy_words(OURS), "-Z", "--parallel-max", count, "--parallel-immediate"]
    most = 0
    with place.start_curl(*words, *rate, "-K", config) as running:
        while running.poll() is None:
            most = max(most, _connections_now(place))
            try:
                running.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                continue
    whole = sum(path.exists() and path.stat().st_size == plan.connection_bytes for _, path in urls)
    return {"connections": min(whole, most), "connections_whole": whole, "connections_seen": most}


def _connections_now(place: _Place) -> int:
    host_port = place.url.removeprefix("http://")
    host, _, port = host_port.partition(":")

    def ask() -> str:
        import http.client

        connection = http.client.HTTPConnection(host, int(port), timeout=5.0)
        try:
            connection.request("GET", "/connections")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    found = re.search(r"Active connections: (\d+)", place.scene.run_in("b", ask))
    return int(found[1]) - 1 if found else 0  # one is ours, to ask


def _many_files(
    place: _Place, plan: TranslatorPlan, sums: dict[str, str], progress: Progress
) -> Document:
    """Fetch every file, and compare each."""
    progress(f"{plan.files_count} files")
    target = place.folder / "fetched"
    config = _curl_config([(f"{place.url}/{name}", target / name) for name in sums], target)
    words = [*place.proxy_words(OURS), "-Z", "--parallel-max", 32, "-K", config]
    failure = ""
    try:
        place.curl(*words)
    except ChildError as error:
        failure = str(error)
    wrong = [name for name, wanted in sums.items() if _sha256(target / name) != wanted]
    return {
        "files": len(sums),
        "files_wrong": len(wrong),
        "files_bytes": sum(path.stat().st_size for path in target.iterdir()),
        "files_failure": failure,
    }


def _curl_config(fetches: Sequence[tuple[str, Path]], folder: Path) -> Path:
    folder.mkdir()
    config = folder.with_suffix(".curl")
    config.write_text("".join(f'url = "{url}"\noutput = "{path}"\n' for url, path in fetches))
    return config


def _make_files(www: Path, plan: TranslatorPlan) -> dict[str, str]:
    """Write what nginx serves; return the sums of the many files by name."""
    www.mkdir()
    random = Random(plan.seed)
    block = random.randbytes(1 << 20)
    with (www / "large").open("wb") as large:
        for _ in range(plan.download_bytes >> 20):
            large.write(block)
    (www / "medium").write_bytes(random.randbytes(plan.connection_bytes))
    sums = {}
    for number in range(plan.files_count):
        # Most are small, a few large, some empty; as in a mirror of a web site.
        size = int(plan.largest_file_bytes ** random.random()) - 1
        data = random.randbytes(size)
        name = f"f{number:05d}"
        (www / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    return sums


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _plan_document(plan: TranslatorPlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in TranslatorPlan.__slots__}
