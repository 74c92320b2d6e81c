"""The repository itself: which room imports which, what is packaged, what must not be in the tree.

The edges come from docs/architecture.md, "Rooms". A new edge is a decision: change it there first.
"""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

ROOMS = {
    "chunk": set[str](),
    "host": {"chunk"},
    "services": {"chunk"},
    "router": {"chunk"},
    "domain_controller": {"chunk"},
    "cloudlet": {
        "chunk",
        "services.addresses",
        "services.catalogue",
        "services.control_frames",
        "services.files",
        "services.launch",
        "services.launch_files",
        "services.manifest",
        "services.plan",
        "services.state_transfer",
        "router.schemas",
        "router.cloudlet_schemas",
        "router.rules.schemas",
        "domain_controller.api.signatures",
        "domain_controller.channel.frames",
        "domain_controller.core.installations",
        "domain_controller.core.prices",
        "domain_controller.core.usage",
        "domain_controller.errors",
    },
    "testbed": {"chunk", "host", "services", "router", "domain_controller", "cloudlet"},
    "cli": {"chunk", "host", "services", "router", "domain_controller", "cloudlet", "testbed"},
}
"""What each room may import: whole rooms, or single modules of a room."""

ROOMS_OF_CORES = (
    "chunk",
    "host",
    "services",
    "router",
    "cloudlet",
    "domain_controller/core",
)
"""Here every module is a core unless `SHELLS` says otherwise."""
NOT_IN_A_CORE = {"asyncio", "os", "pylxd", "random", "socket", "subprocess", "time", "twisted"}
SHELLS = {
    "chunk.hop": {
        "batch",
        "clock",
        "intake",
        "lane_door",
        "lane_memory",
        "offload",
        "outlet",
        "shield",
        "stamp_file",
        "udp",
    },
    "chunk": {"disk", "identity", "runtime_folder"},
    "chunk.streams": {"tcp_end", "tcp_listener"},
    "host": {
        "blocking",
        "delivery",
        "endpoint",
        "expose",
        "file_receiver",
        "file_transfer",
        "inbox_folder",
        "meeting_place",
        "outgoing_file",
        "part_file",
        "programs",
        "promise",
        "proxy",
        "proxy_exchange",
        "proxy_link",
        "proxy_programs",
        "reactor",
        "router_link",
        "session",
        "shared_session",
        "source_file",
        "surroundings",
        "window_store",
    },
    "services": {
        "benchmark",
        "benchmark_child",
        "child",
        "control_link",
        "event_loop",
        "execution",
        "files",
        "hosting",
        "isolation",
        "launch_files",
        "runtime",
        "state_dir",
        "supervision",
        "replay",
        "testing",
        "trial",
        "vi",
    },
    "services.ids": {"outlet", "service", "versions"},
    "services.secure_communication": {"keys", "sealing", "service", "suites"},
    "services.translator": {"connector", "hosted", "listeners", "service"},
    "services.wan_optimizer": {"service"},
    "cloudlet": {
        "alarm",
        "bridges",
        "controller",
        "daemon",
        "egress_keeper",
        "lanes",
        "late_node",
        "launches",
        "links",
        "network",
        "process_node",
        "router_rules",
        "service_files",
        "store",
        "surroundings",
    },
    "cloudlet.domain_link": {"link"},
    "cloudlet.images": {"assembly", "build", "debian", "requirements", "store"},
    "cloudlet.lxd": {"address", "connection", "node", "operations", "project"},
    "router": {
        "capture_stream",
        "daemon",
        "disk_service",
        "disk_worker",
        "hop_service",
        "inspection_files",
        "inspection_service",
        "management",
        "rule_service",
        "storage",
        "table_service",
    },
    "router.rules": {
        "evidence",
        "keeper_link",
        "keeper_process",
        "segment_file",
        "table_files",
        "uploads",
    },
}
"""Modules that touch sockets, files, clocks or random sources, by package."""

FOLDERS = {*ROOMS, "docs", "tests"}
MADE_BY_MAKE = {"build", "dist"}

UNWANTED_TEXT = {
    "a path of somebody's machine": r"/wor[k]/|/roo[t]/|/opt/(?:pcven[v]|pyp[i])",
    "a package registry": r"(?:extra-)?index-ur[l]|pypi\.or[g]|pythonhosted\.or[g]",
    "an unresolved merge": r"^(?:<{7}|>{7}) ",
    "work without an owner": r"\b(?:TOD[O]|FIXM[E]|XX[X])\b",
}


def _modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[str]:
    """Every imported module of a file, wherever the statement stands; names too, as a.b.name."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _packages() -> list[Path]:
    return sorted(file.parent for room in ROOMS for file in (ROOT / room).rglob("__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    """A room imports only the rooms, or the single modules, that the architecture allows."""
    allowed = {room} | ROOMS[room]
    wrong = [
        f"{_name(path)} imports {name}"
        for path in _modules(room)
        for name in _imports(path)
        if name.startswith("packetcloud.")
        and not any(f"{name}.".startswith(f"packetcloud.{permitted}.") for permitted in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_imported_by_their_one_name(room: str) -> None:
    """No module says `import router`: the rooms have no top-level names (decision 0001)."""
    wrong = [
        f"{_name(path)} imports {name}"
        for path in _modules(room)
        for name in _imports(path)
        if name.split(".")[0] in ROOMS
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS_OF_CORES)
def test_cores_do_no_input_or_output(room: str) -> None:
    """A module of the data plane reads no clock, socket, file or random source unless listed."""
    impure = [
        f"{_name(path)} imports {', '.join(sorted(used))}"
        for path in _modules(room)
        if path.stem not in SHELLS.get(_name(path.parent / "__init__.py"), ())
        and (used := {name.split(".")[0] for name in _imports(path)} & NOT_IN_A_CORE)
    ]
    assert impure == []


def test_every_package_is_distributed() -> None:
    """A package that pyproject.toml does not list would be missing once installed."""
    listed = sorted(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == [f"packetcloud.{_name(path / '__init__.py')}" for path in _packages()]


def test_every_room_has_its_import_name() -> None:
    """The mapping from folder to import name covers each room and nothing else."""
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    assert mapping == {f"packetcloud.{room}": room for room in ROOMS}


@pytest.mark.parametrize("package", [_name(path / "__init__.py") for path in _packages()])
def test_each_package_lists_its_files(package: str) -> None:
    """The docstring of __init__ names every module and sub-package, so that it is the map."""
    folder = ROOT / Path(*package.split("."))
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert text, f"{package} says nothing about itself"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    files |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert files - set(re.findall(r"`(\w+)`", text)) == set(), "not in the docstring"
    bullets = set(re.findall(r"^- `(\w+)`", text, re.MULTILINE))
    assert bullets - files == set(), "in the docstring, but not there"


def test_typed_packages_say_so() -> None:
    """Each room carries py.typed, or users' type checkers ignore our annotations."""
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").is_file()] == []


def test_no_other_folder_at_the_root() -> None:
    """The top-level folders are fixed; what make creates is ignored by git."""
    found = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.suffix != ".egg-info"
    }
    assert found - MADE_BY_MAKE == FOLDERS


def _texts() -> Iterator[tuple[Path, str]]:
    for top in (*FOLDERS, ".ci"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix not in {".pyc", ".png", ".pcap"}:
                yield path.relative_to(ROOT), path.read_text("utf-8")
    for path in ROOT.iterdir():
        # In a git worktree .git is a file with a path of this machine; it is not in the tree.
        if path.is_file() and path.name != ".git":
            yield path.relative_to(ROOT), path.read_text("utf-8", "replace")


@pytest.mark.parametrize("what", UNWANTED_TEXT)
def test_the_tree_is_free_of(what: str) -> None:
    """No file carries what belongs to one machine or to unfinished work."""
    pattern = re.compile(UNWANTED_TEXT[what], re.MULTILINE)
    found = [f"{path}: {match[0]}" for path, text in _texts() for match in pattern.finditer(text)]
    assert found == []


def test_python_versions_agree() -> None:
    """The oldest Python is the same wherever it is written."""
    required = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == required
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + required.replace(".", "")
    assert f"oldest_minor={required.split('.')[1]}\n" in (ROOT / ".ci" / "venv").read_text()


def test_dependencies_have_lower_bounds() -> None:
    """Every dependency states the oldest version that is known to work."""
    project = PROJECT["project"]
    everything = [
        *project["dependencies"],
        *itertools.chain.from_iterable(project["optional-dependencies"].values()),
    ]
    assert [line for line in everything if ">=" not in line and "[" not in line] == []
