"""From wishes to a launch line, and from an entry point to a service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.chunk.errors import IdentityError, LocalMisuseError
from packetcloud.chunk.identity import create_identity_file
from packetcloud.services.addresses import parse_address
from packetcloud.services.catalogue import find_service
from packetcloud.services.errors import ParameterError, ServiceConfigError
from packetcloud.services.launch import ExecutionMode, LaunchSpec, ResourceLimits
from packetcloud.services.loading import load_service
from packetcloud.services.plan import plan_launch
from packetcloud.services.scaffold import create_service
from packetcloud.services.wan_optimizer.service import WanOptimizer

SPEC = LaunchSpec(
    name="n",
    version="1.0.0",
    entry_point="m:C",
    key_file="/k",
    router_host="::1",
    router_port=4700,
    parameters={"level": 3, "path": "/x", "on": True, "share": 0.5},
    limits=ResourceLimits(memory_mib=99),
    execution=ExecutionMode.THREAD,
)


def test_a_launch_line_is_one_line_and_comes_back_equal() -> None:
    """What the supervisor writes is what the child reads."""
    line = SPEC.to_json()
    assert "\n" not in line
    assert LaunchSpec.from_json(line) == SPEC


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"name": 1}', "x"])
def test_a_line_of_another_version_is_refused(line: str) -> None:
    """Supervisor and child of different versions find out at once."""
    with pytest.raises(LocalMisuseError):
        LaunchSpec.from_json(line)


def test_a_line_with_an_unknown_key_is_refused() -> None:
    """A newer supervisor's wish is not silently dropped."""
    values = json.loads(SPEC.to_json()) | {"sandbox": True}
    with pytest.raises(LocalMisuseError, match="sandbox"):
        LaunchSpec.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4700", ("127.0.0.1", 4700)),
        ("[::1]:4700", ("::1", 4700)),
        ("router.example:1", ("router.example", 1)),
    ],
)
def test_router_addresses(text: str, address: tuple[str, int]) -> None:
    """IPv4, IPv6 in brackets, names."""
    assert parse_address(text, "router") == address


@pytest.mark.parametrize(
    "text", ["", "router", "router:", ":4700", "r:0", "r:65536", "r:x", "r:-1"]
)
def test_wrong_router_addresses(text: str) -> None:
    """The text says what is expected."""
    with pytest.raises(ServiceConfigError, match="expected HOST:PORT"):
        parse_address(text, "router")


def test_a_plan_checks_everything_before_a_process_is_started(tmp_path: Path) -> None:
    """Key, parameters, router GUID, state file: each wrong one is named."""
    found = find_service("wan-optimizer")
    key = tmp_path / "key"
    settings = {"direction": "compress"}
    with pytest.raises(IdentityError, match="identity create"):
        plan_launch(found, settings, router="r:1", key_file=key)
    identity = create_identity_file(key)
    plan = plan_launch(found, settings, router="r:1", key_file=key, execution="thread")
    assert plan.sid == identity.sid
    assert plan.spec.parameters["level"] == 1
    assert plan.spec.execution is ExecutionMode.THREAD
    assert plan.facts()["sid"] == identity.sid.hex
    assert LaunchSpec.from_json(plan.spec.to_json()) == plan.spec
    with pytest.raises(ParameterError, match="direction"):
        plan_launch(found, {}, router="r:1", key_file=key)
    with pytest.raises(ServiceConfigError, match="--router-guid xx"):
        plan_launch(found, settings, router="r:1", key_file=key, router_guid="xx")
    with pytest.raises(ServiceConfigError, match="keeps no state"):
        plan_launch(found, settings, router="r:1", key_file=key, state_file=tmp_path / "s")


def test_a_key_that_does_not_own_the_manifests_sid_is_refused(tmp_path: Path) -> None:
    """The service would attach under a name that nobody asks for."""
    manifest, *_ = create_service("greeter", tmp_path)
    text = manifest.read_text().replace(
        "[behaviour]", f'[demultiplexing]\nsid = "{"5e" * 20}"\n\n[behaviour]'
    )
    manifest.write_text(text)
    key = tmp_path / "key"
    create_identity_file(key)
    with pytest.raises(ServiceConfigError, match=r"\[demultiplexing\] sid is 5e5e"):
        plan_launch(find_service(str(manifest)), {}, router="r:1", key_file=key)


def test_an_entry_point_becomes_a_service() -> None:
    """Made without arguments, not yet started."""
    service = load_service("packetcloud.services.wan_optimizer.service:WanOptimizer")
    assert isinstance(service, WanOptimizer)


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [
        ("no_such_module_here:X", ["cannot import no_such_module_here", "ModuleNotFoundError"]),
        (
            "packetcloud.services.wan_optimizer.service:Wan",
            ["has no NetworkService 'Wan'", "it has: WanOptimizer"],
        ),
        ("packetcloud.services.launch:LaunchSpec", ["has no NetworkService", "it has: none"]),
        ("packetcloud.services.sdk:NetworkService", ["needs arguments to be made"]),
    ],
)
def test_a_wrong_entry_point_is_named(entry_point: str, words: list[str]) -> None:
    """Module, class, and what the module offers instead."""
    with pytest.raises(ServiceConfigError) as caught:
        load_service(entry_point)
    for word in words:
        assert word in str(caught.value)


def test_a_module_that_fails_to_import_is_a_configuration_error(tmp_path: Path) -> None:
    """Its error is shown; an author's folder does not hide the standard library."""
    (tmp_path / "broken_service.py").write_text("raise RuntimeError('half done')")
    (tmp_path / "queue.py").write_text("raise AssertionError('hides the library')")
    with pytest.raises(ServiceConfigError, match="RuntimeError: half done"):
        load_service("broken_service:X", str(tmp_path))
    import queue

    assert hasattr(queue, "SimpleQueue")
