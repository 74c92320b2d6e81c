"""`rule explain` at a router that runs: the door, the VI and the next hop as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.cli.main import main
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
        assert router.core.flow_misses_count == 0
        assert not router.core.door_refusals
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
