"""The cloudlet's config: what is read of it, and every mistake with file, table, key, and what is
allowed."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.chunk.hop.lane_place import lane_folder
from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.config import CloudletConfig, sample_config
from packetcloud.cloudlet.config_tables import (
    CloudletTable,
    NetworkTable,
    NodeTable,
    RouterTable,
    ServiceTable,
)
from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.declared_services import wish_of
from packetcloud.cloudlet.domain_link.settings import DomainTable
from packetcloud.cloudlet.errors import CloudletConfigError, NodeRefusedError
from packetcloud.cloudlet.image_files import find_images
from packetcloud.cloudlet.images import assembly
from packetcloud.cloudlet.images.assembly import service_code_digest
from packetcloud.cloudlet.images.store import DEFAULT_FOLDER
from packetcloud.cloudlet.launches import ConfiguredLaunches
from packetcloud.router.cloudlet_schemas import ServiceItem
from packetcloud.services.launch_files import MAX_FILES_BYTES

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
    settings = config.settings(("n1",), {})
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


def test_a_router_is_told_what_is_not_its_default(folder: Path) -> None:
    """One of before a key refuses an item that has it: none is sent that says nothing more."""
    later = {"max_attempts", "keeps_flows"}
    (plain,) = load(folder).settings(("n1",), {}).services.values()
    assert not later & set(plain.router_entry)
    item = ServiceItem.model_validate({"sid": plain.sid, **plain.router_entry})
    default = ServiceTable.model_fields["max_attempts"].default
    assert (item.max_attempts, item.keeps_flows) == (default, False)
    (declared,) = load(folder, GOOD + "max_attempts = 7\n").services
    manifest = declared.manifest
    keeping = manifest.behaviour.model_copy(update={"keeps_flows": True})
    declared = replace(declared, manifest=manifest.model_copy(update={"behaviour": keeping}))
    entry = wish_of(declared, None).router_entry
    assert {key: entry[key] for key in later} == {"max_attempts": 7, "keeps_flows": True}


def test_what_vis_may_send_goes_to_the_router(folder: Path) -> None:
    """Verdicts are the manifest's, or the operator's; nothing is sent that is not declared."""
    (plain,) = load(folder).settings(("n1",), {}).services.values()
    assert plain.router_entry["verdicts"] == ["forward", "update", "drop", "emit"]
    assert not {"output_bytes_ratio", "output_chunks_ratio", "inspection"} & set(plain.router_entry)
    more = """
verdicts = ["forward"]
output_bytes_ratio = 4
output_chunks_ratio = 1.5
inspect = { one_in = 10 }
conduct = { restrict_s = 5.0, max_restrictions = 0 }
"""
    (service,) = load(folder, GOOD + more).settings(("n1",), {}).services.values()
    assert service.router_entry["verdicts"] == ["forward"]
    assert service.router_entry["output_bytes_ratio"] == 4
    assert service.router_entry["output_chunks_ratio"] == 1.5
    assert service.router_entry["inspection"] == {"one_in": 10, "snap_bytes": 64, "keep_mib": 16}
    assert (service.conduct.restrict_s, service.conduct.max_restrictions) == (5.0, 0)
    item = {"sid": service.sid, **service.router_entry, "vis": []}
    assert ServiceItem.model_validate(item).to_entry().inspection is not None


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
        ('state = "state"', 'state = "s"\ncatalogue = "none"', ["no file "]),
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
        (
            "max_output_ratio = 3",
            "output_bytes_ratio = 0.5",
            ["[[service]] number 1", "output_bytes_ratio"],
        ),
        ("max_output_ratio = 3", 'verdicts = ["drink"]', ["[[service]] number 1", "verdicts"]),
        ("max_output_ratio = 3", "inspect = { every = 3 }", ["inspect", "every"]),
        ('"wan-optimizer"', '"nothing"', ["[[service]] nothing", "bundled: ids, sec", "wan-opt"]),
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
    table = r"^#?\[+(\w+)\]+(?: +#.*)?\n((?:(?!#?\[).*\n)*)"
    tables = dict(re.findall(table, sample_config(), re.MULTILINE))
    models = {"cloudlet": CloudletTable, "router": RouterTable, "network": NetworkTable}
    models |= {"domain": DomainTable, "node": NodeTable, "service": ServiceTable}
    for name, model in models.items():
        keys = re.findall(r"^#?(\w+) =", tables[name], re.MULTILINE)
        assert sorted(keys) == sorted(model.model_fields), name


def test_one_service_or_key_twice_is_refused(folder: Path) -> None:
    """Two of one name, or of one SID, could not be told apart at the router."""
    again = GOOD[GOOD.index("[[service]]") :]
    with pytest.raises(CloudletConfigError, match="two services named wan-optimizer"):
        load(folder, GOOD + again.replace("one.key", "two.key"))


def test_two_services_of_one_manifest(folder: Path) -> None:
    """Under names of their own; the image is still that of the manifest's service."""
    again = GOOD[GOOD.index("[[service]]") :].replace("one.key", "two.key")
    config = load(folder, GOOD + again.replace("replicas_max", 'name = "second"\nreplicas_max'))
    assert [one.name for one in config.services] == ["wan-optimizer", "second"]
    assert [one.manifest.service.name for one in config.services] == ["wan-optimizer"] * 2
    assert set(config.settings(("n1",), {}).services) == {"wan-optimizer", "second"}


SEALS = """\
[[service]]
manifest = "secure-communication"
key = "two.key"
settings = { direction = "encrypt" }
files = { key_file = "aes.key" }
"""


def test_vis_of_this_machine_share_memory_with_the_router(folder: Path) -> None:
    """In the folder that it says, and under the same path in each container."""
    config = load(folder)
    assert config.site_of(config.file.node[0]).is_here
    launches = ConfiguredLaunches(config, {"wan-optimizer": ImageFiles("0f" * 32, "", ())})
    vi = Vi(1, "wan-optimizer", "small", "n1", 7, "token", 16)
    limits = launches.limits("small")
    assert launches.wish(vi, limits).lanes is None
    before = launches.revision
    launches.share("/run/packetcloud-0/lanes/0123456789abcdef")
    assert launches.wish(vi, limits).lanes == "/run/packetcloud-0/lanes/0123456789abcdef"
    assert launches.revision > before
    assert launches.message(vi)["spec"]["lanes"] == "/run/packetcloud/lanes"
    processes = ConfiguredLaunches(load(folder, PROCESSES), {})
    assert processes.message(vi)["spec"]["lanes"] == str(lane_folder())


def test_files_go_along_with_a_launch(folder: Path) -> None:
    """What is in them, and nothing of where they lie on this machine."""
    (folder / "aes.key").write_bytes(b"\0secret")
    config = load(folder, GOOD + SEALS)
    launches = ConfiguredLaunches(config, {})
    vi = Vi(1, "secure-communication", "small", "n1", 7, "token", 16)
    message = launches.message(vi)
    assert message["files"] == {"key_file": base64.b64encode(b"\0secret").decode()}
    assert message["spec"]["parameters"]["key_file"] == ""
    assert str(folder) not in json.dumps(message)
    assert "secret" not in repr(config.services)


def test_files_up_to_their_cap(folder: Path) -> None:
    (folder / "aes.key").write_bytes(bytes(MAX_FILES_BYTES))
    assert len(load(folder, GOOD + SEALS).services[1].files["key_file"]) == MAX_FILES_BYTES
    (folder / "aes.key").write_bytes(bytes(MAX_FILES_BYTES + 1))
    with pytest.raises(
        CloudletConfigError, match=f"key_file = .*aes.key': over.*{MAX_FILES_BYTES}"
    ):
        load(folder, GOOD + SEALS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{ key_file", "{ direction", "direction: no parameter of type path.*: key_file"),
        (
            '"aes.key"',
            '"none.key"',
            r"files: key_file = '.*none\.key': No such file.*allowed: a file",
        ),
        ('"aes.key"', '"pipe"', r"files: key_file = '.*pipe': not a file.*allowed: a file"),
        ('"aes.key"', '"."', r"files: key_file = '.*': not a file"),
        ('direction = "encrypt"', 'direction = "encrypt", key_file = "/k"', "stands in settings"),
    ],
)
def test_files_that_cannot_go_along(folder: Path, old: str, new: str, words: str) -> None:
    (folder / "aes.key").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    with pytest.raises(CloudletConfigError, match=rf"\[\[service\]\] secure-comm.*{words}"):
        load(folder, GOOD + SEALS.replace(old, new))


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


DOMAIN = '[domain]\nurl = ["http://127.0.0.1:4800"]\nkey = "domain.key"\n'


def test_a_domain_controller(folder: Path) -> None:
    """Its URLs without a slash at the end, and the cloudlet's own name where none is given."""
    identity = create_identity_file(folder / "domain.key")
    config = load(folder, GOOD + DOMAIN.replace("4800", "4800/"))
    assert config.domain is not None
    assert (config.domain.urls, config.domain.identity) == (("http://127.0.0.1:4800",), identity)
    assert config.domain.name == config.settings(("n1",), {}).name_at_domain == "c1"
    named = load(folder, GOOD + DOMAIN + 'name = "edge-1"\n')
    assert named.settings(("n1",), {}).name_at_domain == "edge-1"
    assert load(folder).settings(("n1",), {}).name_at_domain == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("http:", "ftp:", r"\[domain\] url: .*allowed: URLs like https://"),
        ('["http://127.0.0.1:4800"]', "[]", r"\[domain\] url"),
        ("domain.key", "other.key", r"\[domain\] key: .*other.key"),
        ("key =", 'name = "A b"\nkey =', r"\[domain\] name"),
        ("key =", 'ca_file = "no.crt"\nkey =', r"\[domain\] ca_file: .*no such file"),
        ("key =", "keys =", r"\[domain\] keys: unknown key"),
    ],
)
def test_a_mistake_about_the_domain_controller(
    folder: Path, old: str, new: str, words: str
) -> None:
    """Named by its table and key, with what is allowed."""
    create_identity_file(folder / "domain.key")
    with pytest.raises(CloudletConfigError, match=words):
        load(folder, GOOD + DOMAIN.replace(old, new))


PROCESSES = GOOD.replace('socket = "/var/lib/lxd/unix.socket"', 'isolation = "process"')


def test_child_processes_instead_of_containers(folder: Path) -> None:
    """They find router and controller on this machine, run what is installed, and need no image."""
    config = load(folder, PROCESSES)
    assert (config.router_host, config.control_host) == ("127.0.0.1", "127.0.0.1")
    assert config.services[0].spec.router_host == "127.0.0.1"
    assert not config.site_of(config.file.node[0]).has_disk_quota
    assert config.site_of(config.file.node[0]).io_per_s == 0
    declared = PROCESSES.replace('isolation = "process"', 'isolation = "process"\nio_per_s = 2000')
    config = load(folder, declared)
    assert config.site_of(config.file.node[0]).io_per_s == 2000
    images = find_images(config)
    launches = ConfiguredLaunches(config, images)
    vi = Vi(1, config.services[0].name, "small", "process", 7, "secret", 16)
    assert launches.control_address(vi) == "127.0.0.1"
    wish = launches.wish(vi, launches.limits("small"))
    assert wish.environment["PACKETCLOUD_CONTROLLER"] == "127.0.0.1:4790"
    assert wish.image == images["wan-optimizer"].fingerprint
    assert load(folder).router_host == "10.210.0.1"


TWO_AUTHORS = (
    GOOD[: GOOD.index("[[service]]")]
    + """\
[[service]]
manifest = "ann/manifest.toml"
key = "one.key"
name = "first"

[[service]]
manifest = "bob's"
key = "two.key"
name = "second"
"""
)


@pytest.fixture
def authors(folder: Path) -> tuple[Path, Path]:
    """Folders of two services of different authors, whose manifests are the same."""
    for name in ("ann", "bob's"):
        (folder / name).mkdir()
        (folder / name / "manifest.toml").write_text(
            'manifest = 1\n[service]\nname = "count"\nversion = "1.0.0"\n'
            'entry_point = "count:Count"\n[behaviour]\nfail_policy = "closed"\n'
        )
        (folder / name / "count.py").write_text(f"AUTHOR = {name!r}\n")
    return folder / "ann", folder / "bob's"


def built(store: Path, version: str, made_at: float, **facts: object) -> None:
    """Put an image into a store."""
    (store / "images" / version).mkdir(parents=True)
    document = {"format": "packetcloud-image-1", "version": version, "name": "count"}
    document |= {"suite": "bookworm", "fingerprint": version * 32, "python": "3.11"}
    document |= {"files_count": 1, "size_bytes": 1, "made_at": made_at}
    document |= {"packages": [], "requirements": [], **facts}
    (store / "images" / version / "image.json").write_text(json.dumps(document))


def test_services_of_one_name_run_each_from_what_was_built_of_its_own_code(
    folder: Path, authors: tuple[Path, Path]
) -> None:
    """Not from the newest image of that name, which has another author's code or an older one."""
    store, config = folder / "images", load(folder, TWO_AUTHORS)
    built(store, "01", 4.0)  # nobody knows of what code
    built(store, "02", 3.0, name="packetcloud", service_code="")
    built(store, "03", 2.0, service_code=service_code_digest(authors[1]))
    assert {name: one.fingerprint for name, one in find_images(config).items()} == {
        "second": "03" * 32
    }
    built(store, "04", 1.0, service_code=service_code_digest(authors[0]))
    built(store, "05", 1.5, service_code=service_code_digest(authors[0]))
    assert {name: one.fingerprint for name, one in find_images(config).items()} == {
        "first": "05" * 32,
        "second": "03" * 32,
    }
    (authors[1] / "count.py").write_text("AUTHOR = 'bob, later'\n")
    assert set(find_images(config)) == {"first"}


def test_who_has_no_image_is_told_which_and_how_to_build_it(
    folder: Path, authors: tuple[Path, Path]
) -> None:
    """In one line, with a command that can be pasted; a bundled service needs another one."""
    config = load(folder, TWO_AUTHORS)
    launches = ConfiguredLaunches(config, find_images(config))
    vi = Vi(1, "second", "small", "n1", 7, "secret", 16)
    with pytest.raises(NodeRefusedError) as caught:
        launches.wish(vi, launches.limits("small"))
    text, store = str(caught.value), folder / "images"
    assert f"service second: no image that was built of {authors[1]} as it is now" in text
    command = shlex.split(text.partition("build one: ")[2])
    assert command[:3] == ["packetcloud", "image", "build"]
    assert command[3:] == ["--service", f"{authors[1]}/manifest.toml", "--store", str(store)]
    (bundled,) = load(folder).services
    assert bundled.no_image(DEFAULT_FOLDER) == (
        f"service wan-optimizer: no image of the bundled services in {DEFAULT_FOLDER}; "
        "build one: packetcloud image build"
    )


def test_files_that_no_image_takes_are_named(
    folder: Path, authors: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More beside a manifest than code is, as when somebody keeps the images there."""
    built(folder / "images", "01", 1.0)
    monkeypatch.setattr(assembly, "MAX_SERVICE_BYTES", 10)
    with pytest.raises(CloudletConfigError, match=rf"\[\[service\]\] first: {authors[0]}: .*MiB"):
        find_images(load(folder, TWO_AUTHORS))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('socket = "x"', "allows no other key than name"),
        ("disk_quota = true", "allows no other key than name"),
        ('[[node]]\nsocket = "x"', r"no other \[\[node\]\] beside it"),
        ('[[node]]\nname = "b"\nisolation = "process"', r"no other \[\[node\]\] beside it"),
    ],
)
def test_child_processes_go_with_no_other_node(folder: Path, more: str, words: str) -> None:
    text = PROCESSES.replace('isolation = "process"', f'isolation = "process"\n{more}')
    with pytest.raises(CloudletConfigError, match=words):
        load(folder, text)
