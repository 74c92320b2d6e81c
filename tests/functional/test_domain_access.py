"""Who gets in: every endpoint by every verb for every role, and each way not to be let in."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest

from packetcloud.domain_controller.api.access import (
    ACCESS,
    OPEN,
    RULES_BODY_BYTES,
    SMALL_BODY_BYTES,
)
from packetcloud.domain_controller.api.problems import MEDIA_TYPE, TYPE_PREFIX
from packetcloud.domain_controller.api.signatures import CLOCK_SKEW_S, VALIDITY_S
from packetcloud.domain_controller.core.principals import Role
from tests.functional.domain_place import AUTHORITY, CALLERS, WISH, Place

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS = sorted({path for _, path in ACCESS})
IN_A_PATH = {
    "name": "acme",
    "key_id": "ab" * 20,
    "sid": "cd" * 20,
    "rules_id": "rules-1",
    "reservation_id": "r-1",
    "operation_id": "op-1",
    "bill_id": "b-1",
    "version": "1",
}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/tenants"): {"name": "cobra"},
    ("PATCH", "/v1/tenants/{name}"): {"is_open": True},
    ("POST", "/v1/tenants/{name}/keys"): {"public_key": "ef" * 32},
    ("POST", "/v1/cloudlets"): {"name": "edge-2", "region": "north", "public_key": "01" * 32},
    ("PATCH", "/v1/cloudlets/{name}"): {"is_open": True},
    ("POST", "/v1/cloudlets/{name}/keys"): {"public_key": "23" * 32},
    ("PUT", "/v1/vi-types/{name}"): {"milli_cpus": 1, "memory_bytes": 1, "disk_bytes": 1},
    ("POST", "/v1/quotes"): WISH,
    ("POST", "/v1/calendar"): {"wish": WISH, "until_ms": WISH["slot"]["end_ms"]},  # type: ignore[index]
    ("POST", "/v1/advice"): {
        "chunks_per_s": 1,
        "measured": [{"vi_type": "small", "chunks_per_s": 1}],
    },
    ("POST", "/v1/reservations"): WISH,
    ("POST", "/v1/bills"): {"tenant": "acme", "end_ms": 1},
}


def kind_of(response: httpx.Response) -> str:
    """Return the word for the kind of a problem."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text
    document = response.json()
    assert document["status"] == response.status_code
    assert document["title"] and document["detail"]
    return str(document["type"]).removeprefix(TYPE_PREFIX)


def filled(path: str) -> str:
    return path.format(**IN_A_PATH)


def test_the_table_names_what_the_app_has() -> None:
    """No endpoint without a line, no line without an endpoint."""
    there = {
        (method.upper(), path)
        for path, item in Place().made.app.openapi()["paths"].items()
        for method in item
    }
    assert there == set(ACCESS) | set(OPEN)


def test_readers_change_nothing() -> None:
    """Auditors have no endpoint that changes something; cloudlets only what all may read."""
    for (method, path), access in ACCESS.items():
        if access.changes:
            assert Role.AUDITOR not in access.roles, (method, path)
            assert Role.CLOUDLET not in access.roles, (method, path)
        assert access.changes or method in ("GET", "POST")


@pytest.mark.parametrize("who", [*CALLERS, None])
def test_every_endpoint_by_every_verb(who: str | None) -> None:
    """A 2xx only where the table has this role; never a 5xx; every no is a problem."""

    async def scenario() -> None:
        place = Place()
        for path, verb in itertools.product([*PATHS, "/healthz", "/metrics", "/", "/v1"], VERBS):
            if path == "/v1/events" and verb == "GET":
                continue  # it does not end by itself: test_domain_events
            body = BODIES.get((verb, path))
            key = "a-key-of-a-test" if verb == "POST" else None
            got = await place.ask(who, verb, filled(path), body, key)
            where = f"{who} {verb} {path}: {got.status_code}"
            assert got.status_code < 500, where
            if (verb, path) in OPEN:
                assert got.status_code == 200, where
                continue
            access = ACCESS.get((verb, path))
            if who is None:
                assert got.status_code == 401, where
            elif access is None:
                assert got.status_code in (404, 405), where
            elif CALLERS[who] not in access.roles:
                assert got.status_code == 403, where
            else:
                assert got.status_code not in (401, 403, 405), where
            if not got.is_success and verb != "HEAD":
                kind_of(got)

    asyncio.run(scenario())


def test_what_is_somebody_elses_is_not_there() -> None:
    """Another tenant's things answer as things that do not exist, by every endpoint."""

    async def scenario() -> None:
        place = Place()
        made = await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        operation = made.json()
        names = {
            **IN_A_PATH,
            "reservation_id": operation["subject"],
            "operation_id": operation["id"],
            "key_id": place.keys["acme"].guid.hex,
        }
        bodies: dict[str, Any] = {
            "extend": {"end_ms": 1},
            "resize": {"count": 1},
            "keys": {"public_key": "ef" * 32},
        }
        theirs = [
            (verb, path)
            for (verb, path), access in ACCESS.items()
            if (
                Role.TENANT in access.roles
                and any(
                    f"{{{name}}}" in path for name in ("reservation_id", "operation_id", "key_id")
                )
            )
            or (path.startswith("/v1/tenants/{name}") and Role.TENANT in access.roles)
        ]
        assert len(theirs) >= 9
        for verb, path in theirs:
            body = bodies.get(path.rpartition("/")[2]) if verb == "POST" else None
            absent = path.format(**{key: value[:-1] + "7" for key, value in names.items()})
            at_theirs = await place.ask("bolt", verb, path.format(**names), body, "key-of-bolt")
            at_nothing = await place.ask("bolt", verb, absent, body, "key-of-bolt")
            assert at_theirs.status_code == at_nothing.status_code == 404, (verb, path)
            assert kind_of(at_theirs) == kind_of(at_nothing)
        for path, name in (("/v1/reservations", "reservations"), ("/v1/tenants", "tenants")):
            listed = (await place.ask("bolt", "GET", path)).json()[name]
            assert [one.get("owner", one.get("name")) for one in listed] in ([], ["bolt"])
        for who in ("noc", "auditors", "acme"):
            listed = (await place.ask(who, "GET", "/v1/reservations")).json()["reservations"]
            assert [one["id"] for one in listed] == [operation["subject"]]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("who", "verb", "path"),
    [
        ("acme", "POST", "/v1/reservations"),
        ("acme", "GET", "/v1/status"),
        ("acme", "POST", "/v1/quotes"),
    ],
)
def test_a_replayed_request_is_refused(who: str, verb: str, path: str) -> None:
    """The same bytes a second time: whether it changes something, reads, or asks for a price."""

    async def scenario() -> None:
        place = Place()
        body = None if verb == "GET" else WISH
        request = place.request(who, verb, path, body, {"Idempotency-Key": "key-of-a-test"})
        first, second = await place.send(request), await place.send(request)
        assert first.is_success
        assert second.status_code == 401
        assert kind_of(second) == "signature-replayed"
        assert len(place.state.reservations_by_id) == (1 if path == "/v1/reservations" else 0)
        assert place.made.gate.refused["replayed"] == (0 if first.status_code == 202 else 1)

    asyncio.run(scenario())


def test_the_same_key_gets_the_same_answer() -> None:
    """Signed anew with the same key and body: one reservation. With another body: 409."""

    async def scenario() -> None:
        place = Place()
        first = await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        again = await place.ask("acme", "POST", "/v1/reservations", WISH, "key-of-acme")
        assert (again.status_code, again.content) == (202, first.content)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        other = await place.ask(
            "acme", "POST", "/v1/reservations", WISH | {"count": 3}, "key-of-acme"
        )
        assert (other.status_code, kind_of(other)) == (409, "key-reused")
        path = f"/v1/reservations/{first.json()['subject']}/cancel"
        elsewhere = await place.ask("acme", "POST", path, None, "key-of-acme")
        assert (elsewhere.status_code, kind_of(elsewhere)) == (409, "key-reused")
        assert len(place.state.reservations_by_id) == 1
        theirs = await place.ask("bolt", "POST", "/v1/reservations", WISH, "key-of-acme")
        assert theirs.status_code == 202, "another principal's keys are others"

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [None, "short", "k" * 65, "with space"])
def test_what_asks_for_something_new_needs_a_key(key: str | None) -> None:
    """Without an idempotency key, or with one that is not possible, nothing is made."""

    async def scenario() -> None:
        place = Place()
        headers = {} if key is None else {"Idempotency-Key": key.encode("latin-1")}
        request = httpx.Request(
            "POST", f"http://{AUTHORITY}/v1/reservations", json=WISH, headers=headers
        )
        got = await place.send(_signed(place, request))
        assert got.status_code in (400, 401), got.text
        assert place.state.reservations_by_id == {}

    asyncio.run(scenario())


def test_a_key_that_ends_or_is_revoked_opens_nothing() -> None:
    """From that request on; the operator's own keys stay."""

    async def scenario() -> None:
        place = Place()
        key_id = place.keys["acme"].guid.hex
        assert (await place.ask("acme", "GET", "/v1/status")).is_success
        gone = await place.ask("noc", "DELETE", f"/v1/tenants/acme/keys/{key_id}")
        assert gone.is_success
        refused = await place.ask("acme", "GET", "/v1/status")
        assert (refused.status_code, kind_of(refused)) == (401, "signature-unknown-key")
        place.clock.now_ms += 2 * 10**9
        refused = await place.ask("bolt", "GET", "/v1/status")
        assert (refused.status_code, kind_of(refused)) == (401, "signature-unknown-key")

    asyncio.run(scenario())


def test_an_old_request_is_refused() -> None:
    """And the answer says what time it is here."""

    async def scenario() -> None:
        place = Place()
        request = place.request("acme", "GET", "/v1/status")
        place.clock.now_ms += (VALIDITY_S + CLOCK_SKEW_S) * 1000
        refused = await place.send(request)
        assert (refused.status_code, kind_of(refused)) == (401, "signature-expired")
        assert "2027-01-15T08:01:30" in refused.json()["detail"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "most"), [("/v1/quotes", SMALL_BODY_BYTES), ("/v1/rules", RULES_BODY_BYTES)]
)
def test_a_body_has_a_cap(path: str, most: int) -> None:
    """At the cap it is read; one byte more is refused, and of a stranger nothing is read."""

    async def scenario() -> None:
        place = Place()
        for size, is_taken in ((most, True), (most + 1, False)):
            content = b"[" + b" " * (size - 2) + b"]"
            request = httpx.Request(
                "POST",
                f"http://{AUTHORITY}{path}",
                content=content,
                headers={"Content-Type": "application/json", "Idempotency-Key": "key-of-a-test"},
            )
            got = await place.send(_signed(place, request))
            assert got.status_code == (400 if is_taken else 413), got.text
            assert kind_of(got) == ("invalid" if is_taken else "too-large")

        async def no_body() -> Any:
            raise AssertionError("a stranger's body was asked for")

        answers: list[Any] = []

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", AUTHORITY.encode()), (b"content-length", b"100")],
        }
        await place.made.gate(scope, no_body, send)
        assert answers[0]["status"] == 401

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "body: missing"),
        (b"{", "no JSON"),
        (b'{"name": "acme-2", "role": "isp"}', "body.role: unknown field"),
        (b'{"name": "Acme"}', "body.name"),
        (b'{"name": 7}', "body.name"),
        (b'{"name": "a", "title": null}', "body.title"),
        (b'["name"]', "body"),
        (b"\xff\xfe", "no JSON"),
        (b'{"name": "a", "is_open": false, "x": 1, "y": 2}', "and 2 more"),
    ],
)
def test_a_body_that_is_not_allowed(content: bytes, detail: str) -> None:
    """One readable sentence; a field that nobody may set is refused, not ignored."""

    async def scenario() -> None:
        place = Place()
        headers = {"Content-Type": "application/json", "Idempotency-Key": "key-of-a-test"}
        request = httpx.Request(
            "POST", f"http://{AUTHORITY}/v1/tenants", content=content, headers=headers
        )
        got = await place.send(_signed(place, request, "noc"))
        assert (got.status_code, kind_of(got)) == (400, "invalid")
        assert detail in got.json()["detail"], got.text
        assert set(place.state.tenants_by_name) == {"acme", "bolt"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"count": 0}, 400),
        ({"count": -1}, 400),
        ({"count": 10**30}, 400),
        ({"count": 1.5}, 400),
        ({"count": 2.0**60}, 400),
        ({"count": True}, 400),
        ({"count": "2"}, 400),
        ({"count": None}, 400),
        ({"max_price_micros": -1}, 400),
        ({"max_price_micros": 1 << 62}, 400),
        ({"slot": {"begin_ms": -1, "end_ms": 1}}, 400),
        ({"slot": {"begin_ms": 0, "end_ms": 10**15}}, 400),
        ({"slot": {"begin_ms": 2, "end_ms": 1}}, 422),
        ({"slot": {"begin_ms": 0, "end_ms": 999}}, 422),
        ({"slot": WISH["slot"] | {"repeat": {"every": "day"}}}, 422),  # type: ignore[operator]
        ({"slot": WISH["slot"] | {"repeat": {"every": "day", "count": 367}}}, 400),  # type: ignore[operator]
        ({"slot": WISH["slot"] | {"repeat": {"every": "hour", "count": 1}}}, 400),  # type: ignore[operator]
        ({"constraints": {"near": {}}}, 422),
        ({"constraints": {"near": {"host": "ab" * 20, "na": 1}}}, 422),
        ({"constraints": {"spread": 3}}, 422),
        ({"owner": "bolt"}, 400),
        ({"state": "active"}, 400),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/quotes"])
def test_a_wish_that_is_not_possible(change: dict[str, Any], status: int, path: str) -> None:
    """400 where the description of the API is broken, 422 where only the values do not fit."""

    async def scenario() -> None:
        place = Place()
        got = await place.ask("acme", "POST", path, WISH | change, "key-of-acme")
        assert got.status_code == status, got.text
        assert kind_of(got) == ("invalid" if status == 400 else "not-possible")
        assert place.state.reservations_by_id == {}

    asyncio.run(scenario())


def test_an_integer_may_be_written_with_a_fraction_of_zero() -> None:
    """2.0 is 2, as JSON Schema has it."""

    async def scenario() -> None:
        place = Place()
        got = await place.ask("acme", "POST", "/v1/reservations", WISH | {"count": 2.0}, "key-1234")
        assert got.status_code == 202, got.text
        (kept,) = place.state.reservations_by_id.values()
        assert type(kept.count) is int

    asyncio.run(scenario())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none(number: str) -> None:
    """What Python's reader of JSON takes and JSON does not have."""

    async def scenario() -> None:
        place = Place()
        content = json.dumps(WISH).replace('"count": 2', f'"count": {number}').encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": "key-of-a-test"}
        request = httpx.Request(
            "POST", f"http://{AUTHORITY}/v1/reservations", content=content, headers=headers
        )
        got = await place.send(_signed(place, request))
        assert (got.status_code, kind_of(got)) == (400, "invalid")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1_0",
        "limit=%201",
        "limit=1.0",
        "cursor=",
        "cursor=%00",
        "state=open",
        "limit=-1",
    ],
)
def test_a_query_that_is_not_allowed(query: str) -> None:
    """Numbers of a query are decimal digits, whatever else Python reads as one."""

    async def scenario() -> None:
        got = await Place().ask("acme", "GET", f"/v1/reservations?{query}")
        assert (got.status_code, kind_of(got)) == (400, "invalid"), got.text

    asyncio.run(scenario())


def test_a_database_that_is_away_is_said() -> None:
    """503 with a time to come again, before anything is done; also where only the key is asked."""

    async def scenario() -> None:
        place = Place()
        place.state.is_busy = True
        for verb, path in (("GET", "/v1/status"), ("POST", "/v1/reservations")):
            body = WISH if verb == "POST" else None
            got = await place.ask("acme", verb, path, body, "key-of-acme")
            assert (got.status_code, kind_of(got)) == (503, "busy")
            assert int(got.headers["retry-after"]) >= 1

    asyncio.run(scenario())


def test_a_fault_of_ours_tells_nothing() -> None:
    """500 without a word of what broke; the log has it."""

    async def scenario() -> None:
        place = Place()

        def broken(_now_ms: int) -> tuple[int, int]:
            raise RuntimeError("a secret of ours")

        place.state.counts = broken  # type: ignore[method-assign]
        got = await place.ask("acme", "GET", "/v1/status")
        assert (got.status_code, kind_of(got)) == (500, "internal")
        assert "secret" not in got.text

    asyncio.run(scenario())


def test_a_suspended_page_goes_on() -> None:
    """Pages follow each other by their cursor, each thing once."""

    async def scenario() -> None:
        place = Place()
        for number in range(7):
            await place.ask("acme", "POST", "/v1/reservations", WISH, f"key-number-{number}")
        seen: list[str] = []
        cursor = ""
        while True:
            query = f"?limit=3&cursor={cursor}" if cursor else "?limit=3"
            page = (await place.ask("acme", "GET", f"/v1/reservations{query}")).json()
            assert len(page["reservations"]) <= 3
            seen += [one["id"] for one in page["reservations"]]
            if page["cursor"] is None:
                break
            cursor = page["cursor"]
        assert len(seen) == len(set(seen)) == 7

    asyncio.run(scenario())


def _signed(place: Place, request: httpx.Request, who: str = "acme") -> httpx.Request:
    from packetcloud.domain_controller.api.signatures import sign_request

    now_s = place.clock.now_ms / 1000
    sign_request(request, request.read(), place.keys[who], place.nonce(), now_s)
    return request
