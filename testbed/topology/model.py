"""The file of a topology: what each of its tables may say, and what goes together.

Source: docs/reference/topology.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints

from packetcloud.chunk.toml_files import TomlFiles, TomlTable
from packetcloud.testbed.emulator.link import Emulator
from packetcloud.testbed.emulator.netem import unfit
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError, TopologyError
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
_FILES = TomlFiles(TopologyError, "packetcloud testbed sample")


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


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """One link: two nodes, and what it does to packets either way."""

    left: str
    right: str
    to_right: Shape
    to_left: Shape
    is_emulated: bool
    """False: a plain veth pair, as fast as this machine."""

    @property
    def name(self) -> str:
        return f"{self.left}-{self.right}"

    def harmed_by(self, faults: Iterable[FaultTable]) -> tuple[Shape, Shape]:
        """Return what the link does to packets, either way, while these faults last.

        Raises:
            TestbedError: values that do not go together.
        """
        there, here = self.to_right, self.to_left
        for fault in faults:
            there, here = fault.harm(there), fault.harm(here)
        return there, here


@dataclass(frozen=True, slots=True)
class Topology:
    """A checked file."""

    name: str
    text: str
    folder: Path
    """Paths in the file are relative to it."""
    file: TopologyFile

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a file.

        Raises:
            TopologyError: names file, table and key, and says what is allowed.
        """
        file = _FILES.read(path, TopologyFile)
        problem = next(_contradictions(file), None)
        if problem is not None:
            raise TopologyError(f"{path}: {problem}")
        return cls(path.stem, path.read_text(), path.absolute().parent, file)

    @property
    def links(self) -> tuple[LinkPlan, ...]:
        """Every link, in the order of the file."""
        return tuple(_links(self.file))


def _links(file: TopologyFile) -> Iterator[LinkPlan]:
    harmed = {frozenset(one.link) for one in file.fault if one.link is not None}
    for table in file.link:
        back = table.changed_by(table.back) if table.back is not None else table
        there, here = table.shape(), back.shape()
        for left, right in pairwise(table.nodes):
            shaped = there != Shape() or here != Shape()
            yield LinkPlan(left, right, there, here, shaped or frozenset((left, right)) in harmed)


def _contradictions(file: TopologyFile) -> Iterator[str]:
    """Yield what is wrong between tables that are right each for itself."""
    nodes = file.nodes
    yield from _repeats("hosts, routers, ip", nodes)
    if len(nodes) > MAX_NODES_COUNT:
        yield f"{len(nodes)} nodes; allowed: at most {MAX_NODES_COUNT}"
    yield from _bad_links(file)
    yield from _bad_services(file)
    yield from _bad_loads(file)
    yield from _bad_faults(file)


def _repeats(what: str, values: tuple[str, ...]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{what}: {value!r} stands there {count} times; names must differ"


def _unknown(where: str, name: str, known: tuple[str, ...], what: str) -> Iterator[str]:
    if name not in known:
        yield f"{where} = {name!r}: no such {what}; allowed: {', '.join(known) or 'none yet'}"


def _bad_links(file: TopologyFile) -> Iterator[str]:
    pairs = []
    for number, table in enumerate(file.link, 1):
        where = f"[[link]] number {number}"
        for node in table.nodes:
            yield from _unknown(f"{where} nodes", node, file.nodes, "node")
        pairs += ["-".join(sorted(pair)) for pair in pairwise(table.nodes)]
        yield from (
            f"{where}: {a!r} joined with itself" for a, b in pairwise(table.nodes) if a == b
        )
        try:
            back = table.changed_by(table.back) if table.back is not None else table
            shapes = table.shape(), back.shape()
        except TestbedError as error:
            yield f"{where}: {_in_keys(str(error))}"
            return
        if file.run.emulator is Emulator.NETEM and (text := unfit(*shapes)):
            yield f'{where}: {_in_keys(text)}; say [run] emulator = "tun", or "auto"'
    yield from _repeats("[[link]] nodes", tuple(pairs))
    if len(pairs) > MAX_LINKS_COUNT:
        yield f"{len(pairs)} links; allowed: at most {MAX_LINKS_COUNT}"


def _in_keys(text: str) -> str:
    """Return a message of the emulator with the keys of the file."""
    return re.sub(r"_(?:bps|s|packets|bytes)\b", "", text).removeprefix("link shape: ")


def _bad_services(file: TopologyFile) -> Iterator[str]:
    names = tuple(one.name for one in file.service)
    yield from _repeats("[[service]] name", names)
    for table in file.service:
        where = f"[[service]] {table.name}"
        yield from _unknown(f"{where}: at", table.at, file.routers, "router")
        if table.name in file.nodes:
            yield f"{where}: a node has that name; names must differ"
        if table.is_managed and "fail_policy" in table.model_fields_set:
            yield f"{where}: fail_policy: with a controller the manifest says it"
        if not table.is_managed and "vi_type" in table.model_fields_set:
            yield f"{where}: vi_type: only with a controller; allowed: {_WITH_CONTROLLER}"
        yield from _bad_egress(file, table, where)
    for router in file.routers:
        kinds = {one.isolation: one.name for one in file.service if one.at == router}
        if "controller" in kinds and "lxd" in kinds:
            yield (
                f"[[service]] {kinds['lxd']}: isolation = 'lxd', and {kinds['controller']} at the "
                f"same router {router} has 'controller'; allowed: one of both at a router"
            )
    for number, rule in enumerate(file.rule, 1):
        where = f"[[rule]] number {number}"
        yield from _unknown(f"{where}: service", rule.service, names, "service")
        for key, hosts in (("source", rule.source), ("destination", rule.destination)):
            for host in hosts:
                yield from _unknown(f"{where}: {key}", host, file.hosts, "host")


_WITH_CONTROLLER = 'isolation = "controller" or "lxd"'


def _bad_egress(file: TopologyFile, table: ServiceTable, where: str) -> Iterator[str]:
    if table.egress and table.isolation != "lxd":
        yield f'{where}: egress: child processes reach what their router does; allowed with: "lxd"'
    for place in table.egress:
        yield from _unknown(f"{where}: egress", place.split(":")[0], file.ip, "IP node")


def _bad_loads(file: TopologyFile) -> Iterator[str]:
    services = tuple(one.name for one in file.service)
    yield from _repeats("[[load]] name", tuple(one.name for one in file.load if one.name))
    for number, table in enumerate(file.load, 1):
        where = f"[[load]] number {number}"
        allowed = file.hosts if table.kind == "chunks" else file.nodes
        what = "host" if table.kind == "chunks" else "node"
        for key, node in (("source", table.source), ("destination", table.destination)):
            yield from _unknown(f"{where}: {key}", node, allowed, what)
        if table.source == table.destination:
            yield f"{where}: {table.source!r} to itself"
        for name in table.via:
            yield from _unknown(f"{where}: via", name, services, "service")
        given = table.model_fields_set
        wrong = given & ({"congestion"} if table.kind == "chunks" else _CHUNK_KEYS)
        if wrong:
            kind = "tcp" if table.kind == "chunks" else "chunks"
            yield f'{where}: {", ".join(sorted(wrong))}: only with kind = "{kind}"'
    busy: Counter[tuple[str, int]] = Counter()
    for table in file.load:
        if table.kind == "chunks":
            busy.update((node, table.turn) for node in (table.source, table.destination))
    for (node, turn), count in busy.items():
        if count > 1:
            text = f"{node} is an end of {count} loads of chunks in turn {turn}"
            yield f"[[load]]: {text}; allowed: one, so give the others another turn"


_CHUNK_KEYS = {"via", "chunk", "rate", "outstanding"}
_SHAPE_FAULTS = ("loss", "delay", "rate")


def _bad_faults(file: TopologyFile) -> Iterator[str]:
    links = {frozenset((one.left, one.right)): one for one in _links(file)}
    plain = (one.name for one in file.service if not one.is_managed)
    killable = (*file.routers, *plain)
    for number, table in enumerate(file.fault, 1):
        where = f"[[fault]] number {number}"
        changes = [key for key in _SHAPE_FAULTS if getattr(table, key) is not None]
        if (table.link is None) == (table.kill is None):
            yield f"{where}: allowed: link with down, loss, delay or rate; or kill"
        elif table.kill is not None:
            yield from _unknown(f"{where}: kill", table.kill, killable, "router or service")
            if table.down or changes:
                yield f"{where}: kill goes alone; allowed with it: after, lasts"
        elif table.link is not None and frozenset(table.link) not in links:
            known = ", ".join(sorted("-".join(sorted(pair)) for pair in links))
            yield f"{where}: link = {list(table.link)}: no such link; allowed: {known}"
        elif table.down == bool(changes):
            yield f"{where}: allowed: either down = true, or loss, delay and rate"
        elif table.link is not None:
            try:
                links[frozenset(table.link)].harmed_by([table])
            except TestbedError as error:
                yield f"{where}: {_in_keys(str(error))}"
