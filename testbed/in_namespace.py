"""Run one command inside a network namespace.

`python -m packetcloud.testbed.in_namespace NAME PARENT [--mounts-without PATHS] -- COMMAND
[ARGUMENT...]`; the name `-` is the namespace we are in. The command replaces this process, so the
parent knows its pid, and the kernel ends it when the parent, whose pid is PARENT, dies, however
that happens. With `--mounts-without` it has a mount namespace of its own, in which /sys shows the
devices of the namespace NAME, and nothing is mounted any more at paths that begin with PATHS.
Only the standard library is imported: this runs once per started process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from packetcloud.testbed.kernel import enter, own_mounts

_PR_SET_PDEATHSIG = 1
HERE = "-"
_WITHOUT = "--mounts-without"
_USAGE = f"usage: in_namespace NAME|- PARENT [{_WITHOUT} PATHS] -- COMMAND [ARGUMENT...]"


def launcher(namespace: str = HERE, mounts_without: str | None = None) -> list[str]:
    """Return the words before a command that is to run in a namespace, and to end with us.

    Args:
        mounts_without: not None: it has mounts of its own, and none at paths that begin with this.
    """
    own = [] if mounts_without is None else [_WITHOUT, mounts_without]
    module = "packetcloud.testbed.in_namespace"
    return [sys.executable, "-m", module, namespace, str(os.getpid()), *own, "--"]


def main(arguments: list[str]) -> int:
    """Enter the namespace and become the command; returns only when that fails."""
    if len(arguments) < 4 or not arguments[1].isdigit():
        return _misused()
    namespace, parent, rest = arguments[0], int(arguments[1]), arguments[2:]
    mounts_without = None
    if rest[0] == _WITHOUT:
        mounts_without, rest = rest[1], rest[2:]
    if len(rest) < 2 or rest[0] != "--":
        return _misused()
    command = rest[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 2  # it died before we asked to be told
    try:
        if namespace != HERE:
            enter(namespace)
        if mounts_without is not None:
            own_mounts(mounts_without)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"in_namespace: {command[0]} in {namespace}: {error}", file=sys.stderr)
    return 2


def _misused() -> int:
    print(_USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
