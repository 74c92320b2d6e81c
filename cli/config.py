"""`packetcloud config`: sample config files, and checking the ones that people write."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from packetcloud.chunk.caps import Room, limit_text
from packetcloud.cli.output import Output, Table, pass_output
from packetcloud.cli.params import FILE

# Kind of file -> "module:function" in the room that reads it, the function maybe in a class.
SAMPLES = {
    "cloudlet": "packetcloud.cloudlet.config:sample_config",
    "domain": "packetcloud.domain_controller.config:sample_config",
    "router": "packetcloud.router.config:sample_config",
}
"""Functions that return a commented file with every key; no arguments."""
CHECKS = {
    "cloudlet": "packetcloud.cloudlet.config:CloudletConfig.load",
    "domain": "packetcloud.domain_controller.config:DomainConfig.load",
    "router": "packetcloud.router.config:RouterConfig.load",
    "service": "packetcloud.services.manifest:load_manifest",
}
"""Functions that read a file as its daemon would and raise a PacketCloudError; one path."""


ROOMS_WITH_CAPS = (
    "packetcloud.chunk.hop.caps",
    "packetcloud.chunk.streams.caps",
    "packetcloud.cloudlet.caps",
    "packetcloud.host.caps",
    "packetcloud.router.caps",
    "packetcloud.services.caps",
)


@click.group()
def config() -> None:
    """Print sample config files, and check the ones you wrote."""


@config.command()
@click.argument("kind", type=click.Choice(sorted(SAMPLES)))
@pass_output
def sample(output: Output, kind: str) -> None:
    """Print a config file of KIND with every key, its default and what it does."""
    output.text(_load(SAMPLES[kind])())


@config.command()
@click.argument("kind", type=click.Choice(sorted(CHECKS)))
@click.argument("file", type=FILE)
@pass_output
def check(output: Output, kind: str, file: Path) -> None:
    """Read FILE as a config file of KIND; a mistake is named with its table and key.

    `router`, `cloudlet` and `domain` are the files of those daemons, `service` is a service's
    manifest.
    """
    _load(CHECKS[kind])(file)
    output.record({"file": str(file), "kind": kind, "valid": True})


@config.command()
@pass_output
def caps(output: Output) -> None:
    """List what others can make grow in hosts, routers, services and cloudlets, and its end."""
    document = [
        {"room": room.name, "text": limit_text(cap)} | asdict(cap)
        for room in (_load_room(name) for name in ROOMS_WITH_CAPS)
        for cap in room.caps
    ]
    columns = ("room", "name", "text", "setting", "beyond")
    rows = [[str(entry[column]) for column in columns] for entry in document]
    titles = ("room", "what", "cap", "config key", "beyond it")
    output.report({"caps": document}, [Table(titles, rows)])


def _load_room(module: str) -> Room:
    room: Room = importlib.import_module(module).ROOM
    return room


def _load(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    function: Callable[..., Any] = attrgetter(attribute)(importlib.import_module(module))
    return function
