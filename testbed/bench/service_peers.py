"""The peers of `bench service`: the same AES job behind HTTP POST and behind a gRPC call.

A's request goes through R to the VI's place and the answer comes back through R to A: as many links
as A -> R -> VI -> R -> B. HTTP passes nginx on R; gRPC passes R by the kernel's forwarding, which
costs R less than any proxy would.
"""

from __future__ import annotations

import importlib.util
import secrets
from dataclasses import dataclass
from statistics import median
from typing import Any

from packetcloud.testbed.bench.ours import SLACK_S, START_TIMEOUT_S
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.scene import Scene
from packetcloud.testbed.bench.service_ours import delay_figures
from packetcloud.testbed.bench.trial import Trial, Window, make_trial
from packetcloud.testbed.errors import ChildError, MissingToolError
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers.aes_job import KEY_BYTES
from packetcloud.testbed.peers.nginx import start_nginx
from packetcloud.testbed.processes import Child, Children, Event, python_command

Address = tuple[str, int]

OUTSTANDING = 4
"""Requests in flight: 4 gave both peers their best rate; 2 and 8 came close, 16 was slower."""


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """HTTP or gRPC; at full rate, or one request at a time at `rate` per second."""

    kind: str
    """`http` or `grpc`."""
    scene: Scene
    payload_bytes: int
    rate: float = 0.0

    @property
    def name(self) -> str:
        return self.kind

    def run(self, timing: Timing) -> Trial:
        if self.kind == "grpc" and importlib.util.find_spec("grpc") is None:
            raise MissingToolError("grpcio is not installed; try: pip install 'packetcloud[bench]'")
        key = secrets.token_hex(KEY_BYTES)
        with Children() as children:
            servers, address = self._start_servers(children, key)
            client = self._start_client(children, address, key, timing)
            limit_s = timing.warmup + timing.seconds + SLACK_S
            with Meter([client, *servers]) as meter:
                window = None if self.rate else _window(client.wait_event("window", limit_s))
                done = client.wait_event("done", limit_s)
            if done["altered"]:
                raise ChildError(f"{self.kind}: {done['altered']} answers were altered")
            details: dict[str, Any] = delay_figures(done["delays_s"])
            if done["processing_ns"]:
                details["processing_p50_ms"] = median(done["processing_ns"]) / 1e6
            if window is None:
                # At a set pace the rate is given; only delays are looked at.
                gbps = self.rate * self.payload_bytes * 8 / 1e9
                return Trial(gbps, float(timing.seconds), {}, details)
            return make_trial(window, meter, **details)

    def _start_servers(self, children: Children, key: str) -> tuple[list[Child], Address]:
        scene = self.scene
        upstream = scene.address("vi", scene.centre), scene.port()
        module = f"packetcloud.testbed.peers.{self.kind}_server"
        command = python_command(module, "--host", upstream[0], "--port", upstream[1], "--key", key)
        server = children.start("vi", command, scene.place("vi"))
        server.wait_event("listening", START_TIMEOUT_S)
        if self.kind == "grpc":
            return [server], upstream
        listen = scene.address(scene.centre, "a"), scene.port()
        return [server, start_nginx(children, scene.place(scene.centre), listen, upstream)], listen

    def _start_client(
        self, children: Children, address: Address, key: str, timing: Timing
    ) -> Child:
        options: list[object] = ["--host", address[0], "--port", address[1], "--key", key]
        options += ["--payload-bytes", self.payload_bytes, "--outstanding", OUTSTANDING]
        options += ["--rate", self.rate, "--warmup", timing.warmup, "--seconds", timing.seconds]
        command = python_command("packetcloud.testbed.peers.load", self.kind, *options)
        return children.start("client", command, self.scene.place("a"))


@dataclass(frozen=True, slots=True)
class CipherAlone:
    """Nothing but PyCryptodome's AES-128-CBC on one core: the limit of any such service."""

    payload_bytes: int
    name: str = "aes_limit"

    def run(self, timing: Timing) -> Trial:
        with Children() as children:
            options = ["--payload-bytes", self.payload_bytes, "--seconds", timing.seconds]
            command = python_command("packetcloud.testbed.peers.aes_job", *options)
            child = children.start("cipher", command)
            event = child.wait_event("limit", timing.seconds + SLACK_S)
            return Trial(event["goodput_gbps"], float(timing.seconds))


def _window(event: Event) -> Window:
    return Window(event["begin_s"], event["end_s"], event["payload_bytes"])
