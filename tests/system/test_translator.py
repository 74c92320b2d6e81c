"""The translator with real processes, real curl and a real web server."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.peers.tools import free_port
from packetcloud.testbed.processes import Children, wait_until
from packetcloud.testbed.translated import (
    Translated,
    TranslatedPlan,
    start_translated,
    wait_for_port,
)

pytestmark = pytest.mark.needs("curl")
LOCALHOST = "127.0.0.1"
CURL_S = 60
BIG_BYTES = 8 << 20
STALLED_BYTES = 64 << 20
"""Much more than all sockets and processes on the way may hold."""
CLOSE = ("Connection", "close")
"""A page whose length is not said ends with its connection."""


class Handler(SimpleHTTPRequestHandler):
    """Serves files; says the hash of what is posted; sends a page without end, slowly or fast."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        digest = hashlib.sha256()
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            digest.update(part)
            left -= len(part)
        self._answer(digest.hexdigest().encode())

    def do_GET(self) -> None:
        if self.path == "/headers":
            self._answer("\n".join(f"{k.lower()}: {v}" for k, v in self.headers.items()).encode())
        elif self.path in ("/endless", "/unsaid"):
            self.send_response(200)
            self.send_header(
                *(("Content-Length", str(1 << 40)) if self.path == "/endless" else CLOSE)
            )
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.close_connection = True
        else:
            super().do_GET()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Web:
    """The web server, and the hash of its large file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        big = Random(7).randbytes(BIG_BYTES)
        (folder / "big").write_bytes(big)
        (folder / "small").write_bytes(b"hello\n")
        self.big = folder / "big"
        self.big_sha256 = hashlib.sha256(big).hexdigest()
        handler = partial(Handler, directory=str(folder))
        self._server = ThreadingHTTPServer((LOCALHOST, 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://{LOCALHOST}:{self.port}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    server = Web(tmp_path_factory.mktemp("web") / "files")
    yield server
    server.close()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[Translated]:
    folder = tmp_path_factory.mktemp("translated")
    settings = {"allow": f"public 127.0.0.1/32:{web.port}"}
    with Children(folder) as children:
        yield start_translated(children, folder, TranslatedPlan(settings))


def curl(*words: object) -> subprocess.CompletedProcess[bytes]:
    """Run curl as it comes."""
    command = ["curl", "-sS", "-m", str(CURL_S), *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, timeout=CURL_S + 10)


def proxy_url(there: Translated, scheme: str) -> str:
    host, port = there.proxy_address
    return f"{scheme}://{host}:{port}"


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4a", "http"])
def test_curl_fetches_and_posts(there: Translated, web: Web, scheme: str) -> None:
    """A program as it is gets every byte, and every byte of its own arrives."""
    proxy = proxy_url(there, scheme)
    fetched = curl("-x", proxy, web.url("big"))
    assert fetched.returncode == 0, fetched.stderr
    assert hashlib.sha256(fetched.stdout).hexdigest() == web.big_sha256
    posted = curl("-x", proxy, "--data-binary", f"@{web.big}", web.url("x"))
    assert posted.stdout.decode() == web.big_sha256, posted.stderr


def test_requests_share_a_connection(there: Translated, web: Web) -> None:
    """Plain HTTP through the proxy keeps connections, and tunnels work as well."""
    proxy = proxy_url(there, "http")
    verbose = curl("-v", "-x", proxy, web.url("small"), web.url("small"))
    assert verbose.stdout == b"hello\nhello\n" and b"Re-using existing" in verbose.stderr
    assert curl("-p", "-x", proxy, web.url("small")).stdout == b"hello\n"


def test_headers_of_the_hop_stay_here(there: Translated, web: Web) -> None:
    """What concerns the proxy alone, and who asked for it, does not reach the server."""
    proxy = proxy_url(there, "http")
    extra = ["-H", "Connection: X-Private", "-H", "X-Private: 1", "-H", "X-Kept: 2"]
    seen = curl("-x", proxy, "-U", "me:secret", *extra, web.url("headers")).stdout.decode()
    assert "x-kept: 2" in seen and f"host: {LOCALHOST}:{web.port}" in seen
    assert not any(word in seen for word in ("proxy-", "x-private", "secret"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "10.0.0.1"])
def test_private_addresses_are_not_reached(there: Translated, host: str) -> None:
    """Neither as an address nor behind a name; the answer says so."""
    target = f"http://{host}:9/"
    page = curl("-w", "%{http_code}", "-x", proxy_url(there, "http"), target).stdout.decode()
    assert "may not connect" in page and page.endswith("403")
    refused = curl("-x", proxy_url(there, "socks5h"), target)
    assert refused.returncode == 97 and b"(2)" in refused.stderr


def test_a_slow_reader_costs_a_bounded_amount(there: Translated, web: Web) -> None:
    """Who reads nothing of a page without end: the three processes do not grow by it."""
    children = (there.router.child, there.translator, there.proxy)
    assert there.proxy is not None
    curl("-x", proxy_url(there, "socks5h"), web.url("big"))
    before = sum(child.rss_bytes() for child in children if child is not None)
    host, port = there.proxy_address
    with socket.create_connection((host, port)) as client:
        target = f"{LOCALHOST}:{web.port}"
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        # Others are served meanwhile, ten times what one stream may hold.
        for _ in range(5):
            fetched = curl("-x", proxy_url(there, "socks5h"), web.url("big"))
            assert hashlib.sha256(fetched.stdout).hexdigest() == web.big_sha256
        after = sum(child.rss_bytes() for child in children if child is not None)
        read = 0
        while read < 16 << 20:  # it goes on where it stood
            read += len(client.recv(1 << 20))
    assert after - before < 64 << 20


def test_ctrl_c_ends_cleanly(there: Translated) -> None:
    """The command says that it stopped, without a traceback, and a taken port is one line."""
    create_identity_file(there.folder / "other.key")
    listen = (LOCALHOST, free_port())
    proxy = there.start_proxy(listen, "other.key")
    wait_for_port(listen)
    proxy.signal(signal.SIGINT)
    proxy.wait_exit(20.0)
    assert proxy.last_words().endswith("stopped")
    taken = there.start_proxy(there.proxy_address, "other.key")
    wait_until(lambda: taken.poll_exit() is not None, 20.0, "the second proxy ends")
    assert taken.poll_exit() == 2
    assert "cannot listen on" in taken.last_words() and "Traceback" not in taken.last_words()


def test_a_translator_that_dies_is_seen(tmp_path: Path, web: Web) -> None:
    """Killed in mid-transfer: curl fails, with a length and without; afterwards all works again."""
    allow = {"allow": f"127.0.0.1/32:{web.port}"}
    with Children(tmp_path) as children:
        there = start_translated(children, tmp_path, TranslatedPlan(allow))
        proxy = proxy_url(there, "socks5h")
        for path in ("endless", "unsaid"):
            slow = ["--limit-rate", "2M", "-x", proxy, web.url(path)]
            transfers = [start_curl(tmp_path / f"{path}-{number}", *slow) for number in range(2)]
            wait_until(lambda p=path: all_have_begun(tmp_path, p), 20.0, "the transfers begin")
            for pid in vi_pids(there):
                os.kill(pid, signal.SIGKILL)
            for transfer in transfers:
                assert transfer.wait(CURL_S) != 0, "a part was taken for the whole"
            wait_until(
                lambda: curl("-x", proxy, web.url("small")).stdout == b"hello\n", 30.0, "it is back"
            )


def test_a_translator_that_came_back_is_reached_at_once(tmp_path: Path, web: Web) -> None:
    """It does not know the session of the proxy: the next client sees nothing of that."""
    allow = {"allow": f"127.0.0.1/32:{web.port}"}
    with Children(tmp_path) as children:
        there = start_translated(children, tmp_path, TranslatedPlan(allow))
        small = ["-x", proxy_url(there, "socks5h"), web.url("small")]
        wait_until(lambda: curl(*small).stdout == b"hello\n", 30.0, "the proxy works")
        before = vi_pids(there)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(set(vi_pids(there)) - set(before)), 30.0, "another one is there")
        assert curl(*small).stdout == b"hello\n"


def test_a_router_that_stands_still_is_survived(tmp_path: Path, web: Web) -> None:
    """What was asked meanwhile comes when it goes on."""
    large = Random(9).randbytes(STALLED_BYTES)
    (web.big.parent / "stalled").write_bytes(large)
    allow = {"allow": f"127.0.0.1/32:{web.port}"}
    with Children(tmp_path) as children:
        there = start_translated(children, tmp_path, TranslatedPlan(allow))
        proxy = proxy_url(there, "http")
        assert curl("-x", proxy, web.url("small")).stdout == b"hello\n"
        stalled = tmp_path / "stalled"
        transfer = start_curl(stalled, "--limit-rate", "8M", "-x", proxy, web.url("stalled"))
        wait_until(lambda: size_of(stalled) > 1 << 20, 20.0, "the transfer begins")
        there.router.child.signal(signal.SIGSTOP)
        try:
            wait_until(partial(stands_still, stalled), 20.0, "the transfer stands still")
            assert transfer.poll() is None and size_of(stalled) < STALLED_BYTES
        finally:
            there.router.child.signal(signal.SIGCONT)
        assert transfer.wait(CURL_S) == 0
        assert hashlib.sha256(stalled.read_bytes()).digest() == hashlib.sha256(large).digest()


def test_programs_of_one_key_run_beside_each_other(tmp_path: Path, web: Web) -> None:
    """Two proxies and an exposed service; when the first program ends, what it was connected to is
    reset at once, and the others go on."""
    port = free_port()
    listens = [(LOCALHOST, free_port()), (LOCALHOST, free_port())]
    guid = create_identity_file(tmp_path / "own.key").guid.hex
    settings = {"allow": "127.0.0.0/8", "listen": f"127.0.0.1:{port}={guid}"}
    with Children(tmp_path) as children, socket.create_server((LOCALHOST, 0)) as server:
        there = start_translated(children, tmp_path, TranslatedPlan(settings), with_proxy=False)
        proxies = [there.start_proxy(one, "own.key") for one in listens[:1]]
        wait_for_port(listens[0])
        proxies.append(there.start_proxy(listens[1], "own.key"))
        there.start_expose(port, (LOCALHOST, web.port), "own.key")
        urls = [f"http://{host}:{number}" for host, number in listens]

        def all_work(of: Sequence[str]) -> bool:
            fetched = [curl("-x", url, web.url("small")).stdout for url in of]
            fetched.append(curl(f"http://{LOCALHOST}:{port}/small").stdout)
            return set(fetched) == {b"hello\n"}

        wait_until(lambda: all_work(urls), 30.0, "all work")
        assert all(all_work(urls) for _ in range(3)), "and none ends another one's session"
        where = f"{LOCALHOST}:{server.getsockname()[1]}"
        with socket.create_connection(listens[0]) as client:
            client.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
            connection, _ = server.accept()
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            proxies[0].signal(signal.SIGINT)
            connection.settimeout(30.0)
            with connection, pytest.raises(ConnectionResetError):
                connection.recv(1)
        proxies[0].wait_exit(20.0)
        wait_until(lambda: all_work(urls[1:]), 30.0, "the others go on")


def test_a_service_of_a_host_is_reached(tmp_path: Path, web: Web) -> None:
    """A port of the translator leads to the host that it belongs to, and to nobody else."""
    port = free_port()
    guid = create_identity_file(tmp_path / "owner.key").guid.hex
    create_identity_file(tmp_path / "stranger.key")
    plan = TranslatedPlan({"listen": f"127.0.0.1:{port}={guid}"})
    with Children(tmp_path) as children:
        there = start_translated(children, tmp_path, plan, with_proxy=False)
        url = f"http://{LOCALHOST}:{port}"
        assert curl(f"{url}/small").returncode == 7  # refused: nobody claims the port
        stranger = there.start_expose(port, (LOCALHOST, web.port), "stranger.key")
        wait_until(lambda: stranger.poll_exit() is not None, 20.0, "the stranger is refused")
        assert stranger.poll_exit() == 2 and "not this host's" in stranger.last_words()
        with socket.create_server((LOCALHOST, port)):
            owner = there.start_expose(port, (LOCALHOST, web.port), "owner.key")
            wait_until(lambda: "already in use" in owner.last_words(), 30.0, "it says why it waits")
        wait_until(lambda: "leads to" in owner.last_words(), 30.0, "it has the port")
        assert owner.last_words().count("already in use") == 1
        fetched = curl(f"{url}/big")
        assert hashlib.sha256(fetched.stdout).hexdigest() == web.big_sha256
        posted = curl("--data-binary", f"@{web.big}", f"{url}/x")
        assert posted.stdout.decode() == web.big_sha256
        owner.signal(signal.SIGINT)
        owner.wait_exit(20.0)


def start_curl(output: Path, *words: object) -> subprocess.Popen[bytes]:
    command = ["curl", "-sS", "-m", str(CURL_S), "-o", str(output), *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def all_have_begun(folder: Path, path: str) -> bool:
    files = list(folder.glob(f"{path}-*"))
    return len(files) == 2 and all(file.stat().st_size > 1 << 20 for file in files)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def stands_still(path: Path) -> bool:
    """Tell whether nothing comes for longer than everything on its way would take."""
    before = size_of(path)
    time.sleep(1.5)
    return size_of(path) == before


def vi_pids(there: Translated) -> list[int]:
    """Return the processes below the supervisor of the translator that hold its sockets."""
    import psutil

    pids = []
    for one in psutil.Process(there.translator.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            pids += [one.pid] if one.net_connections(kind="udp") else []
    return pids
