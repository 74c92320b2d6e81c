"""`rule explain` at a router that runs: the door, the VI and the next hop as they are."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.chunk.names import ChunkId
from packetcloud.cli.main import main
from packetcloud.router.rules.explain_schemas import MAX_EXPLAINED_PAYLOAD_BYTES
from packetcloud.router.state import format_address
from tests.functional.router_network import Network, run
from tests.functional.test_capture_stream import in_thread
from tests.unit.router.router_fakes import guid


def test_a_router_explains_what_it_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VI, next hop and refusals; the next chunk of two hosts when it comes; nothing is counted."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        router = net.router()
        a, b = await net.host(router), await net.host(router)
        key = Identity.generate()
        await net.vi(router, key)
        address = format_address(router.management.address)

        async def explain(*options: str, code: int = 0) -> dict[str, Any]:
            words = ["rule", "explain", "--url", address, *options, "--format", "json"]
            assert await in_thread(lambda: main(words)) == code
            found: dict[str, Any] = json.loads(capsys.readouterr().out)
            return found

        fields = ("--source", a.guid.hex, "--destination", b.guid.hex)
        told = await explain(*fields, "--sid", key.sid.hex)
        assert [(one["vi"], one["is_asked"]) for one in told["steps"]] == [(1, True)]
        assert told["next_hop"] == f"host {b.guid.short} ({b.guid.hex})"
        assert (told["ingress_role"], told["rules"]) == ("host", None)
        told = await explain("--source", a.guid.hex, "--destination", guid("x").hex, code=1)
        assert told["refused"] == "unresolvable_guid"
        told = await explain(*fields, "--ingress", b.guid.hex, code=1)
        assert told["refused"] == "not_authorised"
        told = await explain(*fields, "--ingress", key.sid.hex, code=1)
        assert told["refused"] == "not_authorised"
        url = f"http://{address}/v1/rules/explain"
        header = ChunkHeader(a.guid, b.guid, ChunkId(1), 3).to_bytes().hex()
        good = {"header": header, "ingress": a.guid.hex, "payload": "YWJj"}
        answer = await in_thread(lambda: httpx.post(url, json=good))
        assert (answer.status_code, answer.json()["refused"]) == (200, None)
        bad_header = {"header": "01" * 88}
        answer = await in_thread(lambda: httpx.post(url, json=good | bad_header))
        assert (answer.status_code, answer.json()["refused"]) == (200, "malformed")
        wrongs: list[dict[str, object]] = [
            {"payload": "no base64!"},
            {"payload": "YWJj" * (MAX_EXPLAINED_PAYLOAD_BYTES // 3 + 4)},
            {"header": "0102"},
            {"ingress": "61"},
            {"more": 1},
        ]
        for wrong in wrongs:
            answer = await in_thread(partial(httpx.post, url, json=good | wrong))
            assert answer.status_code == 422
            assert next(iter(wrong)) in answer.text
        assert router.core.door.flow_misses_count == 0
        assert not router.core.door.refusals
        live = in_thread(
            lambda: main(["rule", "explain", "--url", address, "--live", a.guid.hex, b.guid.hex])
        )
        await net.until(lambda: router.core.tap.is_on)
        a.send(b.guid, b"x" * 100_000, key.sid)
        assert await live == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f"comes from host {a.guid.hex}" in out
        assert "VI 1: slot 0 of 1, by the hash of the flow" in out
        await net.close()

    run(test)


RULES = """\
format = "packetcloud-rules-1"
set = "web"
serial = 1
audience = "any"

[[rule]]
name = "words"
service = "{sid}"
destination = "{to}"
patterns = {{ text = "secret" }}

[[rule]]
name = "small"
service = "{sid}"
destination = "{to}"
action = "pass"
size_max = 3

[[rule]]
name = "elsewhere"
service = "{other}"
source = "{to}"
"""


def test_a_router_with_rules_explains_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rules in force, what each misses, which led to a service; and a capture by rule."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        key, isp = Identity.generate(), create_identity_file(tmp_path / "isp.key")
        router = net.router(
            f'[rules]\npath = "rules"\nisp_keys = ["{isp.guid}"]\n'
            f'[[service]]\nsid = "{key.sid}"\nname = "ids"\n'
        )
        a, b = await net.host(router), await net.host(router)
        await net.vi(router, key)
        address = format_address(router.management.address)

        async def run_command(*words: object, code: int = 0) -> str:
            assert await in_thread(lambda: main([str(word) for word in words])) == code
            return capsys.readouterr().out

        written = tmp_path / "web.toml"
        written.write_text(RULES.format(sid=key.sid, to=b.guid, other="77" * 20))
        rules = tmp_path / "web.rules"
        await run_command("rule", "sign", written, "--key", tmp_path / "isp.key", "-o", rules)
        await net.until(lambda: router.rules.link is not None and router.rules.link.is_up)
        await run_command("rule", "install", rules, "--url", f"http://{address}")
        payload = tmp_path / "payload"
        payload.write_bytes(b"a secret")
        fields = ("--source", a.guid, "--destination", b.guid, "--format", "json")
        words = ("rule", "explain", "--url", address, *fields)
        told = json.loads(await run_command(*words, "--payload-file", payload))
        found = {one["name"]: one["missed"] or one["outcome"] for one in told["rules"]["findings"]}
        assert found == {"words": "decides", "small": "size", "elsewhere": "decides"}
        assert told["rules"]["version"] == 1
        assert [(one["rule"], one["vi"]) for one in told["steps"]] == [("web/words", 1)]
        (note,) = told["notes"]
        assert note.startswith("rule web/elsewhere leads to service 7777")
        told = json.loads(await run_command(*words, "--size", "100"))
        assert (told["steps"], told["rules"]["has_payload"]) == ([], False)
        told = json.loads(await run_command(*words))
        found = {one["name"]: one["missed"] or one["outcome"] for one in told["rules"]["findings"]}
        assert found["small"] == "decides"
        assert router.core.rule_counts.of(1) == (0, 0)

        path = tmp_path / "seen.pcapng"
        options = ("--rule", "web/words", "--count", "4", "-o", path)
        capture = in_thread(
            lambda: main(["chunk", "capture", "--url", address, *map(str, options)])
        )
        await net.until(lambda: router.core.tap.is_on)
        a.send(b.guid, b"nothing")
        a.send(b.guid, b"the secret")
        await net.until(lambda: len(b.received) == 2)
        assert await capture == 0
        out = await run_command("chunk", "decode", path)
        assert out.count("rules=1,3") == 4 or out.count("rules=3,1") == 4
        assert router.core.rule_counts.of(1) == (1, 0)
        await net.close()

    run(test)
