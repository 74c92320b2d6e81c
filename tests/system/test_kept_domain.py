"""The API over a real database: what it asks for is kept, once, and seen by who may see it.

The cloudlets' side is played by hand: reports are put where the channel would put them, and
directives are answered as a cloudlet would.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.names import GUID, NA
from packetcloud.domain_controller.api.app import make_app
from packetcloud.domain_controller.api.kept import KeptDomain
from packetcloud.domain_controller.bundles import FORMAT, read_bundle, verify_bundles
from packetcloud.domain_controller.config import DomainConfig
from packetcloud.domain_controller.core.cloudlets import CloudletReport, Distance, NodeReport
from packetcloud.domain_controller.core.life import Answered
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.resources import Resources
from packetcloud.domain_controller.core.usage import (
    FIRST_PREVIOUS,
    RECORD_SIGNING,
    RecordSignature,
    UsageRecord,
)
from packetcloud.domain_controller.enrolment import enrol
from packetcloud.domain_controller.errors import DomainConfigError
from packetcloud.domain_controller.housekeeping import Housekeeping
from packetcloud.domain_controller.sid_proof import prove_sid
from packetcloud.domain_controller.state import booking, outbox, ownership, reservations, usage
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import NotDoneError
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from packetcloud.testbed.private_postgresql import PrivatePostgresql
from tests.functional.domain_place import AUTHORITY, DOMAIN, START_MS, WISH, Clock, Place
from tests.system.domain_databases import url
from tests.unit.domain_controller.test_rule_documents import (
    HEAD,
    RULE,
    SERVICE,
    TENANT,
    grant,
    signed,
)

__all__ = ["url"]
NOC, EDGE = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
PRICES = """
price_list = 1
name = "standard"
version = 1
currency = "EUR"
[[vi_time]]
price_tier = 1
price = "0.04"
per = "hour"
[[tier]]
up_to_permille = 500
factor_permille = 1000
[[tier]]
up_to_permille = 1000
factor_permille = 2500
"""
CONFIG = f"""
[domain]
name = "{DOMAIN}"
price_lists = ["prices.toml"]
[[operator]]
name = "noc"
public_key = "{NOC.public_key.hex()}"
[[operator]]
name = "audit"
role = "auditor"
public_key = "{Identity(bytes([9]) * 32).public_key.hex()}"
"""
SIZES = {"milli_cpus": 500, "memory_bytes": 1 << 28, "disk_bytes": 1 << 30}
HOUR_MS = 3_600_000


class KeptPlace(Place):
    """A domain on a database, operated by `noc`, with the tenants that are added to it."""

    def __init__(self, database: Database, writer: Writer, clock: Clock) -> None:
        self.clock = clock
        self.database, self.writer = database, writer
        with database.reading() as connection:
            self.reports = Reports(connection)
        numbers = itertools.count(1)
        self.kept = KeptDomain(database, writer, self.reports, lambda: f"{next(numbers):08}", clock)
        self.keys = {"noc": NOC, "audit": Identity(bytes([9]) * 32), "edge-1": EDGE}
        self.made = make_app(
            self.kept,
            domain=DOMAIN,
            version="0",
            authorities={AUTHORITY},
            clock_ms=clock,
            max_requests=64,
            max_streams=4,
        )
        self._nonces = itertools.count()
        self._transport = httpx.ASGITransport(self.made.gate, raise_app_exceptions=False)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Give a request to the API; its answer must be one that the description has."""
        got = await super().send(request)
        for route in self.made.app.routes:
            is_its = isinstance(route, APIRoute) and request.method in route.methods
            if not is_its or not route.path_regex.fullmatch(request.url.path):
                continue
            assert isinstance(route, APIRoute)
            expected = {route.status_code or 200, *route.responses}
            assert got.status_code in expected, f"{request.method} {route.path}: {got.status_code}"
            if got.is_success:
                assert got.status_code == (route.status_code or 200), route.path
                TypeAdapter(route.response_model).validate_json(got.content)
        return got

    async def want(
        self, who: str, method: str, path: str, body: Any = None, key: str | None = None
    ) -> Any:
        """Ask something that must succeed; return the answer."""
        if key is None and method == "POST":
            key = self.nonce()
        got = await self.ask(who, method, path, body, key)
        assert got.is_success, got.text
        return got.json()

    async def populate(self, cpus: int = 4) -> None:
        """Add a VI type, two tenants, and a cloudlet that reported."""
        await self.want("noc", "PUT", "/v1/vi-types/small", SIZES)
        for number, name in enumerate(("acme", "bolt"), 11):
            self.keys[name] = TENANT if name == "acme" else Identity(bytes([number]) * 32)
            await self.want("noc", "POST", "/v1/tenants", {"name": name})
            body = {"public_key": self.keys[name].public_key.hex()}
            await self.want("noc", "POST", f"/v1/tenants/{name}/keys", body)
        body = {"name": "edge-1", "region": "north", "public_key": EDGE.public_key.hex()}
        await self.want("noc", "POST", "/v1/cloudlets", body)
        self.report(cpus)

    def report(self, cpus: int) -> None:
        """Report as the cloudlet does, with one node."""
        capacity = Resources(cpus * 1000, 1 << 34, 1 << 40, 1000)
        node = NodeReport("n1", capacity, Resources(), capacity)
        self.reports.put(CloudletReport("edge-1", 1, self.clock.now_ms, (node,)))

    async def answer(self, is_accepted: bool = True) -> int:
        """Answer every directive that waits, as the cloudlet does; return how many did."""
        with self.database.reading() as connection:
            waiting = outbox.unanswered(connection, "edge-1", self.clock.now_ms + 1)
        for name, directive in waiting:

            def work(
                transaction: Transaction, name: str = name, number: int = directive.number
            ) -> None:
                kept = reservations.lock(transaction, name)
                assert kept is not None
                event = Answered("edge-1", number, is_accepted, "" if is_accepted else "no room")
                booking.handle(transaction, self.kept.world(transaction), kept, event)

            await self.writer.do(work)
        return len(waiting)

    async def take(self, records: list[UsageRecord]) -> None:
        """Take usage records as the channel does."""
        name = ownership.cloudlet_channel("edge-1")
        channel = await self.writer.do(lambda work: ownership.take(work, name, "a"))
        key = self.keys["edge-1"]
        signatures = {
            one.digest: RecordSignature(key.public_key, key.sign(RECORD_SIGNING, one.to_bytes()))
            for one in records
        }
        await self.writer.do(lambda work: usage.take(work, channel, records, signatures))

    async def operation(self, who: str, made: Any) -> Any:
        return await self.want(who, "GET", f"/v1/operations/{made['id']}")

    async def reservation(self, who: str, made: Any) -> Any:
        return await self.want(who, "GET", f"/v1/reservations/{made['subject']}")


@contextlib.asynccontextmanager
async def kept_place(url: str, folder: Path) -> AsyncIterator[KeptPlace]:
    """Open a domain as its daemon does."""
    clock = Clock()
    (folder / "prices.toml").write_text(PRICES)
    (folder / "domain.toml").write_text(CONFIG)
    config = DomainConfig.load(folder / "domain.toml")
    database = Database(url)
    writer = Writer(database, clock)
    try:
        await enrol(config, writer)
        yield KeptPlace(database, writer, clock)
    finally:
        writer.close()
        database.close()


Scenario = Callable[[KeptPlace], Coroutine[Any, Any, None]]


def play(url: str, folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        async with kept_place(url, folder) as place:
            await scenario(place)

    asyncio.run(run())


def test_from_nothing_to_a_bill_that_verifies(url: str, tmp_path: Path) -> None:
    """Asked, offered, confirmed, used, billed; then computed again from what the tenant holds."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        quote = await place.want("acme", "POST", "/v1/quotes", WISH)
        assert quote["offer"]["total_micros"] == 2 * 40_000
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        assert (made["kind"], made["state"]) == ("reserve", "running")
        offered = await place.reservation("acme", made)
        assert (offered["state"], offered["price_micros"]) == ("offered", 80_000)
        assert offered["places"] == [{"cloudlet": "edge-1", "count": 2, "away_since_ms": None}]
        assert await place.answer() == 1
        assert (await place.operation("acme", made))["state"] == "done"
        confirmed = await place.reservation("acme", made)
        assert (confirmed["state"], confirmed["operation"]) == ("confirmed", made["id"])
        begin, end = WISH["slot"]["begin_ms"], WISH["slot"]["end_ms"]  # type: ignore[index]
        name = made["subject"]
        fields = (name, 1, Meter.VI_TIME, begin, end, 2 * HOUR_MS)
        record = UsageRecord("edge-1", name, 1, FIRST_PREVIOUS, *fields)
        await place.take([record])
        listed = await place.want("acme", "GET", "/v1/usage")
        assert [one["quantity"] for one in listed["records"]] == [2 * HOUR_MS]
        assert (await place.want("bolt", "GET", "/v1/usage"))["records"] == []
        body = {"tenant": "acme", "end_ms": end + 1}
        early = await place.ask("noc", "POST", "/v1/bills", body, "key-early")
        assert (early.status_code, "end_ms" in early.text) == (422, True), "it is to come"
        place.clock.now_ms = end + 1
        bill = await place.want("noc", "POST", "/v1/bills", body, "key-of-the-bill")
        assert (bill["id"], bill["total_micros"]) == ("acme-1", 80_000)
        again = await place.ask("noc", "POST", "/v1/bills", body, "key-of-the-bill")
        assert again.json() == bill
        assert again.headers["idempotency-replayed"] == "true"
        assert (await place.ask("bolt", "GET", "/v1/bills/acme-1")).status_code == 404
        assert (await place.want("bolt", "GET", "/v1/bills"))["bills"] == []
        file = tmp_path / "acme-1.json"
        await _save(place, "acme", bill, file)
        (verdict,) = verify_bundles([read_bundle(file)])
        assert (verdict.total, verdict.findings) == ("0.08 EUR", [])
        own = {place.keys["edge-1"].public_key}
        assert not verify_bundles([read_bundle(file)], {"edge-1": own})[0].findings
        (verdict,) = verify_bundles([read_bundle(file)], {"edge-1": {bytes(32)}})
        assert [text.split(":")[0] for text in verdict.findings] == [f"record edge-1/{name}/1"]
        _spoil(file, "quantity", 2 * HOUR_MS, HOUR_MS)
        (verdict,) = verify_bundles([read_bundle(file)])
        assert verdict.findings

    play(url, tmp_path, scenario)


def test_a_reservation_is_extended_resized_and_cancelled(url: str, tmp_path: Path) -> None:
    """Each in force when the cloudlet said yes; without room the operation says so."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate(cpus=2)
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        path = f"/v1/reservations/{made['subject']}"
        early = await place.ask("acme", "POST", f"{path}/resize", {"count": 3}, "key-early")
        assert early.status_code == 409, "not before it is confirmed"
        await place.answer()
        end_ms = WISH["slot"]["end_ms"] + HOUR_MS  # type: ignore[index]
        longer = await place.want("acme", "POST", f"{path}/extend", {"end_ms": end_ms})
        assert longer["state"] == "running"
        await place.answer()
        assert (await place.operation("acme", longer))["state"] == "done"
        assert (await place.reservation("acme", made))["slot"]["end_ms"] == end_ms
        wider = await place.want("acme", "POST", f"{path}/resize", {"count": 5})
        assert wider["state"] == "failed"
        assert "milli_cpus" in wider["text"]
        four = await place.want("acme", "POST", f"{path}/resize", {"count": 4})
        await place.answer(is_accepted=False)
        assert (await place.operation("acme", four))["state"] == "failed"
        assert (await place.reservation("acme", made))["count"] == 2
        theirs = await place.ask("bolt", "POST", f"{path}/cancel", None, "key-of-bolt")
        assert theirs.status_code == 404
        gone = await place.want("acme", "POST", f"{path}/cancel")
        assert (gone["kind"], gone["state"]) == ("cancel", "done")
        assert (await place.reservation("acme", made))["state"] == "cancelled"
        again = await place.ask("acme", "POST", f"{path}/cancel", None, "key-again")
        assert (again.status_code, again.json()["type"][-5:]) == (409, "state")

    play(url, tmp_path, scenario)


def test_places_are_sold_once(url: str, tmp_path: Path) -> None:
    """Of eight that ask at once for a place each, four get one; the others are told why."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate(cpus=2)
        one = WISH | {"count": 1}
        made = await asyncio.gather(
            *(place.want("acme", "POST", "/v1/reservations", one) for _ in range(8))
        )
        states = [(await place.operation("acme", each))["state"] for each in made]
        assert sorted(states) == ["failed"] * 4 + ["running"] * 4
        quote = await place.want("bolt", "POST", "/v1/quotes", one)
        assert not quote["is_possible"]
        assert "milli_cpus" in quote["why"]
        until_ms = WISH["slot"]["end_ms"] + HOUR_MS  # type: ignore[index]
        when = await place.want("bolt", "POST", "/v1/calendar", {"wish": one, "until_ms": until_ms})
        assert when["begin_ms"] == WISH["slot"]["end_ms"]  # type: ignore[index]

    play(url, tmp_path, scenario)


def test_an_operation_is_cancelled(url: str, tmp_path: Path) -> None:
    """While the cloudlet has not answered; afterwards it stays what it is."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        path = f"/v1/operations/{made['id']}/cancel"
        assert (await place.ask("bolt", "POST", path)).status_code == 404
        for _ in range(2):
            assert (await place.want("acme", "POST", path))["state"] == "cancelled"
        assert (await place.reservation("acme", made))["state"] == "cancelled"
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        await place.answer()
        wider = await place.want(
            "acme", "POST", f"/v1/reservations/{made['subject']}/resize", {"count": 3}
        )
        path = f"/v1/operations/{wider['id']}/cancel"
        assert (await place.ask("bolt", "POST", path)).status_code == 404
        for _ in range(2):
            got = await place.ask("acme", "POST", path)
            assert (got.status_code, got.json()["state"]) == (200, "cancelled")
        await place.answer()
        assert (await place.reservation("acme", made))["count"] == 2
        again = await place.want(
            "acme", "POST", f"/v1/reservations/{made['subject']}/resize", {"count": 3}
        )
        await place.answer()
        assert (await place.operation("acme", again))["state"] == "done"

    play(url, tmp_path, scenario)


def test_deadlines_are_kept_by_housekeeping(url: str, tmp_path: Path) -> None:
    """A cloudlet that does not answer is passed over; then the request expires or is refused."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        keeper = Housekeeping(place.database, place.writer, place.kept, place.reports)
        assert await keeper.do_due() == 0
        place.clock.now_ms += 10_000
        assert await keeper.do_due() == 1
        assert (await place.reservation("acme", made))["state"] in ("refused", "expired")
        assert (await place.operation("acme", made))["state"] == "failed"
        other = Housekeeping(place.database, place.writer, place.kept, place.reports)
        await place.want("acme", "POST", "/v1/reservations", WISH)
        assert await other.do_due() == 0, "the lease is the first one's"
        await keeper.write_reports()
        await keeper.forget()

    play(url, tmp_path, scenario)


def test_a_server_that_was_away_is_asked_again(
    postgresql: PrivatePostgresql, domain_template: str, tmp_path: Path
) -> None:
    """Meanwhile requests are told to come again, and housekeeping says so; neither ends."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        keeper = Housekeeping(place.database, place.writer, place.kept, place.reports)
        await keeper.write_reports()
        postgresql.stop()
        try:
            for got in (
                await place.ask("acme", "GET", "/v1/reservations"),
                await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme"),
            ):
                assert (got.status_code, got.json()["type"][-5:]) == (503, ":busy"), got.text
                assert got.headers["retry-after"] == "1"
            with pytest.raises(NotDoneError):
                await keeper.write_reports()
        finally:
            postgresql.start()
        await place.want("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        found = await place.want("acme", "GET", "/v1/reservations")
        assert [one["state"] for one in found["reservations"]] == ["offered"]
        assert await keeper.do_due() == 0

    play(postgresql.make_database(domain_template), tmp_path, scenario)


def test_services_and_rules_are_proven(url: str, tmp_path: Path) -> None:
    """With the proofs they are kept and listed for their owner; without, they are refused."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        until_ms = START_MS + HOUR_MS
        proof = prove_sid(SERVICE, DOMAIN, "acme", until_ms)
        body = {
            "name": "ids",
            "sid": SERVICE.sid.hex,
            "image": "ids-1",
            "proof": {
                "public_key": proof.public_key.hex(),
                "until_ms": until_ms,
                "signature": proof.signature.hex(),
            },
        }
        stolen = await place.ask("bolt", "POST", "/v1/services", body, "key-of-bolt")
        assert (stolen.status_code, stolen.json()["type"][-10:]) == (403, "not-proven")
        rules = {"document": signed(RULE)}
        early = await place.ask("acme", "POST", "/v1/rules", rules, "key-early")
        assert early.status_code == 404, "the service is not registered yet"
        await place.want("acme", "POST", "/v1/services", body)
        kept = await place.want("acme", "POST", "/v1/rules", rules)
        assert (kept["set_name"], kept["serial"], kept["items"]) == ("set-1", 7, 1)
        replayed = await place.ask("acme", "POST", "/v1/rules", rules, "key-again")
        assert replayed.status_code == 409, "the serial is not new"
        unproven = {"document": signed(RULE, grants=(grant(SERVICE),))}
        refused = await place.ask("acme", "POST", "/v1/rules", unproven, "key-unproven")
        assert (refused.status_code, refused.json()["type"][-10:]) == (403, "not-proven")
        detail = await place.want("acme", "GET", f"/v1/rules/{kept['id']}")
        assert detail["document"] == rules["document"]
        service = f"/v1/services/{SERVICE.sid.hex}"
        for method, path in (
            ("GET", f"/v1/rules/{kept['id']}"),
            ("GET", service),
            ("DELETE", service),
        ):
            assert (await place.ask("bolt", method, path)).status_code == 404
        assert (await place.want("bolt", "GET", "/v1/rules"))["rules"] == []
        assert (kept["state"], kept["at"]) == ("in_force", {"pending": 1})
        later = {"name": "edge-9", "region": "south", "public_key": "09" * 32}
        await place.want("noc", "POST", "/v1/cloudlets", later)
        shown = await place.want("acme", "GET", f"/v1/rules/{kept['id']}")
        assert [one["cloudlet"] for one in shown["cloudlet_states"]][-1] == "edge-9"
        narrower = {
            "document": signed(RULE, head=replace(HEAD, serial=8)),
            "cloudlets": ["edge-9"],
        }
        refused = await place.ask("acme", "POST", "/v1/rules", narrower, "key-narrow")
        assert refused.status_code == 409 and "would stay there" in refused.text
        nowhere = {"document": signed(RULE, head=replace(HEAD, serial=8)), "regions": ["moon"]}
        refused = await place.ask("acme", "POST", "/v1/rules", nowhere, "key-moon")
        assert refused.status_code == 422 and "north, south" in refused.text
        part = {"document": signed(RULE, head=replace(HEAD, serial=8, replaces=False))}
        refused = await place.ask("acme", "POST", "/v1/rules", part, "key-part")
        assert "write replace = true" in refused.text
        nothing = {"document": signed(head=replace(HEAD, serial=8))}
        gone = await place.want("acme", "POST", "/v1/rules", nothing, "key-gone")
        assert (gone["id"], gone["state"], gone["rules"]) == (kept["id"], "withdrawn", 0)
        listed = (await place.want("acme", "GET", "/v1/rules"))["rules"]
        assert [one["at"] for one in listed] == [{"pending": 2}], "they are to hear of it first"

    play(url, tmp_path, scenario)


def test_nonces_and_keys_outlive_the_process(url: str, tmp_path: Path) -> None:
    """A request that was answered is refused after a restart; its key gets the first answer."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        request = place.request(
            "acme", "POST", "/v1/reservations", WISH, {"Idempotency-Key": "key-of-acme"}
        )
        first = await place.send(request)
        again = KeptPlace(place.database, place.writer, place.clock)
        again.keys, again._nonces = place.keys, place._nonces
        replayed = await again.send(request)
        assert replayed.status_code == 401
        assert replayed.json()["type"].endswith("signature-replayed")
        second = await again.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        assert second.content == first.content
        assert len((await again.want("acme", "GET", "/v1/reservations"))["reservations"]) == 1
        path = f"/v1/reservations/{first.json()['subject']}/resize"
        request = place.request("acme", "POST", path, {"count": 1}, {"Idempotency-Key": "key-2-of"})
        assert (await place.send(request)).status_code == 409, "it is not confirmed"
        await place.answer()
        replayed = await place.send(request)
        assert replayed.json()["type"].endswith("signature-replayed"), "nor later"

    play(url, tmp_path, scenario)


def test_the_journal_holds_who_asked_for_what(url: str, tmp_path: Path) -> None:
    """Each change with the signature of the request, for its owner and the operator."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        await place.want("acme", "POST", "/v1/reservations", WISH)
        events = place.kept.events("acme", 0, 100)
        asked = [one for one in events if one.kind == "asked"]
        assert len(asked) == 1
        assert asked[0].data["by"] == "acme"
        assert asked[0].data["key_id"] == GUID.from_public_key(TENANT.public_key).hex
        assert '"@path": /v1/reservations' in str(asked[0].data["signed"])
        assert {one.owner for one in events} == {"acme"}
        everything = place.kept.events(None, 0, 100)
        assert [one.number for one in everything] == list(range(1, place.kept.last_event() + 1))

    play(url, tmp_path, scenario)


def test_who_is_suspended_asks_for_nothing_new(url: str, tmp_path: Path) -> None:
    """It reads and gives back."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        await place.want("noc", "PATCH", "/v1/tenants/acme", {"is_open": False})
        refused = await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        assert (refused.status_code, refused.json()["type"][-9:]) == (403, "suspended")
        assert (await place.reservation("acme", made))["state"] == "offered"
        await place.want("acme", "POST", f"/v1/reservations/{made['subject']}/cancel")

    play(url, tmp_path, scenario)


def test_an_operator_that_left_opens_nothing(url: str, tmp_path: Path) -> None:
    """From the next start on its key is revoked; a name does not change its role."""

    async def scenario(place: KeptPlace) -> None:
        assert (await place.ask("audit", "GET", "/v1/status")).is_success
        text = CONFIG.partition('[[operator]]\nname = "audit"')[0]
        (tmp_path / "domain.toml").write_text(text)
        await enrol(DomainConfig.load(tmp_path / "domain.toml"), place.writer)
        place.kept.known_keys.forget()  # who starts knows nothing
        assert (await place.ask("audit", "GET", "/v1/status")).status_code == 401
        assert (await place.ask("noc", "GET", "/v1/status")).is_success
        (tmp_path / "domain.toml").write_text(CONFIG.replace('"noc"', '"boss"'))
        with pytest.raises(DomainConfigError, match="known already"):
            await enrol(DomainConfig.load(tmp_path / "domain.toml"), place.writer)

    play(url, tmp_path, scenario)


async def _save(place: KeptPlace, who: str, bill: Any, file: Path) -> None:
    """Write what `packetcloud bill save` writes."""
    records = (await place.want(who, "GET", f"/v1/usage?bill={bill['number']}"))["records"]
    for one in records:
        del one["digest"]
    names = {one["reservation"] for one in records}
    terms = {
        name: (await place.want(who, "GET", f"/v1/reservations/{name}/terms"))["terms"]
        for name in names
    }
    cloudlet = await place.want(who, "GET", "/v1/cloudlets/edge-1")
    bundle = {
        "format": FORMAT,
        "bill": bill["document"],
        "records": records,
        "terms": terms,
        "cloudlet_keys": {"edge-1": cloudlet["public_keys"]},
    }
    file.write_text(json.dumps(bundle))


def _spoil(file: Path, key: str, before: int, after: int) -> None:
    text = file.read_text()
    assert f'"{key}": {before}' in text
    file.write_text(text.replace(f'"{key}": {before}', f'"{key}": {after}', 1))


def test_near_a_host_is_where_cloudlets_say_that_it_is(url: str, tmp_path: Path) -> None:
    """Quote, calendar and reservation: the nearer of two; the other when that is full; a host that
    no router has is refused, and so is one that went away."""
    host, stranger = "ab" * 20, "cd" * 20

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        other = {"name": "edge-2", "region": "south", "public_key": "09" * 32}
        await place.want("noc", "POST", "/v1/cloudlets", other)
        node = NodeReport("n1", Resources(4000, 1 << 34, 1 << 40, 1000))

        def report(name: str, na: int, hosts: tuple[str, ...], to: int) -> None:
            guids = tuple(GUID.from_hex(one) for one in hosts)
            now_ms, around = place.clock.now_ms, (Distance(NA(to), 2),)
            place.reports.put(CloudletReport(name, 1, now_ms, (node,), (), NA(na), guids, around))

        async def quoted(target: str, count: int = 2, max_hops: int = 9) -> Any:
            near = {"near": {"host": target, "max_hops": max_hops}}
            wish = WISH | {"count": count, "constraints": near}
            return await place.want("acme", "POST", "/v1/quotes", wish)

        report("edge-1", 1, (), 2)
        report("edge-2", 2, (host,), 1)
        assert [one["cloudlet"] for one in (await quoted(host))["offer"]["places"]] == ["edge-2"]
        near = {"constraints": {"near": {"host": host, "max_hops": 9}}}
        made = await place.want("acme", "POST", "/v1/reservations", WISH | near | {"count": 6})
        assert (await place.reservation("acme", made))["places"][0]["cloudlet"] == "edge-2"
        assert [one["cloudlet"] for one in (await quoted(host, 4))["offer"]["places"]] == ["edge-1"]
        assert "2 hops away; allowed: 1" in (await quoted(host, 4, 1))["why"]
        unknown = await quoted(stranger)
        assert f"no router of a cloudlet here has a host {stranger}" in unknown["why"]
        wish = WISH | {"constraints": {"near": {"host": stranger}}}
        body = {"wish": wish, "until_ms": START_MS + 9 * HOUR_MS}
        assert stranger in (await place.want("acme", "POST", "/v1/calendar", body))["why"]
        refused = await place.want("acme", "POST", "/v1/reservations", wish)
        assert stranger in (await place.operation("acme", refused))["text"]
        report("edge-2", 2, (), 1)
        assert "no router" in (await quoted(host))["why"], "it went away"
        report("edge-1", 1, (host,), 2)
        assert [one["cloudlet"] for one in (await quoted(host))["offer"]["places"]] == ["edge-1"]

    play(url, tmp_path, scenario)
