"""What the commands of `packetcloud host` have in common: options, and a coroutine on a reactor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packetcloud.chunk.names import GUID
from packetcloud.cli.output import Output
from packetcloud.cli.params import FILE, AddressType, NameType, group

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from packetcloud.host.reactor import Reactor

T = TypeVar("T")


def attached(command: Callable[..., T]) -> Callable[..., T]:
    """Give the options of every command that attaches a host to a router; it gets `attachment`."""

    @group(
        click.option(
            "--router", type=AddressType(), required=True, help="Where the router listens."
        ),
        click.option("--router-guid", type=NameType(GUID), help="Attach to this router only."),
        click.option(
            "--key",
            "key_file",
            required=True,
            type=FILE,
            help="This host's identity. See: packetcloud identity create",
        ),
    )
    @functools.wraps(command)
    def attached_command(
        *args: Any,
        router: tuple[str, int],
        router_guid: GUID | None,
        key_file: Path,
        **options: Any,
    ) -> T:
        from packetcloud.host.programs import Attachment

        return command(*args, attachment=Attachment(router, key_file, router_guid), **options)

    return attached_command


def run(output: Output, main: Callable[[Reactor], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Run one coroutine on a reactor; what the host logs as a warning is told to people."""
    from packetcloud.host.session import run_session, warnings_to

    warnings_to(output.warn)
    return run_session(main)
