"""The config file: what is accepted, and that every mistake is named where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packetcloud.chunk.errors import IdentityError
from packetcloud.chunk.identity import create_identity_file
from packetcloud.chunk.names import GUID, NA
from packetcloud.router.config import (
    RouterConfig,
    parse_config,
    sample_config,
    split_address,
)
from packetcloud.router.errors import RouterConfigError

NAME = "0123456789abcdef0123456789abcdef01234567"
BASE = '[router]\nname = "r1"\nkey_file = "r1.key"\nna = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("router = [", "r.toml: not TOML: "),
        ("", r"r.toml: \[router\]: missing"),
        ('[router]\nname = "r"\nna = 1', r"\[router\] key_file: missing; allowed: a text"),
        (BASE + "nna = 2", r"\[router\] nna: unknown key; allowed: name, key_file, na, listen,"),
        (
            BASE + "[routers]",
            "routers: unknown table; allowed: router, hosts, services, spool,",
        ),
        (
            BASE.replace("na = 1", "na = 0"),
            r"\[router\] na = 0: allowed: a whole number from 1 to 4294967295",
        ),
        (BASE.replace("na = 1", 'na = "1"'), r"\[router\] na = '1': allowed: a whole number from"),
        (BASE + 'listen = "x"', r"\[router\] listen = 'x': allowed: HOST:PORT, for example"),
        (BASE + "store_bytes = 1000", r"\[router\] store_bytes: .*allowed: 1050624 or more"),
        (BASE + '[hosts]\naccept = "all"', r'\[hosts\] accept = \'all\': allowed: "any", "listed"'),
        (BASE + '[hosts]\nlisted = ["q"]', r"\[hosts\] listed.0 = 'q': allowed: 40 hexadecimal"),
        (BASE + f'[hosts]\nlisted = ["{NAME}"]', r'has no effect with accept = "any"'),
        (
            BASE + f'[[service]]\nsid = "{NAME}"\nname = "s"\nfail_policy = "ajar"',
            r'\[\[service\]\] number 1 fail_policy = \'ajar\': allowed: "open", "closed"',
        ),
        (
            BASE + f'[[service]]\nsid = "{NAME}"\nname = "s"\n[[service]]\nname = "t"',
            r"\[\[service\]\] number 2 sid: missing; allowed: 40 hexadecimal digits",
        ),
        (
            BASE + f'[[service]]\nsid = "{40 * "f"}"\nname = "s"',
            r"\[\[service\]\] number 1 sid = 'f+': a reserved SID",
        ),
        (
            BASE + 2 * f'[[name]]\nguid = "{NAME}"\nna = 1\n',
            rf"\[\[name\]\] guid: {NAME} stands there 2 times; allowed: once",
        ),
        (
            BASE + f'[[name]]\nguid = "{NAME}"\nna = 7\n',
            r"\[\[name\]\] number 1: na = 7: no \[\[neighbour\]\] leads there; allowed: 1",
        ),
        (
            BASE + f'[[neighbour]]\nguid = "{NAME}"\nna = 2\nroutes = [1]',
            r"\[\[neighbour\]\] na or routes: 1 is this router's own",
        ),
        (BASE + "x = 1\ny = 2", r"\(and 1 more\)$"),
        (
            BASE + 'control_listen = "192.0.2.1:4701"\n[cloudlet]\npath = "c"',
            r"\[cloudlet\] token_file: missing; whoever reaches 192.0.2.1:4701",
        ),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    """The error names file, table, key, the value, and what is allowed there."""
    with pytest.raises(RouterConfigError, match=message):
        parse_config(text, "r.toml")


def test_whole_file_becomes_settings(tmp_path: Path) -> None:
    """Every table arrives where the core reads it; the key file is found beside the config."""
    identity = create_identity_file(tmp_path / "r1.key")
    other = NAME[::-1]
    path = tmp_path / "r1.toml"
    path.write_text(
        BASE
        + f'idle_timeout_s = 2\n[hosts]\naccept = "listed"\nlisted = ["{NAME}"]\n'
        + '[services]\nunlisted = "accept"\n'
        + f'[[service]]\nsid = "{NAME}"\nname = "s"\npriority = -3\nfail_policy = "open"\n'
        + f'[[neighbour]]\nguid = "{other}"\nna = 2\nroutes = [3, 4]\naddress = "[::1]:4700"\n'
        + f'[[name]]\nguid = "{NAME}"\nna = 4\n'
    )
    config = RouterConfig.load(path)
    settings = config.settings
    assert (settings.guid, settings.na) == (identity.guid, NA(1))
    assert settings.hosts == frozenset({GUID.from_hex(NAME)})
    assert settings.unlisted_services is not None
    (service,) = settings.services
    assert (service.sid.hex, service.priority, service.fail_policy.value) == (NAME, -3, "open")
    (neighbour,) = settings.neighbours
    assert (neighbour.address, neighbour.name) == (("::1", 4700), other[:8])
    assert [na.value for na in neighbour.routes] == [3, 4]
    assert settings.names == {GUID.from_hex(NAME): NA(4)}
    assert (config.hop.idle_timeout_s, config.hop.keepalive_s) == (2.0, 0.5)


def test_token_file_is_private_and_long_enough(tmp_path: Path) -> None:
    """What lets somebody write the cloudlet's table is kept as a key is."""
    create_identity_file(tmp_path / "r1.key")
    path, token = tmp_path / "r1.toml", tmp_path / "token"
    text = '[cloudlet]\npath = "c"\ntoken_file = "token"'
    path.write_text(BASE + 'control_listen = "192.0.2.1:4701"\n' + text)
    with pytest.raises(RouterConfigError, match=r"no token file .* openssl rand"):
        RouterConfig.load(path)
    token.write_text("x" * 32)
    token.chmod(0o640)
    with pytest.raises(RouterConfigError, match="chmod 600"):
        RouterConfig.load(path)
    token.chmod(0o600)
    assert RouterConfig.load(path).table_token == "x" * 32
    assert "x" * 32 not in repr(RouterConfig.load(path))
    token.write_text("x" * 31)
    with pytest.raises(RouterConfigError, match="31 characters; allowed: 32 or more"):
        RouterConfig.load(path)


def test_missing_files_say_what_to_do(tmp_path: Path) -> None:
    """No config file: where to get one. No key file: how to make one."""
    path = tmp_path / "r1.toml"
    with pytest.raises(RouterConfigError, match="begin with: packetcloud config sample router"):
        RouterConfig.load(path)
    path.write_text(BASE)
    with pytest.raises(IdentityError, match="packetcloud identity create"):
        RouterConfig.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RouterConfigError, match="cannot read"):
        RouterConfig.load(path)


def test_sample_is_a_valid_config_as_it_stands() -> None:
    """What `config sample router` prints can be run."""
    assert parse_config(sample_config(), "sample").router.name == "r1"


def test_sample_names_every_key_with_its_default() -> None:
    """With every comment taken away, the sample is valid and holds each key of each table."""
    text = re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", sample_config())
    file = parse_config(text, "sample")
    tables = {
        "[router]": file.router,
        "[hosts]": file.hosts,
        "[services]": file.services,
        "[[service]]": file.service[0],
        "[[neighbour]]": file.neighbour[0],
        "[[name]]": file.name[0],
    }
    for title, table in tables.items():
        assert table.model_fields_set == set(type(table).model_fields), title
        for key, field in type(table).model_fields.items():
            if not field.is_required() and key not in ("name", "address", "stamp_file"):
                assert getattr(table, key) == field.default, (title, key)


@pytest.mark.parametrize("text", ["", "host", ":1", "h:", "h:x", "h:65536", "h:-1"])
def test_addresses_need_host_and_port(text: str) -> None:
    """HOST:PORT, nothing less."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(text)
