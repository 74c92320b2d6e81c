"""`packetcloud cloudlet`: run a cloudlet's controller, check its config, ask how it is.

The commands that ask a domain controller about cloudlets are in `domain_cloudlet`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.cli.domain_cloudlet import COMMANDS
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, TIMEOUT, FiniteRange, group

if TYPE_CHECKING:
    from packetcloud.cloudlet.client import CloudletClient
    from packetcloud.cloudlet.daemon import CloudletDaemon
    from packetcloud.cloudlet.schemas import DomainInfo, OperationInfo

DEFAULT_URL = "http://127.0.0.1:4780"
config_file = click.argument("config", type=FILE)
controller_url = group(
    click.option(
        "--url", default=DEFAULT_URL, show_default=True, help="The controller's management API."
    ),
    TIMEOUT,
)
waiting = group(
    click.option(
        "--wait/--no-wait", "is_waiting", default=True, help="Return when it is done. [default]"
    ),
    click.option(
        "--limit",
        type=FiniteRange(0, 86_400),
        default=120.0,
        show_default=True,
        help="Seconds to wait for it to be done.",
    ),
)


@click.group()
def cloudlet() -> None:
    """Run a cloudlet's controller, and admit cloudlets to a domain."""


for _command in COMMANDS:
    cloudlet.add_command(_command)


@cloudlet.command()
@config_file
@click.option(
    "--take-over",
    is_flag=True,
    help="Begin although another controller was in charge of the router, or its database is lost: "
    "that one ends, and VIs that this one does not know are removed.",
)
@click.option(
    "--no-network",
    is_flag=True,
    help="Leave bridges and filters alone: somebody else made them.",
)
@pass_output
def run(output: Output, config: Path, take_over: bool, no_network: bool) -> None:
    """Run the controller that CONFIG describes until it is stopped.

    SIGTERM or Ctrl-C: the controller ends, its VIs run on and the next one adopts them. SIGHUP:
    services, VI types and images are read again.
    """
    from packetcloud.cloudlet.config import CloudletConfig
    from packetcloud.cloudlet.daemon import run_cloudlet
    from packetcloud.cloudlet.image_files import find_images
    from packetcloud.cloudlet.network import NodeNetwork

    logging.basicConfig(
        level=logging.WARNING if output.quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each question to the router
    loaded = CloudletConfig.load(config)

    def started(daemon: CloudletDaemon) -> None:
        host, port = daemon.api_address
        api = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        control = "{}:{}".format(*daemon.control_address)
        name = loaded.file.cloudlet.name
        if output.is_json:
            output.record({"name": name, "api": api, "control": control})
        else:
            output.note(f"cloudlet {name}: VIs call {control}")
            output.note(f"its state: packetcloud cloudlet status --url {api}")

    run_cloudlet(
        loaded,
        find_images,
        started,
        network=None if no_network or loaded.file.has_processes else NodeNetwork(loaded.network),
        is_taking_over=take_over,
    )


@cloudlet.command()
@config_file
@pass_output
def check(output: Output, config: Path) -> None:
    """Check CONFIG and the files that it names, and show what the cloudlet would be."""
    from packetcloud.cloudlet.config import CloudletConfig
    from packetcloud.cloudlet.image_files import find_images
    from packetcloud.cloudlet.process_node import NOTICE

    loaded = CloudletConfig.load(config)
    images = find_images(loaded)
    services = [
        {
            "name": one.name,
            "sid": one.identity.sid.hex,
            "vi_type": one.table.vi_type,
            "replicas_min": one.table.replicas_min,
            "replicas_max": one.table.replicas_max,
            "image": images[one.name].description if one.name in images else None,
            "egress": one.egress.summary(),
        }
        for one in loaded.services
    ]
    network = loaded.network
    summary = {
        "name": loaded.file.cloudlet.name,
        "state": str(loaded.state_folder),
        "router": loaded.file.router.url,
        "VIs find the router at": f"{loaded.router_host}:{network.data.peer_port}",
        "VIs find the controller at": f"{loaded.control_host}:{network.control.peer_port}",
        "LXD servers": 0 if loaded.file.has_processes else len(loaded.file.node),
    }
    document = {**{key.lower().replace(" ", "_"): value for key, value in summary.items()}}
    columns = ("Service", "SID", "VI type", "Least", "Most", "Image")
    granted = [(one.name, text) for one in loaded.services for text in one.egress.summary()]
    output.report(
        document | {"services": services},
        [
            Table(("", ""), list(summary.items())),
            Table(columns, [list(one.values())[:-1] for one in services]),
            *([Table(("Service", "In the IP network"), granted)] if granted else []),
        ],
    )
    if loaded.file.has_processes:
        output.warn(NOTICE)
        for one in loaded.services:
            if one.egress.is_granted:
                output.warn(
                    f"service {one.name}: egress is not enforced: child processes reach what this "
                    "machine does, and listen at its ports themselves"
                )
    for declared in loaded.services:
        if declared.name not in images:
            output.warn(declared.no_image(loaded.images_folder))


@cloudlet.command()
@pass_output
def sample(output: Output) -> None:
    """Print a config file with every key, its default and what it does."""
    from packetcloud.cloudlet.config import sample_config

    output.text(sample_config())


@cloudlet.command()
@config_file
@click.option("--keep-network", is_flag=True, help="Leave bridges and filters where they are.")
@pass_output
def down(output: Output, config: Path, keep_network: bool) -> None:
    """Remove all VIs of the cloudlet that CONFIG describes, then its bridges and filters.

    Its controller must not run. The router's table is emptied first; images stay.
    """
    import asyncio

    from packetcloud.cloudlet.config import CloudletConfig
    from packetcloud.cloudlet.network import NodeNetwork
    from packetcloud.cloudlet.removal import remove_vis

    loaded = CloudletConfig.load(config)
    removed = asyncio.run(remove_vis(loaded, output.note))
    has_network = not keep_network and not loaded.file.has_processes
    if has_network:
        NodeNetwork(loaded.network).tear_down()
    output.record({"VIs removed": removed, "network removed": has_network})


@cloudlet.command()
@controller_url
@pass_output
def status(output: Output, url: str, timeout: float) -> ExitCode:
    """Show how a running controller, its services and its nodes are.

    Exit code 1: the router or a node does not answer, or a service has fewer VIs than it should.
    """
    with open_client(url, timeout) as client:
        info, services, nodes = client.status(), client.services(), client.nodes()
    document = {
        "status": info.model_dump(),
        "services": [one.model_dump() for one in services],
        "nodes": [one.model_dump() for one in nodes],
    }
    router = info.router if info.router == "ready" else f"{info.router}: {info.router_text}"
    summary = [
        ("cloudlet", info.name),
        ("epoch", info.epoch),
        ("router", router),
        ("router's table", f"version {info.table_version}"),
        ("VIs", info.vis),
        ("migrations", info.migrations),
        ("operations", info.operations),
        ("VIs call", info.control_listen),
        *_domain_rows(info.domain),
    ]
    columns = (
        "Service",
        "VI type",
        "Wanted",
        "Running",
        "Standbys",
        "Waiting",
        "Oldest s",
        "Remark",
    )
    rows = [
        (
            one.name,
            one.vi_type,
            one.wanted,
            one.running,
            f"{one.standbys} of {one.standbys_wanted}" if one.standbys_wanted else "-",
            one.waiting,
            one.oldest_waiting_s,
            one.text,
        )
        for one in services
    ]
    states = [(one.name, one.state, len(one.vis), one.text) for one in nodes]
    output.report(
        document,
        [
            Table(("", ""), summary),
            Table(columns, rows),
            Table(("Node", "State", "VIs", "Remark"), states),
        ],
    )
    is_fine = (
        info.router == "ready"
        and all(one.state in ("ready", "evacuated") for one in nodes)
        and all(one.running >= one.wanted and not one.text for one in services)
    )
    return ExitCode.FINE if is_fine else ExitCode.NEGATIVE


def open_client(url: str, timeout_s: float) -> CloudletClient:
    """Return a client of the controller at `url`."""
    from packetcloud.cloudlet.client import CloudletClient

    return CloudletClient(url, timeout_s)


def operation(begin: Callable[..., OperationInfo]) -> Callable[..., ExitCode]:
    """Make a command of `begin`, which asks a controller for something that takes its time.

    `begin` gets a client and the command's own arguments. The command then waits for the end, if
    that is wanted, and prints it. Exit code 1: it was refused, came to nothing, or is not done
    within the limit.
    """

    @waiting
    @controller_url
    @pass_output
    @functools.wraps(begin)
    def command(
        output: Output, /, *, is_waiting: bool, limit: float, url: str, timeout: float, **own: Any
    ) -> ExitCode:
        with open_client(url, timeout) as client:
            begun = begin(client, **own)
            end = client.await_end(begun, limit) if is_waiting else begun
        output.record(end.model_dump())
        if end.state == "running" and is_waiting:
            output.warn(f"not done within {limit:g} s; it goes on")
        is_fine = end.state == "done" or (end.state == "running" and not is_waiting)
        return ExitCode.FINE if is_fine else ExitCode.NEGATIVE

    return command


def _domain_rows(domain: DomainInfo | None) -> list[tuple[str, object]]:
    if domain is None:
        return []
    up = f"connected, epoch {domain.epoch}" if domain.is_connected else f"silent: {domain.text}"
    return [
        ("domain controller", f"{domain.url}: {up}"),
        ("reservations", domain.reservations),
        ("usage records not taken", domain.waiting_records),
    ]
