"""What each table of a topology's file may say.

Source: docs/reference/topology.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from packetcloud.chunk.toml_files import TomlTable
from packetcloud.testbed.emulator.link import Emulator
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.topology.units import (
    parse_ip_service,
    parse_rate,
    parse_share,
    parse_size,
    parse_time,
)

MAX_NODES_COUNT = 64
"""Each is a namespace, each router a process of some 100 MiB."""
MAX_LINKS_COUNT = 120
"""Links have the networks 198.18.1.0 to 198.18.254.0; each emulated one is a process."""
DEFAULT_QUEUE_PACKETS = 125
"""Where a link has a rate and says nothing else: as much as 50 Mbit/s carry in 30 ms."""
MAX_EGRESS_COUNT = 32
"""Half of what a cloudlet takes; each is a rule that each packet of the service passes."""


def _text_or(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return what reads a text with `parse` and leaves plain numbers alone."""

    def read(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return read


NodeName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,11}$"),
    Field(description="a small letter, then small letters, digits and '-', at most 12"),
]
"""Devices are called `to-NAME`, and the kernel takes 15 characters."""
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Isolation = Literal["process", "controller", "lxd"]
IpService = Annotated[str, BeforeValidator(parse_ip_service)]
Rate = Annotated[float, BeforeValidator(_text_or(parse_rate)), Field(ge=0, le=1e12)]
Seconds = Annotated[float, BeforeValidator(_text_or(parse_time)), Field(ge=0, le=86_400)]
Share = Annotated[float, BeforeValidator(_text_or(parse_share)), Field(ge=0, le=1)]
Size = Annotated[int, BeforeValidator(_text_or(parse_size)), Field(ge=1, le=64 << 20)]
_Packets = Annotated[int, Field(ge=1, le=200_000, strict=True)]
_Two = Annotated[tuple[NodeName, ...], Field(min_length=2, max_length=2)]


class ShapeTable(TomlTable):
    """What one direction of a link does to packets. Zero or nothing: it does not."""

    rate: Rate = 0.0
    delay: Seconds = 0.0
    jitter: Seconds = 0.0
    queue: _Packets | None = None
    loss: Share = 0.0
    loss_burst: Annotated[float, Field(ge=1, le=10_000)] = 1.0
    duplication: Share = 0.0
    reordering: Share = 0.0
    reordering_time: Seconds = 0.005
    corruption: Share = 0.0
    largest: Annotated[int, Field(ge=0, le=65_535, strict=True)] = 0

    def changed_by(self, other: ShapeTable) -> ShapeTable:
        """Return this shape with what `other` says itself."""
        said = {name: getattr(other, name) for name in other.model_fields_set & _SHAPE_KEYS}
        mine = {name: getattr(self, name) for name in _SHAPE_KEYS}
        return ShapeTable(**(mine | said))

    def shape(self) -> Shape:
        """Return the emulator's word for it.

        Raises:
            TestbedError: keys that do not go together.
        """
        queue_packets = self.queue or (DEFAULT_QUEUE_PACKETS if self.rate else 0)
        return Shape(
            rate_bps=self.rate,
            delay_s=self.delay,
            jitter_s=self.jitter,
            queue_packets=queue_packets,
            loss=self.loss,
            loss_burst=self.loss_burst,
            duplication=self.duplication,
            reordering=self.reordering,
            reordering_s=self.reordering_time if self.reordering else 0.0,
            corruption=self.corruption,
            largest_bytes=self.largest,
        )


_SHAPE_KEYS = set(ShapeTable.model_fields)


class RunTable(TomlTable):
    """`[run]`: how `packetcloud testbed run` measures."""

    seconds: Seconds = 5.0
    warmup: Seconds = 1.0
    seed: Annotated[int, Field(ge=0, le=1 << 31, strict=True)] = 1
    emulator: Emulator = Emulator.AUTO


class LinkTable(ShapeTable):
    """`[[link]]`: joins nodes, each with the next, by links of the same kind."""

    nodes: Annotated[tuple[NodeName, ...], Field(min_length=2, max_length=MAX_NODES_COUNT)]
    back: ShapeTable | None = None
    """The other way, from the last node to the first: what differs."""


class ServiceTable(TomlTable):
    """`[[service]]`: a service at the cloudlet of a router."""

    name: ServiceName
    at: NodeName
    manifest: str
    settings: Annotated[dict[str, str | int | float | bool], Field(default_factory=dict)]
    files: Annotated[dict[str, Path], Field(default_factory=dict)]
    """Of this machine, for parameters of type path."""
    secret: ServiceName | None = None
    """Services with the same word here share a key file, which is made."""
    vis: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    isolation: Isolation = "process"
    vi_type: str = "small"
    """Of a cloudlet's own catalogue, where there is a controller."""
    egress: Annotated[tuple[IpService, ...], Field(max_length=MAX_EGRESS_COUNT)] = ()
    """What of the IP network its containers reach."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    fail_policy: Literal["open", "closed"] = "closed"

    @property
    def is_managed(self) -> bool:
        """Tell whether a cloudlet controller starts its VIs."""
        return self.isolation != "process"


class RuleTable(TomlTable):
    """`[[rule]]`: chunks that visit a service without asking for it."""

    service: ServiceName
    source: tuple[NodeName, ...] = ()
    destination: tuple[NodeName, ...] = ()
    size_min: Size | None = None
    size_max: Size | None = None
    text: str | None = None
    direction: Literal["both", "forward"] = "both"
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0


class LoadTable(TomlTable):
    """`[[load]]`: what `packetcloud testbed run` sends and measures."""

    name: ServiceName | None = None
    source: NodeName
    destination: NodeName
    kind: Literal["chunks", "tcp"] = "chunks"
    via: tuple[ServiceName, ...] = ()
    chunk: Size = 1 << 20
    rate: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    outstanding: Annotated[int, Field(ge=1, le=4096, strict=True)] = 16
    congestion: Literal["cubic", "bbr", "reno"] = "cubic"
    turn: Annotated[int, Field(ge=1, le=100, strict=True)] = 1


class FaultTable(TomlTable):
    """`[[fault]]`: what goes wrong in each turn of a run, and when."""

    after: Seconds
    lasts: Seconds | None = None
    link: _Two | None = None
    down: bool = False
    loss: Share | None = None
    delay: Seconds | None = None
    rate: Rate | None = None
    kill: ServiceName | None = None

    def harm(self, shape: Shape) -> Shape:
        """Return a shape while the fault lasts.

        Raises:
            TestbedError: values that do not go together.
        """
        if self.down:
            return replace(shape, loss=1.0, loss_burst=1.0)
        rate_bps = shape.rate_bps if self.rate is None else self.rate
        return replace(
            shape,
            loss=shape.loss if self.loss is None else self.loss,
            delay_s=shape.delay_s if self.delay is None else self.delay,
            rate_bps=rate_bps,
            queue_packets=(shape.queue_packets or DEFAULT_QUEUE_PACKETS) if rate_bps else 0,
        )


class TopologyFile(TomlTable):
    """The whole file."""

    hosts: tuple[NodeName, ...] = ()
    routers: Annotated[tuple[NodeName, ...], Field(min_length=1)]
    ip: tuple[NodeName, ...] = ()
    run: RunTable = RunTable()
    link: Annotated[tuple[LinkTable, ...], Field(max_length=MAX_LINKS_COUNT)] = ()
    service: tuple[ServiceTable, ...] = ()
    rule: tuple[RuleTable, ...] = ()
    load: tuple[LoadTable, ...] = ()
    fault: tuple[FaultTable, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        return (*self.hosts, *self.routers, *self.ip)
