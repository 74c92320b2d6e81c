"""nginx as a web server of one large file: the pattern of `traffic.pattern`, over and over."""

from __future__ import annotations

import os
from pathlib import Path

from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.download import PERIOD_BYTES
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.processes import Child, Children
from packetcloud.testbed.traffic.pattern import make_payload

FILE = "file"

Address = tuple[str, int]

_CONFIG = """\
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 64;
}}
http {{
    access_log off;
    sendfile on;
    server {{
        listen {listen[0]}:{listen[1]};
        root {folder}/pages;
    }}
}}
"""


def start_pattern_server(
    children: Children, place: Namespace | None, listen: Address, periods: int
) -> Child:
    """Start nginx with a file of so many MiB at /file; return once it listens."""
    folder = children.directory / f"web-{listen[1]}"
    (folder / "pages").mkdir(parents=True)
    pattern = make_payload(PERIOD_BYTES)
    with (folder / "pages" / FILE).open("wb") as file:
        for _ in range(periods):
            file.write(pattern)
    config = folder / "nginx.conf"
    config.write_text(pattern_config(folder, listen))
    command = [find_tool("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]
    child = children.start("web", command, place)
    wait_listening(child, listen[1])
    return child


def pattern_config(folder: Path, listen: Address) -> str:
    """Return the whole configuration."""
    # The workers of a root nginx change to `nobody`, who may not enter our folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return _CONFIG.format(user=user, folder=folder, listen=listen)
