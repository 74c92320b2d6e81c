"""`packetcloud rule sign|check|grant`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.grants import Grant
from packetcloud.chunk.identity import Identity, create_identity_file
from packetcloud.cli.main import main
from packetcloud.router.rules.errors import RulesRefusedError
from packetcloud.router.rules.signed import open_signed

SERVICE = "07" * 20
UNTIL = "2098-01-01T00:00:00Z"
Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command: exit code, JSON on standard output, errors."""

    def ask(*words: object) -> tuple[int, Any, str]:
        code = main(["--format", "json", "rule", *map(str, words)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else None, captured.err

    return ask


@pytest.fixture
def owner(tmp_path: Path) -> Identity:
    return create_identity_file(tmp_path / "owner.key")


@pytest.fixture
def tenant(tmp_path: Path) -> Identity:
    return create_identity_file(tmp_path / "tenant.key")


def _write(path: Path, owner: Identity, more: str = "") -> Path:
    path.write_text(
        f'format = "packetcloud-rules-1"\nset = "s"\nserial = 1\naudience = "any"\n'
        f'valid_until = {UNTIL}\nwithdraw = ["old"]\n'
        f'[[rule]]\nname = "web"\nservice = "{SERVICE}"\ndestination = "{owner.guid.hex}"\n'
        f"valid_until = 2097-01-01T00:00:00+01:00\n{more}"
    )
    return path


def test_a_tenant_signs_with_a_grant(
    run: Run, tmp_path: Path, owner: Identity, tenant: Identity
) -> None:
    """Grant, sign, check with proof: the way of a third party, without any router."""
    rules = _write(tmp_path / "r.toml", owner)
    granted = tmp_path / "grant.json"
    code, facts, _ = run(
        "grant", "--key", tmp_path / "owner.key", "--to", tenant.public_key.hex(),
        "--service", SERVICE, "--until", "2099-01-01T00:00:00Z", "-o", granted,
    )  # fmt: skip
    assert (code, facts["names"], facts["services"]) == (0, [owner.guid.hex], [SERVICE])
    assert Grant.from_text(granted.read_bytes()).to == tenant.public_key
    signed = tmp_path / "r.signed"
    tenant_key = tmp_path / "tenant.key"
    code, facts, _ = run("sign", rules, "--key", tenant_key, "--grant", granted, "-o", signed)
    assert (code, facts["rules"], facts["withdrawals"]) == (0, 1, 1)
    assert facts["signer"] == tenant.guid.hex
    code, facts, _ = run("check", signed, "--open-service", SERVICE)
    assert (code, facts["rules"], facts["refused"], facts["by_the_ISP"]) == (0, 1, 0, False)
    code, facts, _ = run("check", signed, "--at", "2027-01-01T00:00:00Z")
    assert code == 1
    assert facts["items"][0]["text"].startswith(f'item 1 "web": no proof: service {SERVICE}')
    code, facts, _ = run("check", signed, "--router-key", tenant_key)
    assert (code, facts["by_the_ISP"]) == (0, True)
    code, facts, _ = run("check", signed, "--router-key", tenant_key, "--at", UNTIL)
    assert (code, facts["refused"].split(":")[0]) == (1, "expired")


def test_grant_to_a_key_file_for_any_service(
    run: Run, tmp_path: Path, owner: Identity, tenant: Identity
) -> None:
    """`--to` takes a key file too, and `--name` other names than that of the key."""
    out = tmp_path / "g"
    code, facts, _ = run(
        "grant", "--key", tmp_path / "tenant.key", "--to", tmp_path / "owner.key",
        "--name", owner.guid.hex, "--name", SERVICE, "--any-service", "--may-delegate",
        "--from", "2026-01-01T00:00:00Z", "--until", UNTIL, "-o", out,
    )  # fmt: skip
    assert code == 0
    grant = Grant.from_text(out.read_bytes())
    assert grant.is_genuine
    assert grant.may_delegate
    assert grant.services is None
    assert grant.names == {owner.guid.value, bytes.fromhex(SERVICE)}
    assert facts["services"] == "any"


@pytest.mark.parametrize("services", [(), ("--any-service", "--service", SERVICE)])
def test_a_grant_says_which_services(
    run: Run, tmp_path: Path, owner: Identity, services: tuple[str, ...]
) -> None:
    """Neither nothing nor both."""
    code, _, err = run(
        "grant", "--key", tmp_path / "owner.key", "--to", "00" * 32, *services,
        "--until", UNTIL, "-o", tmp_path / "g",
    )  # fmt: skip
    assert code == 2
    assert "one of --service and --any-service" in err
    assert not (tmp_path / "g").exists()


def test_nothing_is_signed_that_would_be_refused(run: Run, tmp_path: Path, owner: Identity) -> None:
    """A bad item stops `sign`; it is named, and no file is left."""
    rules = _write(tmp_path / "r.toml", owner, 'colour = "red"\n')
    out = tmp_path / "out"
    code, facts, _ = run("sign", rules, "--key", tmp_path / "owner.key", "-o", out)
    assert (code, facts["refused"]) == (1, 1)
    assert facts["items"][0]["text"].startswith('item 1 "web": colour: unknown key; allowed: name')
    code, unsigned, _ = run("check", rules)
    assert (code, unsigned) == (1, facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["owner.key", "r.toml"]


def test_patterns_are_checked(run: Run, tmp_path: Path, owner: Identity) -> None:
    """An expression that no engine here runs in linear time is refused."""
    rules = _write(tmp_path / "r.toml", owner, "patterns = [{ regex = '(a)\\1' }]\n")
    code, facts, _ = run("check", rules)
    assert code == 1
    assert "back references are not in linear time" in facts["items"][0]["text"]


def test_an_altered_document(run: Run, tmp_path: Path, owner: Identity) -> None:
    """The answer is no, with the reason; it is never taken for an unsigned one."""
    signed = tmp_path / "out"
    rules = _write(tmp_path / "r.toml", owner)
    run("sign", rules, "--key", tmp_path / "owner.key", "-o", signed)
    signed.write_bytes(signed.read_bytes().replace(b'"web"', b'"wab"'))
    code, facts, _ = run("check", signed)
    assert (code, facts["refused"].split(":")[0]) == (1, "forged")
    with signed.open("rb") as stream, pytest.raises(RulesRefusedError):
        open_signed(stream)


def test_a_name_that_stands_twice(run: Run, tmp_path: Path, owner: Identity) -> None:
    """A router refuses the second, and so does whoever checks before."""
    twice = f'[[rule]]\nname = "web"\nservice = "{SERVICE}"\n'
    withdrawn = _write(tmp_path / "w.toml", owner).read_text().replace('["old"]', '["old", "web"]')
    (tmp_path / "w.toml").write_text(withdrawn)
    for rules in (_write(tmp_path / "r.toml", owner, twice), tmp_path / "w.toml"):
        code, facts, _ = run("check", rules)
        (item,) = facts["items"]
        assert (code, facts["rules"], item["name"]) == (1, 1, "web")
        assert item["text"].endswith('"web": an item of that name stands further up')


def test_what_is_read_is_never_written_over(run: Run, tmp_path: Path, owner: Identity) -> None:
    """Neither a key nor a document nor a grant, by whatever name; a link stays a link."""
    key = tmp_path / "owner.key"
    rules, signed = _write(tmp_path / "r.toml", owner), tmp_path / "signed"
    grant = tmp_path / "g"
    granting = ("grant", "--key", key, "--to", key, "--any-service", "--until", UNTIL, "-o")
    assert run(*granting, grant)[0] == 0
    (tmp_path / "link").symlink_to(key)
    files = {path: path.read_bytes() for path in (key, rules, grant)}
    signing = ("sign", rules, "--key", key, "--grant", grant, "-o")
    for words in (
        (*granting, key),
        (*granting, tmp_path / "link"),
        *((*signing, out) for out in [*files, tmp_path / "link"]),
    ):
        code, _, err = run(*words)
        assert code == 2 and "is a file that is read; write to another" in err
    assert files == {path: path.read_bytes() for path in files}
    (tmp_path / "later").symlink_to(signed)
    assert run(*signing, tmp_path / "later")[0] == 0
    assert (tmp_path / "later").is_symlink() and signed.read_bytes()
    assert run(*signing, "/dev/null")[0] == 0
    assert not Path("/dev/null").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]


def test_asking_an_unsigned_document_for_proof(run: Run, tmp_path: Path, owner: Identity) -> None:
    """It has none, and the answer says what to do."""
    code, facts, _ = run("check", _write(tmp_path / "r.toml", owner), "--router", "00" * 20)
    assert code == 1
    assert facts["refused"].startswith("unsigned: the document has no signature; sign it with")


def test_what_cannot_be_read(run: Run, tmp_path: Path, owner: Identity) -> None:
    """A missing file, no TOML, a forged grant, a signed file to sign: exit code 2 and one line."""
    key = tmp_path / "owner.key"
    rules = _write(tmp_path / "r.toml", owner)
    (tmp_path / "bad.toml").write_text("= 1")
    (tmp_path / "bad.grant").write_text("{}")
    run("sign", rules, "--key", key, "-o", tmp_path / "signed")
    for words, expected in (
        (("check", tmp_path / "absent"), "No such file"),
        (("check", tmp_path / "bad.toml"), f"{tmp_path / 'bad.toml'}: not TOML"),
        (("sign", rules, "--key", key, "--grant", tmp_path / "bad.grant", "-o", "x"), "missing"),
        (("sign", tmp_path / "signed", "--key", key, "-o", "x"), "signed already"),
        (("sign", rules, "--key", tmp_path / "no.key", "-o", "x"), "identity create"),
        (("check", rules, "--at", "noon"), "a time of RFC 3339"),
        (("check", rules, "--router-key", "zz"), "expected 64 hexadecimal digits"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, None)
        assert expected in err
        assert err.count("\n") == 1
