"""nginx as the web server that experiments fetch files from."""

from __future__ import annotations

import os
from pathlib import Path

from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.processes import Child, Children

Address = tuple[str, int]

_CONFIG = """\
{user}daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    server {{
        listen {listen[0]}:{listen[1]} backlog=1024;
        root {files};
        location = /connections {{
            stub_status;
        }}
    }}
}}
"""


def start_web_server(
    children: Children, place: Namespace | None, listen: Address, files: Path
) -> Child:
    """Serve `files`; return once it listens. `/connections` says how many there are.

    Raises:
        MissingToolError: nginx is not installed.
    """
    folder = children.directory / f"web-{listen[1]}"
    folder.mkdir()
    # The workers of a root nginx change to `nobody`, who may not enter our folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, folder=folder, listen=listen, files=files))
    command = [find_tool("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]
    child = children.start("nginx", command, place)
    wait_listening(child, listen[1])
    return child
