"""microsocks: the plain SOCKS5 relay that one would else put where the translator is."""

from __future__ import annotations

from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.processes import Child, Children


def start_microsocks(children: Children, place: Namespace | None, listen: tuple[str, int]) -> Child:
    """Start microsocks; return once it listens.

    Raises:
        MissingToolError: it is not installed.
    """
    command = [find_tool("microsocks"), "-i", listen[0], "-p", str(listen[1])]
    child = children.start("microsocks", command, place)
    wait_listening(child, listen[1])
    return child
