"""Looks at the topology `boxed` from inside its container, then kills its keeper.

Run by a shell in which the topology is up (test_topology_lxd.py); writes what it saw to
`seen.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.ownership import started_at
from packetcloud.testbed.processes import packetcloud_command, wait_until

WEB, HOST = "198.18.2.2", "198.18.1.1"
PLACES = ((WEB, 80), (WEB, 81), (HOST, 81))
"""The first is granted."""
_CONNECT = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.split(":")
    with socket.socket() as one:
        one.settimeout(2)
        print("yes" if one.connect_ex((host, int(port))) == 0 else "no")
"""


def main() -> None:
    folder = Path(os.environ["PACKETCLOUD_TESTBED_DIR"], "boxed")
    state = json.loads((folder / "state.json").read_text())
    keeper = json.loads((folder / "keeper").read_text())["pid"]
    nodes = {name: Namespace(name, one["namespace"]) for name, one in state["nodes"].items()}
    with contextlib.ExitStack() as stack:
        for name, address in (("web", WEB), ("a", HOST)):
            stack.enter_context(nodes[name].run(socket.create_server, (address, 81)))
        reached = {name: _reached(name) for name in ("r", "translator")}
    (server,) = (one["pid"] for one in state["processes"] if one["name"] == "r-lxd")
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: started_at(server) is None, 20, "LXD ends with its keeper")
    lxd = state["nodes"]["r"]["lxd"]
    seen = {"reached": reached, "keeper": keeper, "lxd": lxd, "left": processes_of(lxd)}
    Path("seen.json").write_text(json.dumps(seen))


def processes_of(folder: str) -> list[str]:
    """Return the command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found += [line] if folder in line else []
    return found


def _reached(name: str) -> list[str]:
    """Return, for each place, whether a node or container reaches it."""
    command = ["python3", "-c", _CONNECT, *(f"{host}:{port}" for host, port in PLACES)]
    whole = packetcloud_command("testbed", "exec", "boxed", name, "--", *command)
    return subprocess.run(whole, capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    main()
