"""`packetcloud completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from packetcloud.cli.output import Output, pass_output

_HOW_TO = {
    "bash": 'eval "$(packetcloud completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(packetcloud completion zsh)"    # in ~/.zshrc',
    "fish": "packetcloud completion fish | source    # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW_TO.values()))
@click.argument("shell", type=click.Choice(list(_HOW_TO)))
@pass_output
@click.pass_context
def completion(context: click.Context, output: Output, shell: str) -> None:
    """Print the completion script for SHELL."""
    shell_class = get_completion_class(shell)
    assert shell_class is not None  # click ships the three shells that the argument allows
    root = context.find_root()
    name = root.info_name or "packetcloud"
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    output.text(shell_class(root.command, {}, name, variable).source())
