"""The domain's config file: what is taken, and that each mistake is one readable sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from packetcloud.domain_controller.config import DomainConfig, DomainFile, sample_config
from packetcloud.domain_controller.errors import DomainConfigError

KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
OPERATOR = f'[[operator]]\nname = "noc"\npublic_key = "{KEY}"\n'
LEAST = f'[domain]\nname = "example"\n{OPERATOR}'


def load(folder: Path, text: str) -> DomainConfig:
    path = folder / "domain.toml"
    path.write_text(text)
    return DomainConfig.load(path)


def test_the_least_that_a_file_says(tmp_path: Path) -> None:
    """Loopback, SQLite beside the file, no TLS; reached under its own address."""
    config = load(tmp_path, LEAST)
    assert config.listen == ("127.0.0.1", 4800)
    assert config.database_url == f"sqlite:///{tmp_path}/domain-state/domain.sqlite3"
    assert config.authorities(4800) == {"127.0.0.1:4800", "localhost:4800"}
    assert not config.has_tls
    assert config.password() is None


def test_the_sample_is_taken_and_names_every_key(tmp_path: Path) -> None:
    """As it is, and with every comment of a key undone."""
    load(tmp_path, sample_config())
    lines = [line.removeprefix("#") for line in sample_config().splitlines() if line[:2] != "# "]
    document = tomllib.loads("\n".join(lines))
    for table, model in (("domain", "domain"), ("api", "api"), ("channel", "channel")):
        fields = DomainFile.model_fields[model].annotation
        assert sorted(document[table]) == sorted(getattr(fields, "model_fields", ()))


def test_a_default_port_is_not_part_of_the_authority(tmp_path: Path) -> None:
    """What clients sign leaves the scheme's own port out."""
    text = LEAST + '[api]\nnames = ["domain.example:80", "other:8080"]\n'
    assert load(tmp_path, text).authorities(4800) == {"domain.example", "other:8080"}


def test_a_password_stands_in_no_output(tmp_path: Path) -> None:
    """Neither one in the URL nor one in a file."""
    text = LEAST.replace("[[op", 'database = "postgresql://me:secret@host/db"\n[[op')
    config = load(tmp_path, text)
    assert config.shown_database == "postgresql://me@host/db"
    (tmp_path / "password").write_text("hidden\n")
    config = load(tmp_path, text.replace("[[op", 'password_file = "password"\n[[op'))
    assert config.password() == "hidden"
    assert "hidden" not in repr(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "domain: missing"),
        (LEAST + "[apu]\n", "apu: unknown table; allowed: domain, api, channel, operator"),
        (LEAST + "[api]\nlisten = 4800\n", "[api] listen = 4800"),
        (LEAST + '[api]\nlisten = "localhost:4800"\n', "[api] listen = 'localhost:4800': allowed"),
        (LEAST + '[api]\nlisten = "127.0.0.1:70000"\n', "allowed: an address of this machine"),
        (LEAST + '[api]\nlisten = "::1:4800"\n', "allowed: an address of this machine"),
        (LEAST + '[api]\nlisten = "0.0.0.0:4800"\n', "plain HTTP is for loopback"),
        (LEAST + '[api]\ncertificate = "a.crt"\n', "both certificate and key"),
        (LEAST + '[api]\ncertificate = "a.crt"\nkey = "a.key"\n', "there is no such file"),
        (LEAST + '[api]\nnames = ["http://domain"]\n', "[api] names"),
        (LEAST + "[api]\nmax_requests = 15\n", "max_requests = 15"),
        (LEAST + "[api]\nmax_requests = 16.0\n", "max_requests = 16.0"),
        (LEAST.replace("example", "Example"), "[domain] name = 'Example'"),
        (LEAST.replace(KEY, KEY[1:]), "[[operator]] number 1 public_key"),
        (LEAST + OPERATOR, "[[operator]] name: noc stands there twice"),
        (LEAST + OPERATOR.replace("noc", "two"), "[[operator]] public_key"),
        (LEAST.replace("public_key", 'role = "auditor"\npublic_key'), "none has role"),
        (LEAST.replace("public_key", 'role = "tenant"\npublic_key'), "number 1 role = 'tenant'"),
        ('[domain]\nname = "example"\n', "operator: missing"),
        ("= 1", "not TOML"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str, tmp_path: Path) -> None:
    """File, table, key, what is allowed."""
    with pytest.raises(DomainConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/domain.toml: ")
    assert expected in str(caught.value)


def test_plain_http_anywhere_is_said(tmp_path: Path) -> None:
    """Where something before the controller does TLS."""
    config = load(tmp_path, LEAST + '[api]\nlisten = "0.0.0.0:4800"\nplain_http = "anywhere"\n')
    assert config.authorities(4800) == {"0.0.0.0:4800"}
