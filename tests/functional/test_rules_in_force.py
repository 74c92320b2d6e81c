"""A whole router with rules on loopback: what it acknowledged decides about the next chunk."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.grants import issue_grant
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.revocations import revoke_grant
from packetcloud.chunk.timestamps import time_text
from packetcloud.router import rule_service
from packetcloud.router.errors import RulesUnavailableError
from packetcloud.router.rules.document import Head, line_of
from tests.functional.router_network import ManagementClient, Network, run
from tests.unit.router.rules.rule_documents import signed

UNTIL_S = 4e9


class _Api(ManagementClient):
    """The part that is about rules."""

    async def install(self, document: bytes, **more: Any) -> httpx.Response:
        return await self.ask("POST", "/v1/rules", content=document, **more)


def _document(isp: Identity, serial: int, *items: dict[str, Any]) -> bytes:
    head = Head("set", serial, None, valid_until_s=UNTIL_S)
    return signed(head.to_bytes() + b"".join(map(line_of, items)), isp)


def test_what_is_acknowledged_decides_about_the_next_chunk(tmp_path: Path) -> None:
    """Installed: the next chunk visits the service. Withdrawn: the next one does not. After a stop
    and a start of the router, and while its keeper is dead, the rules are in force as before."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, service = Identity.generate(), Identity.generate()
        config = (
            f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
            f'[[service]]\nsid = "{service.sid}"\nname = "s"\n'
        )
        router = net.router(config)
        api = _Api(router)
        a, b = await net.host(router), await net.host(router)
        await net.vi(router, service, b"<s>")
        await net.until(lambda: router.rules.figures().is_keeper_up)

        async def crosses(payload: bytes, sender: Any, receiver: Any) -> bytes:
            count = len(receiver.received)
            sender.send(receiver.guid, payload)
            await net.until(lambda: len(receiver.received) > count)
            arrived: bytes = receiver.received[-1][1]
            return arrived

        visit = {"name": "r", "service": service.sid.hex, "destination": b.guid.hex}
        for serial in (1, 3, 5):
            assert await crosses(b"x", a, b) == b"x"
            answer = await api.install(_document(isp, serial, visit))
            assert answer.status_code == 200 and answer.json()["accepted"] == 1
            assert await crosses(b"x", a, b) == b"x<s>"
            assert await crosses(b"y", b, a) == b"y<s>"
            answer = await api.install(_document(isp, serial + 1, {"withdraw": "r"}))
            assert answer.json()["withdrawn"] == 1
        text = {"name": "r", "service": service.sid.hex, "patterns": {"text": "evil"}}
        assert (await api.install(_document(isp, 7, text))).status_code == 200
        assert await crosses(b"good", a, b) == b"good"
        assert await crosses(b"evil", a, b) == b"evil<s>"
        detail = (await api.ask("GET", "/v1/rules/rule?set=set&name=r")).json()
        assert detail["rule"]["hits"] == 1 and detail["serial"] == 7

        assert router.rules.link is not None and router.rules.link.process_id is not None
        os.kill(router.rules.link.process_id, signal.SIGKILL)
        assert await crosses(b"evil", a, b) == b"evil<s>"
        await net.until(lambda: router.rules.figures().keeper_restarts == 1)

        for end in net.ends:
            await end.node.close()
        net.ends.clear()
        await router.stopService()
        net.routers.clear()
        again = net.start(tmp_path / "r1.toml")
        a, b = await net.host(again), await net.host(again)
        await net.vi(again, service, b"<s>")
        assert await crosses(b"evil", a, b) == b"evil<s>"
        assert await crosses(b"good", a, b) == b"good"
        await net.close()

    run(test)


def test_what_a_rule_counted_is_forgotten_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the router itself, now and then, for the rules that are gone and for no other."""
    monkeypatch.setattr(rule_service, "TIDY_S", 0.01)

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, service = Identity.generate(), Identity.generate()
        router = net.router(
            f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
            f'[[service]]\nsid = "{service.sid}"\nname = "s"\n'
        )
        api = _Api(router)
        a, b = await net.host(router), await net.host(router)
        await net.vi(router, service, b"<s>")
        await net.until(lambda: router.rules.figures().is_keeper_up)
        visits = [
            {"name": name, "service": service.sid.hex, "destination": to.guid.hex}
            | {"direction": "forward"}
            for name, to in (("to-a", a), ("to-b", b))
        ]
        assert (await api.install(_document(isp, 1, *visits))).json()["accepted"] == 2
        a.send(b.guid)
        b.send(a.guid)
        await net.until(lambda: a.received and b.received)
        assert [router.core.rule_counts.of(number) for number in (1, 2)] == [(1, 0), (1, 0)]
        await api.install(_document(isp, 2, {"withdraw": "to-a"}))
        await net.until(lambda: router.core.rule_counts.of(1) == (0, 0))
        detail = (await api.ask("GET", "/v1/rules/rule?set=set&name=to-b")).json()
        assert detail["rule"]["hits"] == 1
        await net.close()

    run(test)


def test_a_revoked_grant_ends_its_rules_with_the_next_chunk(tmp_path: Path) -> None:
    """Brought by anybody; the rule is shown as revoked, and counted, and its grant is refused."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        service, owner, tenant = (Identity.generate() for _ in range(3))
        router = net.router(
            f'[rules]\npath = "rules"\n[[service]]\nsid = "{service.sid}"\nname = "s"\n'
            'rules_from = "anyone"\n'
        )
        api = _Api(router)
        a = await net.host(router)
        b = await net.host(router, identity=owner)
        await net.vi(router, service, b"<s>")
        await net.until(lambda: router.rules.figures().is_keeper_up)
        now_s = int(time.time())
        given = issue_grant(
            owner, tenant.public_key, frozenset({owner.guid.value}), None, now_s - 10,
            now_s + 1000, nonce=bytes(16),
        )  # fmt: skip
        rule = {"name": "r", "service": service.sid.hex, "destination": owner.guid.hex}

        def document(serial: int) -> bytes:
            head = Head("set", serial, None, valid_until_s=now_s + 500.0)
            return signed(head.to_bytes() + line_of(rule), tenant, [given])

        assert (await api.install(document(1))).json()["accepted"] == 1
        a.send(b.guid, b"x")
        await net.until(lambda: b.received)
        assert b.received[-1][1] == b"x<s>"

        wrong = revoke_grant(tenant, replace(given, issuer=tenant.public_key))
        path = "/v1/rules/revocations"
        answer = await api.ask("POST", path, content=wrong.to_bytes())
        assert (answer.status_code, answer.json()["reason"]) == (422, "forged")
        revocation = revoke_grant(owner, given).to_bytes()
        answer = await api.ask("POST", path, content=revocation)
        assert answer.json() | {"is_new": True, "rules": 1, "version": 2} == answer.json()
        a.send(b.guid, b"y")
        await net.until(lambda: len(b.received) > 1)
        assert b.received[-1][1] == b"y"

        shown = (await api.ask("GET", "/v1/rules/rule?set=set&name=r")).json()["rule"]
        assert (shown["state"], shown["revoked_grant"]) == ("revoked", given.digest.hex())
        again = await api.install(document(2))
        assert again.json()["reasons"] == {"revoked": 1}
        metrics = (await api.ask("GET", "/metrics")).text
        assert "packetcloud_router_rules_revoked 1.0" in metrics
        assert "packetcloud_router_rule_revocations_total 1.0" in metrics
        assert 'rule_revocations_refused_total{reason="forged"} 1.0' in metrics
        await net.close()

    run(test)


def test_a_list_says_which_rules_are_in_force(tmp_path: Path) -> None:
    """One that has not begun or has ended is there, and is not in force; the time may come from the
    head of its document. Pages end and go on between any two rules."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, service = Identity.generate(), Identity.generate()
        router = net.router(f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n')
        api = _Api(router)
        await net.until(lambda: router.rules.figures().is_keeper_up)
        rule = {"service": service.sid.hex}
        soon_s = time.time() + 0.5
        answer = await api.install(
            _document(
                isp,
                1,
                {"name": "a", **rule, "valid_until": time_text(soon_s)},
                {"name": "b", **rule},
                {"name": "c", **rule, "valid_from": "2096-01-01T00:00:00Z"},
            )
        )
        assert answer.json()["accepted"] == 3
        await net.until(lambda: time.time() > soon_s)
        found, cursor = [], ""
        while True:
            page = (await api.ask("GET", f"/v1/rules?limit=1{cursor}")).json()
            found += page["rules"]
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        states = [(one["name"], one["state"], one["valid_until_s"] == UNTIL_S) for one in found]
        assert states == [("a", "ended", False), ("b", "in force", True), ("c", "not yet", True)]
        assert [one["valid_from_s"] for one in found] == [None, None, 3976214400.0]
        await net.close()

    run(test)


def test_a_key_that_was_taken_back_is_not_believed_by_a_keeper_that_missed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the keeper cannot take the config that was read again nothing is installed; as soon as
    it can, by the next request or by itself, the sets of the key go out of force."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, service = Identity.generate(), Identity.generate()
        config = f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
        router = net.router(config)
        api = _Api(router)
        await net.until(lambda: router.rules.figures().is_keeper_up)
        rule = {"name": "r", "service": service.sid.hex}
        assert (await api.install(_document(isp, 1, rule))).json()["accepted"] == 1

        link = router.rules.link
        assert link is not None
        really_request = link.request
        is_disk_full = True
        asked = []

        async def request(message: dict[str, Any]) -> dict[str, Any]:
            asked.append(message["do"])
            if is_disk_full and message["do"] == "configure":
                raise RulesUnavailableError("the folder of the rules: no space left")
            return await really_request(message)

        monkeypatch.setattr(link, "request", request)
        path = router.state.configuration.path
        path.write_text(path.read_text().replace(isp.public_key.hex(), service.public_key.hex()))
        router.reload()
        await net.until(lambda: asked)
        for _ in range(2):
            answer = await api.install(_document(isp, 2, rule))
            assert answer.status_code == 503
            assert "not in force yet: the folder of the rules: no space" in answer.json()["detail"]
        assert "install" not in asked and router.rules.figures().suspended == 0

        is_disk_full = False
        answer = await api.install(_document(isp, 2, rule))
        assert (answer.status_code, answer.json()["reason"]) == (422, "other owner")
        assert router.rules.figures().suspended == 1
        await net.close()

    run(test)


def test_each_kind_of_no_has_its_status(tmp_path: Path) -> None:
    """Refused as a whole, too long, unknown, unavailable: each with reason and detail."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, stranger = Identity.generate(), Identity.generate()
        router = net.router(
            f'[rules]\npath = "rules"\nisp_keys = ["{isp.guid}"]\nmax_document_bytes = 2000\n'
        )
        api = _Api(router)
        await net.until(lambda: router.rules.figures().is_keeper_up)
        rule = {"name": "r", "service": stranger.sid.hex}
        document = _document(isp, 1, rule)
        dry = await api.install(document, params={"dry_run": True})
        assert (dry.status_code, dry.json()["is_dry_run"], dry.json()["version"]) == (200, True, 0)
        assert (await api.install(document)).json()["version"] == 1
        forged = _document(isp, 2, rule).replace(b'"r"', b'"q"')
        for bad, status, reason in (
            (document, 422, "replayed"),
            (forged, 422, "forged"),
            (b"nothing", 422, "unsigned"),
            (b"x" * 2001, 413, "upload"),
        ):
            answer = await api.install(bad)
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        missing = await api.ask("GET", "/v1/rules/rule?set=set&name=absent")
        assert missing.status_code == 404
        for wrong in (
            "?limit=101",
            "?cursor=nonsense",
            "?cursor=[1]",
            '?cursor=[1, {"a": 2}]',
            '?cursor=[1234567890123456789, ""]',
            '/sets?cursor="a"',
            "/sets?cursor=[1]",
        ):
            answer = await api.ask("GET", f"/v1/rules{wrong}")
            assert answer.status_code == 422, wrong
        figures = router.rules.figures()
        assert figures.documents_refused == {"replayed": 1, "forged": 1, "unsigned": 1}
        assert figures.uploads_refused == 1 and figures.uploads == 0

        plain = _Api(net.router(""))
        for answer in (await plain.install(document), await plain.ask("GET", "/v1/rules")):
            assert answer.status_code == 503 and "no [rules]" in answer.json()["detail"]
        await net.close()

    run(test)
