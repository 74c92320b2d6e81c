"""`packetcloud rule check --config`: the answer of an installation, without the router."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.cli.main import main
from packetcloud.router.config import RouterConfig
from packetcloud.router.rules.keeper import Keeper
from packetcloud.router.rules.policy import policy_of

OPEN, CLOSED, ELSEWHERE = "07" * 20, "08" * 20, "09" * 20
UNTIL = "2098-01-01T00:00:00Z"
NOW_S = 1_800_000_000.0
Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders that are thrown away are made here, so that one that is left is seen."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command: exit code, JSON on standard output, errors."""

    def ask(*words: object) -> tuple[int, Any, str]:
        code = main(["--format", "json", "rule", *map(str, words)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return ask


@pytest.fixture
def isp(tmp_path: Path) -> Identity:
    return create_identity_file(tmp_path / "isp.key")


@pytest.fixture
def tenant(tmp_path: Path) -> Identity:
    return create_identity_file(tmp_path / "tenant.key")


@pytest.fixture
def config(tmp_path: Path, isp: Identity) -> Path:
    create_identity_file(tmp_path / "router.key")
    path = tmp_path / "router.toml"
    path.write_text(
        f'[router]\nname = "r1"\nkey_file = "router.key"\nna = 1\n'
        f'[rules]\npath = "rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
        f"max_signer_rules = 2\nmax_document_bytes = 4096\n"
        f'[[service]]\nsid = "{OPEN}"\nname = "open"\nrules_from = "anyone"\n'
        f'[[service]]\nsid = "{CLOSED}"\nname = "closed"\n'
    )
    return path


def _signed(run: Run, folder: Path, key: str, *rules: tuple[str, str, str], head: str = "") -> Path:
    """Write and sign a document: name, service and destination of each rule."""
    written, signed = folder / "r.toml", folder / "r.signed"
    items = "".join(
        f'[[rule]]\nname = "{name}"\nservice = "{service}"\ndestination = "{destination}"\n'
        for name, service, destination in rules
    )
    head = head or 'audience = "any"'
    written.write_text(
        f'format = "packetcloud-rules-1"\nset = "s"\nserial = 1\n{head}\nvalid_until = {UNTIL}\n'
        + items
    )
    code, _, err = run("sign", written, "--key", folder / key, "-o", signed)
    assert code == 0, err
    return signed


def test_each_item_is_judged_by_the_config(
    run: Run, tmp_path: Path, config: Path, tenant: Identity, scratch: Path
) -> None:
    """Services, signers and limits are those of the router, and the answer is the one that an
    installation there gives."""
    mine = tenant.guid.hex
    document = _signed(
        run, tmp_path, "tenant.key", ("good", OPEN, mine), ("theirs", CLOSED, mine),
        ("far", ELSEWHERE, mine), ("foreign", OPEN, "0a" * 20),
    )  # fmt: skip
    code, refused, _ = run("check", document, "--config", config)
    assert (code, refused["refused"]["reason"]) == (1, "too many rules")
    config.write_text(config.read_text().replace("max_signer_rules = 2", "max_signer_rules = 4"))
    code, told, _ = run("check", document, "--config", config, "--at", "2027-01-15T08:00:00Z")
    assert code == 1
    assert {one["name"]: one["reason"] for one in told["items"]} == {
        "good": "", "theirs": "no proof", "far": "no proof", "foreign": "no proof"
    }  # fmt: skip
    assert (told["accepted"], told["refused"], told["is_own"]) == (1, 3, False)
    assert told["unlisted_services"] == [{"service": ELSEWHERE, "rules": 1}]
    loaded = RouterConfig.load(config)
    folder = tmp_path / "rules"
    folder.mkdir()
    keeper = Keeper(folder, lambda: NOW_S)
    keeper.open(policy_of(loaded.settings, loaded.rules), 0)
    installed = keeper.install(document, is_dry_run=False, in_force=0)["outcome"]
    keeper.close()
    assert {key: told[key] for key in installed if key in told} == {
        key: value for key, value in installed.items() if key != "is_dry_run"
    }
    assert not list(scratch.iterdir()), "nothing is left behind"


def test_the_isp_of_the_config(run: Run, tmp_path: Path, config: Path, isp: Identity) -> None:
    """Its key may say everything; a service that may attach unlisted is no news."""
    document = _signed(run, tmp_path, "isp.key", ("far", ELSEWHERE, "0a" * 20))
    code, told, _ = run("check", document, "--config", config)
    assert (code, told["accepted"], told["is_own"]) == (0, 1, True)
    assert told["router"] == RouterConfig.load(config).settings.guid.hex
    assert told["unlisted_services"] == [{"service": ELSEWHERE, "rules": 1}]
    config.write_text(config.read_text() + '[services]\nunlisted = "accept"\n')
    code, told, _ = run("check", document, "--config", config)
    assert (code, told["unlisted_services"]) == (0, [])


@pytest.mark.parametrize(
    ("head", "more", "reason"),
    [
        (f'audience = ["{"0b" * 20}"]', (), "wrong audience"),
        ("", ("--at", "2099-01-01T00:00:00Z"), "expired"),
    ],
)
def test_a_document_that_is_refused_as_a_whole(
    run: Run, tmp_path: Path, config: Path, head: str, more: tuple[str, ...], reason: str
) -> None:
    """The reason is the router's, and the exit code says no."""
    document = _signed(run, tmp_path, "isp.key", ("far", OPEN, "0a" * 20), head=head)
    code, told, _ = run("check", document, "--config", config, *more)
    assert (code, told["refused"]["reason"]) == (1, reason)


def test_an_unsigned_document(run: Run, tmp_path: Path, config: Path) -> None:
    """No router takes it."""
    _signed(run, tmp_path, "isp.key", ("far", OPEN, "0a" * 20))
    code, told, _ = run("check", tmp_path / "r.toml", "--config", config)
    assert (code, told["refused"]["reason"]) == (1, "unsigned")


def test_what_cannot_be_asked(run: Run, tmp_path: Path, config: Path, isp: Identity) -> None:
    """Too long a document, a router without rules, two answers to one question: exit code 2."""
    document = _signed(run, tmp_path, "isp.key", ("far", OPEN, "0a" * 20))
    text = config.read_text()
    long = tmp_path / "long"
    long.write_bytes(bytes(4097))
    bare = tmp_path / "bare.toml"
    bare.write_text(text[: text.index("[rules]")])
    for words, expected in (
        ((long, "--config", config), "over 4096 bytes, [rules] max_document_bytes"),
        ((document, "--config", bare), "it has no [rules]"),
        ((document, "--config", tmp_path / "absent"), "absent"),
        ((document, "--config", config, "--router-key", isp.public_key.hex()), "leave them out"),
    ):
        code, out, err = run("check", *words)
        assert (code, out) == (2, None)
        assert expected in err


def test_the_table(
    capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path, config: Path, isp: Identity
) -> None:
    """People see what was accepted, and which service is missing."""
    document = _signed(run, tmp_path, "isp.key", ("far", ELSEWHERE, "0a" * 20))
    assert main(["rule", "check", str(document), "--config", str(config)]) == 0
    out = capsys.readouterr().out
    for words in ("router r1", "accepted 1", "refused 0", "Service that the config does not list"):
        assert words in " ".join(out.split())
