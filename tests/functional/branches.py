"""Two branches whose routers encrypt for each other, and a router between them that is nobody's.

Routers, services and hosts are the real ones, on loopback in one process; the one between is made
here: it sees every chunk in the clear of the hop, and does with it what a test wants.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from packetcloud.chunk.grants import Grant
from packetcloud.chunk.header import ChunkHeader, PayloadType, decode_header
from packetcloud.chunk.hop.api import Body, HopConfig, HopReceiver, Neighbour, Refusal, Role
from packetcloud.chunk.hop.udp import HopNode
from packetcloud.chunk.identity import Identity
from packetcloud.chunk.messages import BodyKind
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.promise import Promise
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.results import SendResult
from packetcloud.router.daemon import RouterDaemon
from packetcloud.router.rules.document import Head, line_of
from packetcloud.services.catalogue import find_service
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.loading import load_service
from packetcloud.services.runtime import HopNodeLike, ServiceRuntime
from packetcloud.services.secure_communication.keys import create_key_file
from tests.functional.router_network import ManagementClient, Network
from tests.unit.router.rules.rule_documents import signed

SERVICE = "secure-communication"
Alter = Callable[[bytes], list[bytes]]


def split(chunk: bytes) -> tuple[bytes, bytes]:
    """Return header and payload."""
    at = int.from_bytes(chunk[2:4], "big")
    return chunk[:at], chunk[at:]


def with_payload(chunk: bytes, payload: bytes) -> bytes:
    """Return a chunk with another payload, as a router between could write it."""
    header, _ = split(chunk)
    return header[:16] + len(payload).to_bytes(4, "big") + header[20:] + payload


class Between:
    """A router that does as it likes; chunks of one neighbour go to the other."""

    def __init__(self, reactor: Any, identity: Identity) -> None:
        self.seen: list[bytes] = []
        """Every chunk that came, whole."""
        self.alter: Alter = lambda chunk: [chunk]
        """What goes on in the place of a chunk."""
        self._node = HopNode(reactor, identity, Role.ROUTER, HopConfig(), self)
        self._routers: list[Neighbour] = []

    def listen(self) -> tuple[str, int]:
        return self._node.listen("127.0.0.1", 0)

    async def close(self) -> None:
        await self._node.close()

    @property
    def is_joined(self) -> bool:
        return len(self._routers) == 2

    def headers(self) -> list[ChunkHeader]:
        return [decode_header(chunk) for chunk in self.seen]

    # HopReceiver

    def neighbour_up(self, neighbour: Neighbour) -> None:
        self._routers.append(neighbour)

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        self._routers.remove(neighbour)

    def body_received(self, neighbour: Neighbour, kind: BodyKind, body: Body) -> Refusal | None:
        chunk = bytes(body.contiguous())
        body.release()
        self.seen.append(chunk)
        (other,) = [one for one in self._routers if one is not neighbour]
        for one in self.alter(chunk):
            header, payload = split(one)
            other.send(BodyKind.CHUNK, header, payload, None)
        return None

    def body_settled(self, neighbour: Neighbour, token: object, *_: object) -> None:
        pass


class Branch:
    """One router with its host, its two services, and its own copy of the keys."""

    def __init__(self, world: Branches, name: str, na: int) -> None:
        self.name = name
        self.world = world
        self.na = na
        self.key = world.net.key(name)
        self.host_key = Identity.generate()
        self.services = {"encrypt": Identity.generate(), "decrypt": Identity.generate()}
        self.keys = world.net.folder / f"{name}-keys.json"
        self.serial = 0
        self.arrived: list[tuple[ChunkHeader, bytes]] = []
        self.runtimes: dict[str, ServiceRuntime] = {}
        self.router: RouterDaemon
        self.host: Endpoint

    def start(self, other: Branch, between: Identity, address: tuple[str, int]) -> None:
        isp = self.world.isp
        services = "".join(
            f'[[service]]\nsid = "{key.sid}"\nname = "{name}"\ngrace_s = {self.world.grace_s}\n'
            f'rules_from = "{self.world.rules_from}"\n'
            for name, key in self.services.items()
        )
        path = self.world.net.config(
            self.name,
            f'[rules]\npath = "{self.name}-rules"\nisp_keys = ["{isp.public_key.hex()}"]\n'
            f'{services}[[neighbour]]\nguid = "{between.guid}"\nna = 9\nroutes = [{other.na}]\n'
            f'address = "{address[0]}:{address[1]}"\n'
            f'[[name]]\nguid = "{other.host_key.guid}"\nna = {other.na}\n',
            na=self.na,
        )
        self.router = self.world.net.start(path)

    async def open_host(self) -> None:
        assert self.router.hop.address is not None
        self.host = await Endpoint.open(
            self.world.net.reactor, self.router.hop.address, self.host_key
        )
        self.host.on_chunks(self._take)

    def run(self, direction: str, **settings: str) -> ServiceRuntime:
        """Run one of the two services here."""
        found, key = find_service(SERVICE), self.services[direction]
        assert self.router.hop.address is not None
        values = {"direction": direction, "key_file": str(self.keys)} | settings
        spec = LaunchSpec(
            SERVICE,
            "1.0.0",
            found.manifest.service.entry_point,
            "",
            *self.router.hop.address,
            parameters=found.manifest.resolve(values),
        )

        def make_node(receiver: HopReceiver) -> HopNodeLike:
            return HopNode(self.world.net.reactor, key, Role.SERVICE, HopConfig(), receiver)

        service = load_service(spec.entry_point, None)
        runtime = ServiceRuntime(self.world.net.reactor, spec, service, key.sid, make_node)
        runtime.start()
        self.runtimes[direction] = runtime
        return runtime

    async def run_again(self, direction: str) -> None:
        """Run a service that was stopped; return when its router knows."""
        runtime = self.run(direction)
        await self.world.net.until(lambda: runtime.attachment.state.value == "attached")

    async def stop(self, direction: str) -> None:
        await self.runtimes.pop(direction).stop()

    def rule(self, direction: str, source: Branch, destination: Branch) -> dict[str, Any]:
        return {
            "name": direction,
            "service": self.services[direction].sid.hex,
            "source": source.host_key.guid.hex,
            "destination": destination.host_key.guid.hex,
            "direction": "forward",
        }

    def rules(self) -> list[dict[str, Any]]:
        """Return what this router needs: what leaves is encrypted, what comes is decrypted."""
        other = self.world.other(self)
        return [self.rule("encrypt", self, other), self.rule("decrypt", other, self)]

    async def install(self, *items: dict[str, Any]) -> None:
        """Change the ISP's rules of this router, and of no other."""
        said = await self.bring(items, self.world.isp)
        assert not said["refused"], said

    async def bring(
        self,
        items: Iterable[dict[str, Any]],
        signer: Identity,
        grants: Iterable[Grant] = (),
        until_s: float = math.inf,
    ) -> Any:
        """Bring a document to this router; return what it answers."""
        self.serial += 1
        audience = frozenset({self.key.guid.value})
        head = Head("branches", self.serial, audience, valid_until_s=until_s)
        body = head.to_bytes() + b"".join(map(line_of, items))
        client = ManagementClient(self.router)
        answer = await client.ask("POST", "/v1/rules", content=signed(body, signer, grants))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, payload: bytes, **options: Any) -> Promise[SendResult]:
        """Send a chunk to the other branch's host."""
        return self.host.send(self.world.other(self).host.guid, payload, **options)

    @property
    def drops(self) -> Counter[str]:
        """What the decrypter here dropped, by reason."""
        return self.runtimes["decrypt"].tasks.drops

    def _take(self, batch: list[ReceivedChunk]) -> None:
        self.arrived += [(chunk.header, bytes(chunk.payload)) for chunk in batch]


class Branches:
    """The whole; `close` sees to it that every router's sum holds."""

    def __init__(
        self, reactor: Any, folder: Path, grace_s: float = 0.3, rules_from: str = "isp"
    ) -> None:
        self.grace_s = grace_s
        """How long chunks wait for a VI that is away."""
        self.rules_from = rules_from
        self.net = Network(reactor, folder)
        self.isp = Identity.generate()
        self._between_key = Identity.generate()
        self.between = Between(reactor, self._between_key)
        self.a, self.b = Branch(self, "a", 1), Branch(self, "b", 2)

    def other(self, branch: Branch) -> Branch:
        return self.b if branch is self.a else self.a

    async def start(self, **settings: str) -> None:
        """Begin with keys, services and hosts; rules are installed by the test."""
        address = self.between.listen()
        create_key_file(self.a.keys)
        shutil.copy(self.a.keys, self.b.keys)
        for branch in (self.a, self.b):
            branch.start(self.other(branch), self._between_key, address)
        await self.net.until(lambda: self.between.is_joined)
        for branch in (self.a, self.b):
            await branch.open_host()
            for direction in ("encrypt", "decrypt"):
                branch.run(direction, **settings)
            await self.net.until(lambda branch=branch: branch.router.rules.figures().is_keeper_up)
            await self.net.until(
                lambda branch=branch: all(
                    one.attachment.state.value == "attached" for one in branch.runtimes.values()
                )
            )

    async def close(self) -> None:
        for branch in (self.a, self.b):
            await branch.host.close()
            for direction in list(branch.runtimes):
                await branch.stop(direction)
        await self.between.close()
        await self.net.close()

    def passed(self, text: bytes) -> int:
        """Count the chunks between the branches in which a text stands."""
        return sum(text in chunk for chunk in self.between.seen)

    def payload_types(self) -> set[int]:
        return {header.payload_type for header in self.between.headers()}


def is_sealed(chunk: bytes) -> bool:
    return decode_header(chunk).payload_type == PayloadType.SEALED
