"""Manifests and parameters: what is refused, and in which words."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from packetcloud.services.catalogue import bundled_services, find_service
from packetcloud.services.errors import ManifestError, ParameterError, ServiceMisuseError
from packetcloud.services.launch import ExecutionMode
from packetcloud.services.manifest import MAX_MANIFEST_BYTES, Manifest, load_manifest
from packetcloud.services.parameters import Parameters, parse_settings

GOOD = """\
manifest = 1

[service]
name = "word-count"
version = "1.2.3"
entry_point = "word_count:WordCount"

[demultiplexing]
sid = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"

[[demultiplexing.rules]]
destination = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2"
payload_pattern = "^GET "

[parameters.mode]
type = "string"
allowed = ["fast", "thorough"]

[parameters.limit]
type = "integer"
default = 10
minimum = 1
maximum = 100

[parameters.share]
type = "number"
default = 1

[parameters.loud]
type = "boolean"
default = false

[parameters.words]
type = "path"
default = "words.txt"

[behaviour]
fail_policy = "closed"
state = "export"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    return path


def test_a_manifest_with_defaults(tmp_path: Path) -> None:
    """Only service, fail policy and the format's version must stand in it."""
    manifest = load_manifest(written(tmp_path, GOOD))
    assert manifest.service.name == "word-count"
    assert manifest.demultiplexing.rules[0].payload_pattern == "^GET "
    assert manifest.behaviour.execution is ExecutionMode.AUTO
    assert manifest.resources.limits().memory_mib == 256


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("manifest = 1", "manifest = 2", ["manifest", "1", "2"]),
        ('name = "word-count"', 'name = "Word Count"', ["[service] name", "Word Count"]),
        ('version = "1.2.3"\n', "", ["[service] version", "missing"]),
        ('version = "1.2.3"', 'version = "one"', ["[service] version", "one"]),
        ("word_count:WordCount", "word_count", ["[service] entry_point"]),
        ('fail_policy = "closed"', "", ["[behaviour] fail_policy", "missing"]),
        ('"closed"', '"maybe"', ["[behaviour] fail_policy", "'open' or 'closed'", "maybe"]),
        ('state = "export"', "statee = 1", ["[behaviour] statee", "unknown key", "state", "idemp"]),
        ("[behaviour]", "[behavior]", ["behavior", "unknown key", "behaviour, demultiplexing"]),
        ("default = 10", "default = 1000", ["[parameters.limit]", "1000", "from 1 to 100"]),
        ('type = "number"', 'type = "real"', ["[parameters.share] type", "integer", "real"]),
        ("[parameters.loud]", "[parameters.Loud]", ["parameters.Loud"]),
        ("payload_pattern", "pattern", ["[demultiplexing.rules.0] pattern", "payload_pattern"]),
        ("5e5e", "xx", ["[demultiplexing] sid"]),
        ("[behaviour]", '[pair]\nparameter = "x"\nvalues = [1, 2]\n[behaviour]', ["pair", "'x'"]),
        ("= 1\n", "= \n", ["is not TOML", "line 1"]),
    ],
)
def test_a_wrong_manifest_is_refused_by_file_table_and_key(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    """The text says where, what stands there, and what would be allowed."""
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_an_empty_rule_would_match_everything_and_is_refused() -> None:
    """A rule needs at least one predicate."""
    data = tomllib.loads(GOOD)
    data["demultiplexing"]["rules"] = [{}]
    with pytest.raises(ValueError, match="at least one of source"):
        Manifest.model_validate(data)


def test_a_manifest_of_any_size_is_read_to_its_limit_only(tmp_path: Path) -> None:
    """64 KiB pass, a byte more does not."""
    padding = MAX_MANIFEST_BYTES - len(GOOD.encode()) - 2
    load_manifest(written(tmp_path, GOOD + "#" + "x" * padding + "\n"))
    with pytest.raises(ManifestError, match="over 65536 bytes"):
        load_manifest(written(tmp_path, GOOD + "#" + "x" * (padding + 1) + "\n"))


def test_a_missing_manifest_names_the_bundled_services() -> None:
    """A mistyped name is the most likely cause."""
    with pytest.raises(ManifestError, match="bundled: secure-communication, translator, wan-opt"):
        find_service("wan-optimiser")


def test_a_service_is_found_by_name_file_or_folder(tmp_path: Path) -> None:
    """An author's own module is looked for beside its manifest."""
    path = written(tmp_path, GOOD)
    assert find_service("wan-optimizer").search_path is None
    for given in (path, tmp_path):
        found = find_service(str(given))
        assert (found.path, found.search_path) == (path, str(tmp_path))


def test_the_bundled_manifests_are_sound() -> None:
    """Each loads; those that undo each other have a pair, of allowed values."""
    without_pair = set()
    for found in bundled_services():
        pair = found.manifest.pair
        if pair is None:
            without_pair.add(found.manifest.service.name)
            continue
        declared = found.manifest.parameters[pair.parameter]
        assert set(pair.values) <= set(declared.allowed)
    assert without_pair == {"translator"}


# Parameters


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return load_manifest(written(tmp_path, GOOD))


def test_parameters_have_their_types(manifest: Manifest) -> None:
    """Text from `--set` and defaults from the manifest come out as the declared type."""
    values = manifest.resolve({"mode": "fast", "loud": "TRUE", "share": "0.5", "words": "a/b"})
    assert values.text("mode") == "fast"
    assert values.integer("limit") == 10
    assert values.number("share") == 0.5
    assert values.flag("loud") is True
    assert values.path("words") == Path.cwd() / "a" / "b"
    default = manifest.resolve({"mode": "fast"}).number("share")
    assert (default, type(default)) == (1.0, float)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["'mode' is required", "fast, thorough", "--set mode="]),
        ({"mode": "slow"}, ["mode", "'slow'", "allowed values: fast, thorough"]),
        ({"mode": "fast", "limit": "0"}, ["limit", "an integer from 1 to 100"]),
        ({"mode": "fast", "limit": "101"}, ["limit", "101"]),
        ({"mode": "fast", "limit": "ten"}, ["limit", "'ten'"]),
        ({"mode": "fast", "limit": "1.5"}, ["limit", "'1.5'"]),
        ({"mode": "fast", "loud": "yes"}, ["loud", "true or false"]),
        ({"mode": "fast", "share": "half"}, ["share", "a number"]),
        ({"mode": "fast", "lmit": "3"}, ["'lmit'", "limit, loud, mode, share, words"]),
    ],
)
def test_a_wrong_parameter_says_what_is_allowed(
    manifest: Manifest, settings: dict[str, str], words: list[str]
) -> None:
    """Service, parameter, given value, allowed values, and how to set it."""
    with pytest.raises(ParameterError) as caught:
        manifest.resolve(settings)
    for word in ["word-count", *words]:
        assert word in str(caught.value)


def test_a_service_that_reads_a_parameter_as_another_type_is_told() -> None:
    """The author's mistake, in the author's words."""
    values = Parameters({"level": 3})
    with pytest.raises(ServiceMisuseError, match=r"'level' read as str.*declares int"):
        values.text("level")
    with pytest.raises(ServiceMisuseError, match="declares none"):
        values.integer("depth")
    assert dict(values) == {"level": 3}


@pytest.mark.parametrize("wrong", [["level"], ["=3"], ["level=1", "level=2"]])
def test_settings_are_key_value_once(wrong: list[str]) -> None:
    """Everything else is refused by name."""
    with pytest.raises(ParameterError, match="--set"):
        parse_settings(wrong)
    assert parse_settings(["a=1=2", "b="]) == {"a": "1=2", "b": ""}
