"""A topology: its file, what goes together in it, and the links that it means.

Source: docs/reference/topology.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from packetcloud.chunk.toml_files import TomlFiles
from packetcloud.testbed.emulator.link import Emulator
from packetcloud.testbed.emulator.netem import unfit
from packetcloud.testbed.emulator.shape import Shape
from packetcloud.testbed.errors import TestbedError, TopologyError
from packetcloud.testbed.topology.tables import (
    MAX_LINKS_COUNT,
    MAX_NODES_COUNT,
    FaultTable,
    ServiceTable,
    TopologyFile,
)

_FILES = TomlFiles(TopologyError, "packetcloud testbed sample")


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
