"""Runs a module as a program with a meter beside it, and writes down what the meter found."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path


def run_instrumented(
    name: str, arguments: list[str], start: Callable[[], None], found: Callable[[], object]
) -> int:
    """Run the module that a command line names; its own exit code is ours.

    Args:
        name: of the meter's own module, for its usage.
        arguments: FILE -- MODULE ARGUMENTS...
        start: called before the module runs.
        found: called when it has ended, however that was; what it returns is written as JSON.
    """
    if len(arguments) < 3 or arguments[1] != "--":
        print(f"usage: {name} FILE -- MODULE ARGUMENTS...", file=sys.stderr)
        return 2
    file, _, module, *rest = arguments
    sys.argv = [module, *rest]
    start()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(file).write_text(json.dumps(found()))
    return 0
