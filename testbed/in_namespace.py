"""Run one command inside a network namespace.

`python -m packetcloud.testbed.in_namespace NAME PARENT -- COMMAND [ARGUMENT...]`; the name `-` is
the namespace we are in. The command replaces this process, so the parent knows its pid, and the
kernel ends it when the parent, whose pid is PARENT, dies, however that happens. Only the standard
library is imported: this runs once per started process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from packetcloud.testbed.kernel import enter

_PR_SET_PDEATHSIG = 1
HERE = "-"


def main(arguments: list[str]) -> int:
    """Enter the namespace and become the command; returns only when that fails."""
    if len(arguments) < 4 or not arguments[1].isdigit() or arguments[2] != "--":
        print("usage: in_namespace NAME|- PARENT -- COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    namespace, parent, command = arguments[0], int(arguments[1]), arguments[3:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 2  # it died before we asked to be told
    try:
        if namespace != HERE:
            enter(namespace)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"in_namespace: {command[0]} in {namespace}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
