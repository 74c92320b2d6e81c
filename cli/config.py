"""`packetcloud config`: sample config files, and checking the ones that people write."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from packetcloud.cli.output import Output, pass_output
from packetcloud.cli.params import FILE

# Kind of file -> "module:function" in the room that reads it, the function maybe in a class.
SAMPLES = {"router": "packetcloud.router.config:sample_config"}
"""Functions that return a commented file with every key; no arguments."""
CHECKS = {
    "router": "packetcloud.router.config:RouterConfig.load",
    "service": "packetcloud.services.manifest:load_manifest",
}
"""Functions that read a file as its daemon would and raise a PacketCloudError; one path."""


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

    `router` is a router's TOML file, `service` the manifest of a service.
    """
    _load(CHECKS[kind])(file)
    output.record({"file": str(file), "kind": kind, "valid": True})


def _load(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    function: Callable[..., Any] = attrgetter(attribute)(importlib.import_module(module))
    return function
