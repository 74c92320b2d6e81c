"""What the API promises of things that are in use, given up, lost or to come, over a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from packetcloud.domain_controller.channel.kept import KeptChannel
from packetcloud.domain_controller.core.life import LifeLimits
from packetcloud.domain_controller.core.prices import Meter
from packetcloud.domain_controller.core.reconciliation import Kind
from packetcloud.domain_controller.core.slots import DAY_MS
from packetcloud.domain_controller.core.usage import FIRST_PREVIOUS, UsageRecord
from packetcloud.domain_controller.housekeeping import Housekeeping
from packetcloud.domain_controller.sid_proof import prove_sid
from packetcloud.domain_controller.state.audit import audit, audit_state
from packetcloud.domain_controller.state.errors import ConflictError
from packetcloud.domain_controller.state.money_tables import POSTINGS, USAGE
from packetcloud.domain_controller.state.tables import EVENTS
from packetcloud.domain_controller.state.transaction import Transaction
from tests.functional.domain_place import DOMAIN, START_MS, WISH
from tests.system.domain_databases import url
from tests.system.test_kept_domain import HOUR_MS, KeptPlace, play
from tests.unit.domain_controller.test_rule_documents import SERVICE

__all__ = ["url"]


def test_a_service_that_places_are_reserved_for_is_not_removed(url: str, tmp_path: Path) -> None:
    """The answer names the reservation; once that is over, the service goes."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        service = await _register(place)
        made = await place.want("acme", "POST", "/v1/reservations", WISH | {"service": "ids"})
        path = f"/v1/services/{service['sid']}"
        refused = await place.ask("acme", "DELETE", path)
        assert (refused.status_code, made["subject"] in refused.text) == (409, True)
        await place.want("acme", "POST", f"/v1/reservations/{made['subject']}/cancel")
        assert (await place.want("acme", "DELETE", path))["name"] == "ids"

    play(url, tmp_path, scenario)


def test_deadlines_come_near_when_the_clock_is_set_back(url: str, tmp_path: Path) -> None:
    """An offer that nobody answers is given up 10 s after the clock was set back by an hour."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        place.clock.now_ms += HOUR_MS
        place.report(4)
        keeper = Housekeeping(place.database, place.writer, place.kept, place.reports)
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        assert await keeper.do_due() == 0
        place.clock.now_ms -= HOUR_MS
        assert await keeper.do_due() == 1
        place.clock.now_ms += LifeLimits().answer_ms
        assert await keeper.do_due() == 1
        assert (await place.operation("acme", made))["state"] == "failed"

    play(url, tmp_path, scenario)


def test_nodes_that_are_lost_show_as_overbooked(url: str, tmp_path: Path) -> None:
    """Nothing is taken from anybody; once the nodes are back the difference is gone."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        channel = KeptChannel("a", place.database, place.writer, place.kept, place.reports)

        async def findings(cpus: int) -> list[tuple[Kind, str]]:
            place.report(cpus)
            report = place.reports.get("edge-1")
            assert report is not None
            return [(one.kind, one.text) for one in await channel.compare(report)]

        await place.want("acme", "POST", "/v1/reservations", WISH | {"count": 8})
        assert await findings(cpus=4) == []
        for _ in range(2):
            ((kind, text),) = await findings(cpus=3)
            assert kind is Kind.OVERBOOKED
            assert "not enough milli_cpus" in text
        assert await findings(cpus=4) == []
        listed = await place.want("acme", "GET", "/v1/reservations")
        assert listed["reservations"][0]["count"] == 8

    play(url, tmp_path, scenario)


def test_a_bill_waits_a_day_for_records_that_are_missing(url: str, tmp_path: Path) -> None:
    """Until then it is refused; whatever comes later is on the next one."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        await place.answer()
        begin_ms = WISH["slot"]["begin_ms"]  # type: ignore[index]
        records = []
        previous = FIRST_PREVIOUS
        for number in (1, 2, 3):
            at_ms = begin_ms + number * 1000
            fields = (made["subject"], 1, Meter.VI_TIME, at_ms, at_ms + 1000, 2000)
            records.append(UsageRecord("edge-1", "m", number, previous, *fields))
            previous = records[-1].digest
        await place.take([records[0], records[2]])
        place.clock.now_ms = begin_ms + HOUR_MS
        body = {"tenant": "acme", "end_ms": place.clock.now_ms}
        early = await place.ask("noc", "POST", "/v1/bills", body, "key-early")
        assert (early.status_code, "meter m of cloudlet edge-1" in early.text) == (409, True)
        place.clock.now_ms += DAY_MS
        bill = await place.want("noc", "POST", "/v1/bills", body)
        await place.take([records[1]])
        body["end_ms"] = place.clock.now_ms
        rest = await place.want("noc", "POST", "/v1/bills", body)
        quantities = [one["document"]["lines"][0]["quantity"] for one in (bill, rest)]
        assert quantities == [4000, 2000]

    play(url, tmp_path, scenario)


def test_an_audit_names_what_was_altered(url: str, tmp_path: Path) -> None:
    """One byte of an event, of a record, of a posting; an event that is gone."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        made = await place.want("acme", "POST", "/v1/reservations", WISH)
        await place.answer()
        begin_ms = WISH["slot"]["begin_ms"]  # type: ignore[index]
        fields = (made["subject"], 1, Meter.VI_TIME, begin_ms, begin_ms + 1000, 2000)
        await place.take([UsageRecord("edge-1", "m", 1, FIRST_PREVIOUS, *fields)])
        found = audit(url)
        assert (found.findings, found.records_count, found.gaps) == ((), 1, ())
        for change, text in (
            (update(EVENTS).where(EVENTS.c.number == 2).values(subject="x"), "journal: event 2 "),
            (delete(EVENTS).where(EVENTS.c.number == found.events_count), "journal: event "),
            (update(USAGE).values(quantity=4000), "usage: record edge-1/m/1 "),
            (update(POSTINGS).values(micros=1), "tenant/acme was charged 1 micros"),
        ):

            def work(transaction: Transaction, change: Any = change) -> None:
                transaction.connection.execute(change)
                (finding,) = audit_state(transaction.connection).findings
                raise ConflictError(finding)  # which undoes the change

            with pytest.raises(ConflictError, match=text):
                await place.writer.do(work)

    play(url, tmp_path, scenario)


async def _register(place: KeptPlace) -> Any:
    until_ms = START_MS + HOUR_MS
    proof = prove_sid(SERVICE, DOMAIN, "acme", until_ms)
    signed = {
        "public_key": proof.public_key.hex(),
        "until_ms": until_ms,
        "signature": proof.signature.hex(),
    }
    body = {"name": "ids", "sid": SERVICE.sid.hex, "image": "ids-1", "proof": signed}
    return await place.want("acme", "POST", "/v1/services", body)


def test_what_is_registered_twice_is_registered_once(url: str, tmp_path: Path) -> None:
    """The same tenant, key or cloudlet again is answered as before, and nothing is noted; with
    anything else of it the name is taken, and a key that was revoked stays so."""

    async def scenario(place: KeptPlace) -> None:
        await place.populate()
        key = {"public_key": place.keys["acme"].public_key.hex()}
        edge = {"name": "edge-1", "region": "north"}
        edge["public_key"] = place.keys["edge-1"].public_key.hex()
        await place.want("noc", "PATCH", "/v1/tenants/acme", {"is_open": False})
        before = place.kept.last_event()
        again = await place.want("noc", "POST", "/v1/tenants", {"name": "acme"})
        assert again == {"name": "acme", "title": "", "is_open": False}
        known = await place.want("noc", "GET", "/v1/tenants/acme/keys")
        assert [await place.want("noc", "POST", "/v1/tenants/acme/keys", key)] == known["keys"]
        assert (await place.want("noc", "POST", "/v1/cloudlets", edge))["is_connected"]
        assert place.kept.last_event() == before
        for path, body in (
            ("/v1/tenants", {"name": "acme", "title": "Acme"}),
            ("/v1/tenants", {"name": "edge-1"}),
            ("/v1/tenants/acme/keys", key | {"until_ms": START_MS + DAY_MS}),
            ("/v1/tenants/bolt/keys", key),
            ("/v1/cloudlets", edge | {"region": "south"}),
            ("/v1/cloudlets", edge | key),
        ):
            assert (await place.ask("noc", "POST", path, body, place.nonce())).status_code == 409
        key_id = known["keys"][0]["key_id"]
        await place.want("noc", "DELETE", f"/v1/tenants/acme/keys/{key_id}")
        gone = await place.ask("noc", "POST", "/v1/tenants/acme/keys", key, place.nonce())
        assert gone.status_code == 409

    play(url, tmp_path, scenario)
