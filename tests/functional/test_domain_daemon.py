"""A domain controller with its sockets: TLS, plain HTTP, and the commands that ask it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cli.domain_client import time_of
from packetcloud.cli.main import main
from packetcloud.domain_controller.api.answered import StatusInfo, TenantInfo
from packetcloud.domain_controller.client import (
    DomainClient,
    DomainUnreachableError,
    RefusedError,
)
from packetcloud.domain_controller.config import DomainConfig
from packetcloud.domain_controller.daemon import DomainDaemon
from packetcloud.domain_controller.errors import DomainConfigError
from packetcloud.services.benchmark import FORMAT

CONFIG = """
[domain]
name = "example"
price_lists = ["prices.toml"]
[api]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
{api}
[[operator]]
name = "noc"
public_key = "{public_key}"
"""
PRICES = """
price_list = 1
name = "standard"
version = 1
currency = "EUR"
[[vi_time]]
price_tier = 1
price = "0.04"
"""


class Served:
    """A daemon on a loop of its own."""

    def __init__(self, folder: Path, api: str = "") -> None:
        self.key = folder / "noc.key"
        identity = create_identity_file(self.key)
        (folder / "prices.toml").write_text(PRICES)
        text = CONFIG.format(api=api, public_key=identity.public_key.hex())
        (folder / "domain.toml").write_text(text)
        self.identity = identity
        self.config = DomainConfig.load(folder / "domain.toml")
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))
        self.daemon: DomainDaemon

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.daemon.stop)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self.daemon = DomainDaemon(self.config)
        try:
            await self.daemon.run(lambda _: self._ready.set())
        except BaseException as error:  # raised again in the test, which waits for this thread
            self._failure = error
            self._ready.set()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as one:
        yield one


Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as somebody; return exit code, JSON and standard error."""

    def command(*words: str, key: Path = served.key) -> tuple[int, Any, str]:
        access = ("--url", served.daemon.url, "--key", str(key))
        code = main(["--format", "json", *words, *access])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return command


def test_the_commands_of_an_operator_and_a_tenant(run: Run, tmp_path: Path) -> None:
    """Each does what it says, with the exit codes that are documented."""
    code, status, _ = run("domain", "status")
    assert (code, status["domain"], status["role"]) == (0, "example", "isp")
    sizes = ("--cpus", "0.5", "--memory", "256MiB", "--disk", "1GiB")
    assert run("vi-type", "set", "small", *sizes)[0] == 0
    code, types, _ = run("vi-type", "list")
    assert [(one["name"], one["milli_cpus"]) for one in types] == [("small", 500)]
    other = run("vi-type", "set", "small", "--cpus", "1", *sizes[2:])
    assert other[0] == 2
    assert "keeps its size" in other[2]
    acme, edge, ids = (tmp_path / f"{name}.key" for name in ("acme", "edge", "ids"))
    for file in (acme, edge, ids):
        create_identity_file(file)
    assert run("tenant", "add", "acme", "--title", "Acme", "--public-key", str(acme))[0] == 0
    code, tenants, _ = run("tenant", "list")
    assert tenants == [{"name": "acme", "title": "Acme", "open": True}]
    admitted = run("cloudlet", "admit", "edge-1", "--region", "north", "--public-key", str(edge))
    assert admitted[0] == 0
    assert run("cloudlet", "close", "edge-1")[1]["is_open"] is False
    assert run("cloudlet", "open", "edge-1")[1]["is_open"] is True
    assert run("cloudlet", "list", key=acme)[1][0]["name"] == "edge-1"
    assert run("cloudlet", "show", "edge-1")[1]["region"] == "north"
    create_identity_file(tmp_path / "edge-2.key")
    code, added, _ = run("cloudlet", "key", "add", "edge-1", str(tmp_path / "edge-2.key"))
    assert (code, added["cloudlet"]) == (0, "edge-1")
    assert run("domain", "status", key=tmp_path / "edge-2.key")[1]["caller"] == "edge-1"
    keys = [one["key_id"] for one in run("cloudlet", "key", "list", "edge-1")[1]]
    assert len(keys) == 2
    keys.remove(added["key_id"])
    assert run("cloudlet", "key", "revoke", "edge-1", keys[0])[0] == 0
    assert run("domain", "status", key=edge)[0] == 2
    assert run("cloudlet", "key", "revoke", "edge-1", keys[0])[0] == 2
    assert run("cloudlet", "key", "add", "acme", str(ids))[0] == 2, "it is no cloudlet"
    measured = tmp_path / "measured.json"
    rates = [{"vi_type": "small", "chunks_per_s": 1000}, {"vi_type": "vast", "chunks_per_s": 9}]
    measured.write_text(json.dumps({"format": FORMAT, "measured": rates}))
    load = ("quote", "--measured", str(measured), "--for", "1h", "--load")
    code, quote, error = run(*load, "2500", key=acme)
    assert (code, quote["is_possible"]) == (1, False)
    (way,) = quote["ways"]
    assert (way["vi_type"], way["count"], way["micros_per_hour"]) == ("small", 3, 120_000)
    assert "vast is left out" in error
    code, _, error = run(*load, "1000000000000", key=acme)
    assert code == 2 and "ask for less" in error
    measured.write_text(json.dumps({"format": FORMAT, "measured": rates[1:]}))
    code, _, error = run(*load, "1", key=acme)
    assert code == 2 and "which has: small" in error
    assert run("quote", "--for", "1h", key=acme)[0] == 2
    assert run("quote", "--for", "1h", "--vi-type", "small", "--load", "1", key=acme)[0] == 2
    service = ("ids", "--service-key", str(ids), "--image", "ids-1")
    assert run("service", "register", *service, key=acme)[0] == 0
    (registered,) = run("service", "registered", key=acme)[1]
    assert registered["owner"] == "acme"
    wish = ("--vi-type", "small", "--for", "1h")
    code, quote, _ = run("quote", *wish, key=acme)
    assert (code, quote["is_possible"]) == (1, False)
    code, made, _ = run("reservation", "create", *wish, key=acme)
    assert (code, made["state"]) == (1, "failed")
    (listed,) = run("reservation", "list", key=acme)[1]
    assert listed["state"] == "refused"
    name = listed["id"]
    assert run("reservation", "show", name, key=acme)[1]["why"] == listed["why"]
    assert run("reservation", "wait", name, "--limit", "5", key=acme)[0] == 1
    until = time_of(listed["slot"]["end_ms"])
    assert until is not None and run("quote", *wish[:2], "--end", until, key=acme)[0] == 1
    assert run("reservation", "wait", name, "--for", "refused", key=acme)[0] == 0
    code, _, error = run("reservation", "cancel", name, "--change", key=acme)
    assert (code, "nobody asked for a change" in error) == (1, True)
    code, _, error = run("reservation", "cancel", name, key=acme)
    assert (code, "refused" in error) == (2, True)
    assert run("usage", key=acme)[1] == []
    assert run("bill", "list", key=acme)[1] == []
    code, _, error = run("bill", "close", "acme")
    assert (code, "used nothing" in error) == (2, True)
    code, _, error = run("bill", "close", "acme", "--until", "9000-01-01T00:00:00Z")
    assert (code, "end_ms = 221845392000000" in error) == (2, True)
    assert run("service", "unregister", registered["sid"], key=acme)[0] == 0
    keys = run("tenant", "show", "acme", key=acme)[1]["keys"]
    assert run("tenant", "key", "revoke", "acme", keys[0]["key_id"])[0] == 0
    code, _, error = run("tenant", "list", key=acme)
    assert (code, "no key of this id" in error) == (2, True)


def test_mistakes_end_with_one_line(run: Run, tmp_path: Path) -> None:
    """What is wrong, what is allowed, the next step; and exit code 2."""
    for words, text in (
        (("tenant", "show", "nobody"), "there is no tenant 'nobody'"),
        (("tenant", "add", "Nobody"), "body.name"),
        (("quote", "--vi-type", "small"), "give one of --end and --for"),
        (("quote", "--vi-type", "huge", "--for", "1h"), "vi_type = 'huge'"),
        (("quote", "--vi-type", "huge", "--for", "1 hour"), "expected a time span"),
        (("quote", "--vi-type", "huge", "--for", "1h", "--timeout", "-1"), "'--timeout'"),
        (("vi-type", "set", "x", "--cpus", "nan", "--memory", "1M", "--disk", "1M"), "'--cpus'"),
        (("reservation", "wait", "r-1", "--limit", "nan"), "'--limit'"),
        (
            (
                "reservation",
                "create",
                "--vi-type",
                "x",
                "--for",
                "1h",
                "--request-key",
                "a-wish-of-mine",
            ),
            "--request-key needs --begin",
        ),
        (("bill", "show", "acme-1"), "there is no bill"),
        (("reservation", "show", "r-1"), "there is no reservation"),
    ):
        code, _, error = run(*words)
        assert code == 2, (words, error)
        assert text in error, error
        assert error.count("\n") == 1, error


def test_a_backup_beside_the_controller_is_restored(
    run: Run, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same rows by their digests; a database in use, or not empty, is not restored into."""
    assert run("tenant", "add", "acme")[0] == 0
    folder = served.key.parent
    assert main(["--format", "json", "domain", "audit", str(folder / "domain.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    file, config = folder / "domain.backup", folder / "domain.toml"
    code, saved, _ = _keep(capsys, "backup", config, file)
    assert (code, saved["rows"]["principals"]) == (0, 2)
    code, _, error = _keep(capsys, "backup", config, file)
    assert (code, "there already" in error) == (2, True)
    code, _, error = _keep(capsys, "restore", config, file)
    assert (code, "another domain controller uses it" in error) == (2, True)
    other = folder / "other.toml"
    text = config.read_text().replace("[domain]", '[domain]\ndatabase = "other.sqlite3"')
    other.write_text(text)
    assert _keep(capsys, "restore", other, file)[:2] == (0, saved)
    code, _, error = _keep(capsys, "restore", other, file)
    assert (code, "is not empty" in error) == (2, True)


def test_nobody_there_is_said(served: Served, tmp_path: Path) -> None:
    """And somebody else's server, too."""
    with (
        DomainClient("http://127.0.0.1:1", served.identity) as client,
        pytest.raises(DomainUnreachableError, match="no domain controller"),
    ):
        client.get(StatusInfo, "/v1/status")
    with (
        DomainClient(served.daemon.watch_url, served.identity) as client,
        pytest.raises(RefusedError, match="Not Found"),
    ):
        client.get(StatusInfo, "/v1/status")


def test_what_watches_needs_no_key(served: Served) -> None:
    """Metrics and readiness, on their own address, and nothing else there."""
    url = served.daemon.watch_url
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    assert httpx.get(f"{url}/readyz").json()["status"] == "ok"
    httpx.get(f"{served.daemon.url}/v1/status")
    text = httpx.get(f"{url}/metrics").text
    assert 'packetcloud_domain_requests_refused_total{reason="missing"} 1.0' in text
    assert "packetcloud_domain_writes_total" in text
    assert httpx.get(f"{url}/v1/status").status_code == 404
    assert httpx.get(f"{served.daemon.url}/metrics").status_code == 401


def test_events_over_a_socket(served: Served) -> None:
    """The stream of the client, resumed by number."""
    with DomainClient(served.daemon.url, served.identity) as client:
        body = {"name": "acme", "title": ""}
        client.make(TenantInfo, "/v1/tenants", body)
        first = next(iter(client.events(after=0)))
        assert (first.kind, first.subject) == ("tenant-added", "acme")
        client.make(TenantInfo, "/v1/tenants", body | {"name": "bolt"})
        second = next(iter(client.events(after=first.number)))
        assert (second.number, second.subject) == (first.number + 1, "bolt")


def test_tls(tmp_path: Path) -> None:
    """With a certificate: HTTPS alone, checked by the client."""
    certificate = _certificate(tmp_path)
    with Served(tmp_path, 'certificate = "domain.crt"\nkey = "domain.key"') as served:
        url = served.daemon.url
        assert url.startswith("https://")
        with DomainClient(url, served.identity, ca_file=str(certificate)) as client:
            assert client.get(StatusInfo, "/v1/status").caller == "noc"
        with (
            DomainClient(url, served.identity) as client,
            pytest.raises(DomainUnreachableError, match=r"(?i)certificate"),
        ):
            client.get(StatusInfo, "/v1/status")
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz")


def test_a_start_that_cannot_be(tmp_path: Path) -> None:
    """A port that is taken, a certificate that is none: one sentence, nothing left open."""
    with Served(tmp_path) as served:
        port = served.daemon.url.rpartition(":")[2]
        second = tmp_path / "second"
        second.mkdir()
        with pytest.raises(DomainConfigError, match="a free TCP port"):
            _run_on(second, f"127.0.0.1:{port}")
    names = {path.name for path in second.iterdir()}
    assert names == {"noc.key", "prices.toml", "domain.toml"}, "nothing was kept"
    third = tmp_path / "third"
    third.mkdir()
    for name in ("domain.crt", "domain.key"):
        (third / name).write_text("no certificate")
    with (
        pytest.raises(DomainConfigError, match="certificate"),
        Served(third, 'certificate = "domain.crt"\nkey = "domain.key"'),
    ):
        raise AssertionError("it must not start")


def _keep(
    capsys: pytest.CaptureFixture[str], verb: str, config: Path, file: Path
) -> tuple[int, Any, str]:
    code = main(["--format", "json", "domain", verb, str(config), str(file)])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else None, printed.err


def _run_on(folder: Path, listen: str) -> None:
    Served(folder)._loop.close()  # it writes the files
    file = folder / "domain.toml"
    file.write_text(file.read_text().replace("127.0.0.1:0", listen, 1))
    asyncio.run(DomainDaemon(DomainConfig.load(folder / "domain.toml")).run(lambda _: None))


def _certificate(folder: Path) -> Path:
    """Write a certificate of its own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a domain controller")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "domain.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "domain.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "domain.crt"
