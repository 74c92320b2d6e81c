"""The cloudlet's config: what is read of it, and every mistake with file, table, key, and what is
allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.config import (
    CloudletConfig,
    CloudletTable,
    NetworkTable,
    NodeTable,
    RouterTable,
    ServiceTable,
    sample_config,
)
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.image_files import find_images

GOOD = """\
[cloudlet]
name = "c1"
state = "state"
images = "images"

[[node]]
socket = "/var/lib/lxd/unix.socket"

[[service]]
manifest = "wan-optimizer"
key = "one.key"
replicas_max = 3
settings = { direction = "compress" }
max_output_ratio = 3
allowed_destinations = ["%s", 7]
""" % ("c" * 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_identity_file(tmp_path / "one.key")
    create_identity_file(tmp_path / "two.key")
    return tmp_path


def load(folder: Path, text: str = GOOD) -> CloudletConfig:
    (folder / "c1.toml").write_text(text)
    return CloudletConfig.load(folder / "c1.toml")


def test_a_config_with_defaults(folder: Path) -> None:
    """Two networks, one number for a VI's addresses on both, everything relative to the file."""
    config = load(folder)
    settings = config.settings(("n1",))
    assert config.state_folder == folder / "state"
    assert (str(config.network.data.peer_ipv4), config.network.data.peer_port) == (
        "10.210.0.1",
        4700,
    )
    assert settings.addresses == range(16, 4095)
    (service,) = settings.services.values()
    assert (service.replicas_min, service.replicas_max, service.owner) == (1, 3, None)
    assert service.router_entry["allowed_destinations"] == ["c" * 40, 7]
    assert service.router_entry["max_output_ratio"] == 3
    (declared,) = config.services
    assert declared.spec.router_host == "10.210.0.1"
    assert "10.210.0.0/20" in declared.spec.private_links


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "c1"', "", ["[cloudlet] name: missing"]),
        ('name = "c1"', 'name = "C 1"', ["[cloudlet] name = 'C 1'"]),
        (
            'name = "c1"',
            'name = "c1"\nport = 1',
            ["[cloudlet] port: unknown key; allowed: name, state"],
        ),
        ('state = "state"', 'state = "s"\napi_listen = "x"', ["[cloudlet] api_listen"]),
        ('state = "state"', 'state = "s"\nisp_share = 2', ["[cloudlet] isp_share = 2"]),
        ('state = "state"', 'state = "s"\ncatalogue = "none"', ["none: No such file"]),
        ('socket = "/var/lib/lxd/unix.socket"', "", ["[[node]] number 1", "allowed: socket, or"]),
        (
            'socket = "/var/lib/lxd/unix.socket"',
            'socket = "s"\nurl = "https://n:1"',
            ["[[node]] number 1", "not both"],
        ),
        ("[[node]]", "[network]\ndata_ipv4 = '10.0.0.0/30'\n[[node]]", ["[network]", "too small"]),
        (
            "[[node]]",
            "[network]\ndata_ipv4 = '10.211.0.0/20'\n[[node]]",
            ["[network] data_ipv4", "overlap", "allowed: two networks"],
        ),
        (
            "[[node]]",
            "[network]\ncontrol_bridge = 'pcdata0'\n[[node]]",
            ["[network] control_bridge = 'pcdata0'", "a bridge each"],
        ),
        ("[[node]]", "[router]\nport = 0\n[[node]]", ["[router] port = 0"]),
        ("[[node]]", "[router]\ntoken_file = 'no'\n[[node]]", ["[router] token_file", "No such"]),
        ('"wan-optimizer"', '"nothing"', ["[[service]] nothing", "bundled: secure", "wan-opt"]),
        ('"one.key"', '"no.key"', ["[[service]] wan-optimizer", "no.key"]),
        (
            'direction = "compress"',
            'direction = "x"',
            ["[[service]] wan-optimizer", "direction", "compress"],
        ),
        ("settings = {", "setting = {", ["[[service]] number 1 setting: unknown key; allowed"]),
        ("replicas_max = 3", "replicas_max = 0", ["[[service]] number 1 replicas_max = 0"]),
        ("replicas_max = 3", "replicas_min = 4", ["replicas_min = 4 is more than replicas_max"]),
        ("replicas_max = 3", 'vi_type = "x"', ["[[service]] wan-optimizer: vi_type = 'x'; types:"]),
        ("cccccc", "xyz", ["allowed_destinations", "40 hexadecimal"]),
        ("replicas_max = 3", "scaling = { up_wait_s = 0 }", ["scaling", "up_wait_s = 0"]),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, words: list[str]) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(CloudletConfigError) as caught:
        load(folder, GOOD.replace(old, new, 1))
    text = str(caught.value)
    assert "\n" not in text
    missing = [word for word in [*words, str(folder)] if word not in text]
    assert not missing, text


def test_the_sample_has_every_key() -> None:
    """Each key of each table stands in the sample, in force or as its default."""
    tables = dict(re.findall(r"^\[+(\w+)\]+\n((?:(?!\[).*\n)*)", sample_config(), re.MULTILINE))
    models = {"cloudlet": CloudletTable, "router": RouterTable, "network": NetworkTable}
    models |= {"node": NodeTable, "service": ServiceTable}
    for name, model in models.items():
        keys = re.findall(r"^#?(\w+) =", tables[name], re.MULTILINE)
        assert sorted(keys) == sorted(model.model_fields), name


def test_one_service_or_key_twice_is_refused(folder: Path) -> None:
    """Two of one name, or of one SID, could not be told apart at the router."""
    again = GOOD[GOOD.index("[[service]]") :]
    with pytest.raises(CloudletConfigError, match="two services named wan-optimizer"):
        load(folder, GOOD + again.replace("one.key", "two.key"))


def test_images_that_the_config_names(folder: Path) -> None:
    """Their fingerprint is the one that LXD gives them; a file that is gone is named."""
    assert find_images(load(folder)) == {}
    text = GOOD.replace("replicas_max = 3", 'image = ["meta.tar", "root.tar"]')
    with pytest.raises(CloudletConfigError, match=r"\[\[service\]\] image: .*meta.tar"):
        find_images(load(folder, text))
    (folder / "meta.tar").write_bytes(b"ab")
    (folder / "root.tar").write_bytes(b"c")
    image = find_images(load(folder, text))["wan-optimizer"]
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert image.fingerprint == sha256_of_abc
    assert [path.name for path in image.files] == ["meta.tar", "root.tar"]
