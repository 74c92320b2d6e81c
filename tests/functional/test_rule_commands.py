"""`packetcloud rule` against a router that runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.cli.main import main
from packetcloud.router.daemon import RouterDaemon
from packetcloud.router.rules.client import RuleClient
from packetcloud.router.rules.document import Head, line_of
from packetcloud.router.state import format_address
from tests.functional.router_network import Network, run
from tests.functional.test_capture_stream import in_thread
from tests.unit.router.rules.rule_documents import signed


class _Operator:
    """Somebody with a key and commands."""

    def __init__(self, net: Network, folder: Path, service: Identity) -> None:
        self.key_file = folder / "isp.key"
        self.key = create_identity_file(self.key_file)
        self.router: RouterDaemon = net.router(
            f'[rules]\npath = "rules"\nisp_keys = ["{self.key.public_key.hex()}"]\n'
        )
        self._service = service
        self._file = folder / "document"

    def write(self, serial: int, *names: str) -> Path:
        head = Head("web", serial, None, valid_until_s=4e9)
        rules = [line_of({"name": name, "service": self._service.sid.hex}) for name in names]
        self._file.write_bytes(signed(head.to_bytes() + b"".join(rules), self.key))
        return self._file

    async def rule(self, *arguments: str) -> int:
        """Run a command, the router given as HOST:PORT."""
        address = format_address(self.router.management.address)
        code: int = await in_thread(lambda: main(["rule", *arguments, "--url", address]))
        return code

    async def withdraw(self, *names: str) -> int:
        return await self.rule("withdraw", "web", *names, "--key", str(self.key_file))


def test_what_is_not_there_cannot_be_withdrawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name with a mistake is told, with exit code 1; the other names are withdrawn."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp = _Operator(net, tmp_path, Identity.generate())
        await net.until(lambda: isp.router.rules.figures().is_keeper_up)
        assert await isp.rule("install", str(isp.write(1, "a", "b", "c"))) == 0
        assert await isp.withdraw("a") == 0
        capsys.readouterr()
        assert await isp.withdraw("b", "bb") == 1
        printed = capsys.readouterr()
        assert "1 of these rules are not in the set: bb; see: packetcloud rule list" in printed.err
        assert "withdrawn 1" in " ".join(printed.out.split())
        assert await isp.rule("list", "--format", "json") == 0
        assert '"name": "c"' in capsys.readouterr().out
        assert isp.router.rules.figures().active == 1
        await net.close()

    run(test)


def test_withdrawals_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second has the wrong serial by then, and takes the next one."""
    really_install = RuleClient.install
    isps: list[_Operator] = []
    others: list[int] = []

    def install(client: RuleClient, file: Path, *more: Any, **named: Any) -> Any:
        if len(others) < 2:
            serial = len(others) + 2
            others.append(serial)
            really_install(client, isps[0].write(serial, "x"), lambda _: None)
        return really_install(client, file, *more, **named)

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp = _Operator(net, tmp_path, Identity.generate())
        isps.append(isp)
        await net.until(lambda: isp.router.rules.figures().is_keeper_up)
        assert await isp.rule("install", str(isp.write(1, "a", "b"))) == 0
        monkeypatch.setattr(RuleClient, "install", install)
        assert await isp.withdraw("a") == 0
        assert others == [2, 3]
        assert isp.router.rules.figures().active == 2
        await net.close()

    run(test)


def test_chunks_that_a_rule_in_shadow_mode_would_meet_are_captured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it is made active one sees for which. Its set and name may have slashes, and where
    two signers have such a rule one says whose."""

    async def test(reactor: Any) -> None:
        net = Network(reactor, tmp_path)
        isp, another = (create_identity_file(tmp_path / f"{name}.key") for name in "ab")
        service = Identity.generate()
        keys = ", ".join(f'"{key.public_key.hex()}"' for key in (isp, another))
        router = net.router(f'[rules]\npath = "rules"\nisp_keys = [{keys}]\n')
        address = format_address(router.management.address)
        a, b = await net.host(router), await net.host(router)
        await net.until(lambda: router.rules.figures().is_keeper_up)
        rule = {"name": "b/c", "service": service.sid.hex, "mode": "shadow", "patterns": {}}
        for key, text in ((isp, "good"), (another, "evil")):
            rule |= {"patterns": {"text": text}}
            body = Head("web/a", 1, None, valid_until_s=4e9).to_bytes() + line_of(rule)
            file = tmp_path / text
            file.write_bytes(signed(body, key))
            arguments = ["rule", "install", str(file), "--url", address]
            assert await in_thread(partial(main, arguments)) == 0

        path = tmp_path / "seen.pcapng"
        words = ["chunk", "capture", "--url", address, "--rule", "web/a/b/c", "-o", str(path)]
        capsys.readouterr()
        assert await in_thread(lambda: main(words)) == 2
        assert isp.guid.hex in capsys.readouterr().err
        mine = [*words, "--signer", isp.guid.hex, "--point", "taken", "--count", "1"]
        capture = in_thread(lambda: main(mine))
        await net.until(lambda: router.core.tap.is_on)
        a.send(b.guid, b"evil")
        a.send(b.guid, b"good")
        await net.until(lambda: len(b.received) == 2)
        assert await capture == 0
        await net.close()
        capsys.readouterr()
        assert main(["chunk", "decode", str(path), "--format", "json"]) == 0
        (sighting,) = json.loads(capsys.readouterr().out)["datagrams"]
        assert sighting["comment"] == f"taken; from=host {a.guid}; shadow-rules=1"

    run(test)
