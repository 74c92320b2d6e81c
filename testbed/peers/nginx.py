"""nginx as reverse proxy before the AES service: whole bodies in memory, connections kept alive."""

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
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 4m;
    client_body_buffer_size 4m;
    keepalive_requests 1000000;
    keepalive_timeout 300s;
    tcp_nodelay on;
    upstream aes {{
        server {upstream[0]}:{upstream[1]};
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen {listen[0]}:{listen[1]};
        location / {{
            proxy_pass http://aes;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering {request_buffering};
            proxy_buffers 16 128k;
            proxy_buffer_size 128k;
            proxy_busy_buffers_size 1m;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


def nginx_config(folder: Path, listen: Address, upstream: Address, request_buffering: bool) -> str:
    """Return the whole configuration. Nothing touches the disk: no access log, no body files."""
    return _CONFIG.format(
        # The workers of a root nginx change to `nobody`, who may not enter our folder.
        user="user root;\n" if os.geteuid() == 0 else "",
        folder=folder,
        listen=listen,
        upstream=upstream,
        request_buffering="on" if request_buffering else "off",
    )


def start_nginx(
    children: Children,
    place: Namespace | None,
    listen: Address,
    upstream: Address,
    request_buffering: bool = False,
) -> Child:
    """Start nginx in the foreground; return once it listens."""
    folder = children.directory / f"nginx-{listen[1]}"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(nginx_config(folder, listen, upstream, request_buffering))
    command = [find_tool("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]
    child = children.start("nginx", command, place)
    wait_listening(child, listen[1])
    return child
