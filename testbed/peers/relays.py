"""TCP relays, socat and HAProxy: each joins a connection it accepts to one that it opens."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.processes import Child, Children

SOCAT_BUFFER_BYTES = 262144


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A relay's two sides and the place where it runs."""

    place: Namespace | None
    listen: tuple[str, int]
    forward_to: tuple[str, int]


@dataclass(frozen=True, slots=True)
class HaproxyTuning:
    """What of HAProxy's global settings we change; the default changes nothing."""

    threads: int = 0
    """0: HAProxy's own default, one per core."""
    buffer_bytes: int = 0
    """tune.bufsize; 0: HAProxy's own default, 16 KiB."""
    splice: bool = False
    """Let the kernel move data between the two sockets (option splice-auto)."""

    @property
    def label(self) -> str:
        threads = f"nbthread {self.threads}" if self.threads else "nbthread default"
        buffer = f", bufsize {self.buffer_bytes}" if self.buffer_bytes else ""
        return f"{threads}{buffer}{', splice-auto' if self.splice else ''}"


DEFAULT_HAPROXY = (HaproxyTuning(threads=1), HaproxyTuning())
"""HAProxy as it comes: which thread count suits one flow better is tried in the same run."""
TUNED_HAPROXY = (
    HaproxyTuning(threads=1, buffer_bytes=SOCAT_BUFFER_BYTES),
    HaproxyTuning(threads=1, splice=True),
)
"""HAProxy as somebody would tune it for bulk data."""


def start_socat(children: Children, ends: Endpoints) -> Child:
    """Start `socat -b 262144`; it forks once per connection."""
    command = [find_tool("socat"), "-b", str(SOCAT_BUFFER_BYTES)]
    command += [
        f"TCP-LISTEN:{ends.listen[1]},bind={ends.listen[0]},reuseaddr,fork",
        f"TCP:{ends.forward_to[0]}:{ends.forward_to[1]}",
    ]
    relay = children.start("relay", command, ends.place)
    wait_listening(relay, ends.listen[1])
    return relay


def start_haproxy(children: Children, ends: Endpoints, tuning: HaproxyTuning) -> Child:
    """Start HAProxy in TCP mode, in the foreground, without a master process."""
    path = children.directory / f"haproxy-{ends.listen[1]}.cfg"
    path.write_text(haproxy_config(ends, tuning))
    relay = children.start("relay", [find_tool("haproxy"), "-db", "-f", str(path)], ends.place)
    wait_listening(relay, ends.listen[1])
    return relay


def haproxy_config(ends: Endpoints, tuning: HaproxyTuning) -> str:
    """Return the whole configuration: a frontend, a backend, one server."""
    global_lines = ["maxconn 100"]
    if tuning.threads:
        global_lines.append(f"nbthread {tuning.threads}")
    if tuning.buffer_bytes:
        global_lines.append(f"tune.bufsize {tuning.buffer_bytes}")
    default_lines = ["mode tcp", "timeout connect 5s", "timeout client 60s", "timeout server 60s"]
    if tuning.splice:
        default_lines.append("option splice-auto")
    sections = {
        "global": global_lines,
        "defaults": default_lines,
        "frontend in": [f"bind {ends.listen[0]}:{ends.listen[1]}", "default_backend out"],
        "backend out": [f"server receiver {ends.forward_to[0]}:{ends.forward_to[1]}"],
    }
    return "".join(
        f"{title}\n" + "".join(f"    {line}\n" for line in lines)
        for title, lines in sections.items()
    )
