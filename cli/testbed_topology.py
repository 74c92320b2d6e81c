"""`packetcloud testbed up|down|list|exec|check|sample`: topologies from TOML files."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FOLDER

IMAGES = click.option(
    "--images",
    type=FOLDER,
    help="Where images of containers are kept. [default: /var/cache/packetcloud/images]",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class TopologyName(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """The name under which a topology is up."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _NAME.fullmatch(str(value)):
            self.fail(
                f"{value!r}: expected small letters, digits and '-', at most 32, like net-1",
                param,
                ctx,
            )
        return str(value)


@click.command()
@click.argument("file")
@click.option("--name", type=TopologyName(), help="Of this network.  [default: the file's name]")
@click.option("--rootless", is_flag=True, help="In a user namespace, also as root.")
@IMAGES
@pass_output
def up(output: Output, file: str, name: str | None, rootless: bool, images: Path | None) -> None:
    """Bring up the topology in FILE (or an example's name), and leave it running.

    Returns when all nodes, routers and services are attached, and says how to get in. Its load is
    not sent and its faults do not happen: that is what `run` does.
    """
    from packetcloud.testbed.topology.control import bring_up
    from packetcloud.testbed.topology.samples import find_topology

    path = find_topology(file)
    name = name or _name_of(path)
    with _steps(output, f"bringing up {name}") as tell:
        entry = bring_up(path, name, tell, is_rootless=rootless, images=images)
    assert entry.state is not None
    output.report({"name": name, **entry.state}, _tables_of(entry.state))
    for line in _ways_in(name, entry.state):
        output.note(line)


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=TopologyName())
@click.option("--all", "is_all", is_flag=True, help="All topologies of this machine.")
@pass_output
def down(output: Output, names: tuple[str, ...], is_all: bool) -> None:
    """Take topologies down, and what killed ones left: processes, namespaces, files."""
    from packetcloud.testbed.topology.control import take_down
    from packetcloud.testbed.topology.registry import entries

    if bool(names) == is_all:
        raise click.UsageError("say which by NAME, or --all; packetcloud testbed list names them")
    for name in names or [one.name for one in entries()]:
        take_down(name)
        output.note(f"{name} is down")


@click.command(name="list")
@pass_output
def list_topologies(output: Output) -> ExitCode:
    """List the topologies that are up on this machine, and how they are.

    Exit code 1: one is unwell, or was left behind by a killed process.
    """
    from packetcloud.testbed.topology.control import health_of, vis_of
    from packetcloud.testbed.topology.registry import entries

    found = [(entry, health_of(entry)) for entry in entries()]
    vis = {entry.name: [asdict(one) for one in vis_of(entry)] for entry, _ in found}
    documents = [
        {
            "name": entry.name,
            "state": health.word,
            "problems": list(health.problems),
            **{key: (entry.state or {}).get(key) for key in ("file", "since", "by")},
            "nodes_count": len((entry.state or {}).get("nodes", ())),
            "vis": vis[entry.name],
        }
        for entry, health in found
    ]
    columns = ("name", "state", "nodes_count", "since", "by", "file")
    rows = [[one[key] for key in columns] for one in documents]
    styles = {"up": "green", "unwell": "red", "left behind": "red"}
    titles = ("name", "state", "nodes", "since", "by", "file")
    tables = [Table(titles, rows, styles=styles), *_table_of_vis(vis)]
    output.report(documents, tables)
    for entry, health in found:
        for problem in health.problems:
            output.warn(f"{entry.name}: {problem}")
    return ExitCode.NEGATIVE if any(health.problems for _, health in found) else ExitCode.FINE


@click.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("name", type=TopologyName())
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command inside NODE of the topology NAME: `exec net a -- ping -c 1 198.18.1.2`.

    NODE may be a VI that is a container, by its name in `list`, or a service, for its first VI.
    Elsewhere the command finds in its environment: ROUTER, ROUTER_GUID and KEY of a host;
    GUID_NODE and IP_NODE of each node, SID_SERVICE of each service.
    """
    from packetcloud.testbed.topology.control import run_in

    run_in(name, node, command)


@click.command()
@click.argument("file")
@pass_output
def check(output: Output, file: str) -> None:
    """Check the topology in FILE (or an example's name), and show what would be made."""
    from packetcloud.testbed.topology.containers import lacking_for_containers
    from packetcloud.testbed.topology.graph import make_graph
    from packetcloud.testbed.topology.model import Topology
    from packetcloud.testbed.topology.plan import make_plan
    from packetcloud.testbed.topology.samples import find_topology
    from packetcloud.testbed.topology.service_files import check_services

    topology = Topology.load(find_topology(file))
    graph = make_graph(topology)
    check_services(topology)
    plan = make_plan(graph)
    document = {
        "topology": topology.name,
        "nodes_count": len(topology.file.nodes),
        "links_count": len(topology.links),
        "services_count": len(topology.file.service),
        "loads_count": len(topology.file.load),
        "faults_count": len(topology.file.fault),
        "steps": [{"kind": step.kind.value, "name": step.name} for step in plan],
    }
    counts = [
        (title, document[f"{title}_count"])
        for title in ("nodes", "links", "services", "loads", "faults")
    ]
    kinds: dict[str, list[str]] = {}
    for step in plan:
        kinds.setdefault(step.kind.value, []).append(step.name)
    made = [(kind, ", ".join(names)) for kind, names in kinds.items()]
    output.report(document, [Table(("", ""), [("topology", topology.name), *counts, *made])])
    if (reason := lacking_for_containers(topology)) is not None:
        output.warn(f"it cannot be brought up here: {reason}")


@click.command()
@click.argument("example", required=False)
@click.option("--list", "wants_list", is_flag=True, help="Print the names of the examples.")
@pass_output
def sample(output: Output, example: str | None, wants_list: bool) -> None:
    """Print a topology with every key, or one of the examples."""
    from packetcloud.testbed.topology.samples import example_names, example_text, sample_text

    if wants_list:
        names = example_names()
        output.report(names, [Table(("example",), [[name] for name in names])])
    elif example is None:
        output.text(sample_text())
    elif example in example_names():
        output.text(example_text(example))
    else:
        allowed = ", ".join(example_names())
        raise click.BadParameter(f"{example!r}; allowed: {allowed}", param_hint="EXAMPLE")


COMMANDS = (up, down, list_topologies, exec_command, check, sample)


def _name_of(path: Path) -> str:
    """Return the name that a file gives."""
    name = re.sub(r"[^a-z0-9-]+", "-", path.stem.lower()).strip("-")[:32]
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{path.name} gives no name; say one with --name")
    return name


@contextmanager
def _steps(output: Output, title: str) -> Iterator[Any]:
    """Show what is made; end cleanly on SIGTERM too."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    try:
        with output.progress(*columns) as shown:
            task = shown.add_task(title, total=None)
            told: set[str] = set()

            def tell(text: str) -> None:
                shown.update(task, description=f"{title}: {text}")
                # A build takes minutes; where there is no bar, each of its steps is a line.
                step = ":".join(text.split(":")[:2])
                if shown.disable and text.startswith("image:") and step not in told:
                    told.add(step)
                    output.note(text)

            yield tell
    finally:
        signal.signal(signal.SIGTERM, previous)


def _tables_of(state: dict[str, Any]) -> Sequence[Table]:
    nodes = [
        (
            name,
            one["kind"],
            ", ".join(f"{address} to {peer}" for peer, address in one["addresses"].items()),
            one.get("router_address"),
            one.get("guid"),
            one.get("key"),
        )
        for name, one in state["nodes"].items()
    ]
    tables = [Table(("node", "is", "addresses", "attaches to", "GUID", "key file"), nodes)]
    services = [
        (name, one["at"], one["isolation"], one["sid"]) for name, one in state["services"].items()
    ]
    if services:
        tables.append(Table(("service", "at", "isolation", "SID"), services))
    links = [(name, one["made_by"]) for name, one in state["links"].items()]
    return [*tables, Table(("link", "made by"), links)]


def _table_of_vis(vis: dict[str, list[dict[str, Any]]]) -> Iterator[Table]:
    """Yield the VIs of all topologies, if there are any."""
    keys = ("name", "service", "at", "vi_type", "state")
    rows = [
        (topology, *(one[key] for key in keys), "yes" if one["is_attached"] else "no")
        for topology, found in vis.items()
        for one in found
    ]
    if rows:
        yield Table(("topology", "VI", "service", "at", "type", "state", "attached"), rows)


def _ways_in(name: str, state: dict[str, Any]) -> Iterator[str]:
    hosts = [node for node, one in state["nodes"].items() if one["kind"] == "host"]
    yield f"get in: packetcloud testbed exec {name} NODE -- COMMAND"
    if len(hosts) > 1:
        a, b = hosts[:2]
        guid = f"$GUID_{b.upper().replace('-', '_')}"
        yield (
            f"for example: packetcloud testbed exec {name} {a} -- "
            f"sh -c 'packetcloud host ping {guid} --router $ROUTER --key $KEY'"
        )
    contained = [name for name, one in state["services"].items() if one["isolation"] == "lxd"]
    for service in contained[:1]:
        yield f"in a container: packetcloud testbed exec {name} {service} -- COMMAND"
    yield f"take it down: packetcloud testbed down {name}"
