"""The root of the command: options for all nouns, the table of nouns, exit codes.

A noun's module is imported when the noun is used and not before, so that `packetcloud --help`,
completion and small commands start fast. Errors end here: one line on standard error, never a
traceback. Source: docs/reference/cli.md, docs/reference/exit-codes.md.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.cli.output import ExitCode, Output, OutputFormat

PROGRAM = "packetcloud"
TRACEBACK_VARIABLE = "PACKETCLOUD_TRACEBACK"
"""Set to anything: an internal error also prints its traceback, for a bug report."""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun of the command: where its click command is, and its line in `--help`."""

    target: str
    """`module:attribute`, the attribute being a click command or group."""
    summary: str


# To add a noun: write cli/NOUN.py with a click group or command, add its line here, in the order of
# the alphabet, with the first sentence of its docstring as summary (a test compares them).
# Only nouns whose module exists stand here: a line without a module is a broken command.
NOUNS = {
    "bench": Noun(
        "packetcloud.cli.bench:bench",
        "Measure hop, path, service, small chunks, bad links, rules, VIs, a domain, services.",
    ),
    "bill": Noun(
        "packetcloud.cli.bill:bill",
        "List and show bills, close them, and compute them again from their records.",
    ),
    "chunk": Noun(
        "packetcloud.cli.chunk:chunk",
        "Look at chunks on the wire, capture them in a router, and try a service on them.",
    ),
    "cloudlet": Noun(
        "packetcloud.cli.cloudlet:cloudlet",
        "Run a cloudlet's controller, and admit cloudlets to a domain.",
    ),
    "completion": Noun(
        "packetcloud.cli.completion:completion", "Print the completion script for SHELL."
    ),
    "config": Noun(
        "packetcloud.cli.config:config", "Print sample config files, and check the ones you wrote."
    ),
    "demo": Noun(
        "packetcloud.cli.demo:demo",
        "Send a file through a router and services, all on this machine, and check it.",
    ),
    "doctor": Noun(
        "packetcloud.cli.doctor:doctor", "Say what this machine can do, and how to get the rest."
    ),
    "domain": Noun(
        "packetcloud.cli.domain:domain",
        "Run a domain controller, ask how it is, back it up, give rules to its routers.",
    ),
    "host": Noun(
        "packetcloud.cli.host:host",
        "Send and receive files, reach the IP network, and see whether a host answers.",
    ),
    "identity": Noun(
        "packetcloud.cli.identity:identity", "Create and show the keys behind GUIDs and SIDs."
    ),
    "image": Noun(
        "packetcloud.cli.image:image",
        "Build images of VIs, list and remove them, import them into LXD.",
    ),
    "node": Noun(
        "packetcloud.cli.node:node",
        "List the compute nodes of a running cloudlet, empty them, prepare others.",
    ),
    "quote": Noun(
        "packetcloud.cli.quote:quote",
        "Say what a reservation would cost now, or when it would fit.",
    ),
    "reservation": Noun(
        "packetcloud.cli.reservation:reservation",
        "Reserve places on cloudlets, watch, change and cancel reservations.",
    ),
    "router": Noun(
        "packetcloud.cli.router:router", "Run a router, check its config, ask how it is."
    ),
    "rule": Noun(
        "packetcloud.cli.rule:rule",
        "Write, sign and check demultiplexing rules, grant and install them.",
    ),
    "service": Noun(
        "packetcloud.cli.service:service",
        "Run network services, try them, make their keys, register them in a domain.",
    ),
    "tenant": Noun(
        "packetcloud.cli.tenant:tenant",
        "Register tenants of a domain, and the keys that sign for them.",
    ),
    "testbed": Noun(
        "packetcloud.cli.testbed:testbed",
        "Bring up networks, run experiments on them, emulate links, simulate.",
    ),
    "usage": Noun(
        "packetcloud.cli.usage:usage",
        "List usage records: what VIs held and were given, as the cloudlets metered and signed it.",
    ),
    "vi": Noun(
        "packetcloud.cli.vi:vi",
        "List, launch, resize, move and stop the VIs of a running cloudlet.",
    ),
    "vi-type": Noun(
        "packetcloud.cli.vi_type:vi_type",
        "List and set the sizes of VIs that one can reserve in a domain.",
    ),
}


class NounGroup(click.Group):
    """A group that knows its commands by name and loads each when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        noun = NOUNS.get(cmd_name)
        return load_noun(noun) if noun else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _shared_options_first(args))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, noun.summary) for name, noun in NOUNS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        nouns = [
            CompletionItem(name, help=noun.summary)
            for name, noun in NOUNS.items()
            if name.startswith(incomplete)
        ]
        return nouns + click.Command.shell_complete(self, ctx, incomplete)


def load_noun(noun: Noun) -> click.Command:
    """Import the click command of `noun`."""
    module, _, attribute = noun.target.partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {installed_version()}")
        context.exit()


@click.group(cls=NounGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--format",
    "output_format",
    type=click.Choice([value.value for value in OutputFormat]),
    default=OutputFormat.TABLE.value,
    show_default=True,
    help="How results are printed.",
)
@click.option("--quiet", "-q", is_flag=True, help="Results and warnings only.")
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR in the environment works too.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def packetcloud(context: click.Context, output_format: str, quiet: bool, no_color: bool) -> None:
    """Elastic in-network services: a chunk router with a co-located cloudlet.

    The options below may stand before or after the command.
    """
    context.obj = Output(OutputFormat(output_format), quiet=quiet, color=not no_color)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; whatever goes wrong, no traceback."""
    try:
        status: Any = packetcloud.main(
            args=None if arguments is None else list(arguments),
            prog_name=PROGRAM,
            standalone_mode=False,
        )
    except PacketCloudError as error:
        return _fail(str(error))
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.ERROR
    except click.UsageError as error:
        return _fail(_with_hint(error))
    except click.ClickException as error:
        return _fail(error.format_message())
    except OSError as error:
        return _fail(_os_error_text(error))
    except Exception as error:  # the last catch: who uses the command meets no traceback
        return _internal_error(error)
    # A command says "no" by ctx.exit(ExitCode.NEGATIVE) or by returning an ExitCode.
    return int(status) if isinstance(status, int) else ExitCode.FINE


def installed_version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(source tree, not installed)"


def _shared_options_first(args: list[str]) -> list[str]:
    """Move the root's options to the front, so that they may follow the noun as people type them.

    What comes after a bare `--` belongs to the command and stays where it is.
    """
    end = args.index("--") if "--" in args else len(args)
    shared: list[str] = []
    rest: list[str] = []
    words = iter(args[:end])
    for word in words:
        if word in ("--quiet", "-q", "--no-color") or word.startswith("--format="):
            shared.append(word)
        elif word == "--format":
            shared += [word, *[value for value in [next(words, None)] if value is not None]]
        else:
            rest.append(word)
    return shared + rest + args[end:]


def _fail(text: str) -> int:
    # One error, one line: a text of several lines would hide the next error in a log.
    click.echo(f"{PROGRAM}: {' '.join(text.split())}", err=True)
    return ExitCode.ERROR


def _with_hint(error: click.UsageError) -> str:
    """Return the message as a sentence, and where to read on."""
    text = error.format_message()
    if error.ctx is None:
        return text
    end = "" if text.endswith((".", "?", "!")) else "."
    return f"{text}{end} Try '{error.ctx.command_path} --help'."


def _os_error_text(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _internal_error(error: Exception) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    return _fail(
        f"internal error, please report it: {type(error).__name__}: {error} "
        f"(set {TRACEBACK_VARIABLE}=1 for the traceback)"
    )


if __name__ == "__main__":
    sys.exit(main())
