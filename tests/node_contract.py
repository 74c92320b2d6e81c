"""What every compute node promises: one contract, held against the fake and against real LXD.

A subclass gives the fixture `place`: a node with an image, where names are the test's own.
Each test says what a caller may rely on, whichever node is behind the interface.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

import pytest

from packetcloud.cloudlet.container_config import build, live_differences
from packetcloud.cloudlet.containers import (
    MAX_LOG_BYTES,
    ContainerState,
    ContainerWish,
    ImageFiles,
    NicAddresses,
    NodeAdapter,
)
from packetcloud.cloudlet.errors import (
    ContainerExistsError,
    ContainerMissingError,
    NodeRefusedError,
    NodeUnreachableError,
)
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import NodeSite, live_violations

T = TypeVar("T")
LIMITS = Limits(
    vcpu=0.5,
    memory_mib=96,
    disk_mib=160,
    disk_read_mib_s=50,
    disk_write_mib_s=25,
    processes_count=40,
)
STOP_S = 5.0


@dataclass
class Place:
    """A node to try things on."""

    open_node: Callable[[], Awaitable[NodeAdapter]]
    """Called in the loop of each test."""
    site: NodeSite
    image: ImageFiles
    prefix: str
    """What the names of this test's containers begin with; nobody else's do."""
    names: list[str] = field(default_factory=list)
    node: NodeAdapter = field(init=False)

    def wish(self, number: int = 1) -> ContainerWish:
        name = f"{self.prefix}-{number}"
        if name not in self.names:
            self.names.append(name)
        return ContainerWish(
            name=name,
            image=self.image.fingerprint,
            limits=LIMITS,
            data=NicAddresses(
                IPv4Interface(f"198.18.8.{number}/24"), IPv6Interface(f"fd00:8::{number:x}/64")
            ),
            control=NicAddresses(
                IPv4Interface(f"198.18.9.{number}/24"), IPv6Interface(f"fd00:9::{number:x}/64")
            ),
            labels={"vi": str(number), "role": "test"},
            environment={"PACKETCLOUD_TOKEN": f"token-{number}"},
        )

    def run(self, body: Callable[[NodeAdapter], Awaitable[T]]) -> T:
        """Run the body of a test with a node; its containers are gone afterwards."""

        async def whole() -> T:
            self.node = await self.open_node()
            try:
                await self.node.import_image(self.image)
                return await body(self.node)
            finally:
                for name in self.names:
                    await self.node.delete(name)
                await self.node.close()

        return asyncio.run(whole())

    async def states(self, node: NodeAdapter) -> dict[str, ContainerState]:
        """Return the states of this test's containers."""
        return {
            facts.name: facts.state
            for facts in await node.containers()
            if facts.name.startswith(self.prefix)
        }


class NodeContract(ABC):
    """The promises of `NodeAdapter`."""

    @pytest.fixture
    @abstractmethod
    def place(self) -> Iterator[Place]:
        """Yield the place of one test; its containers are gone afterwards."""

    def test_a_container_lives_and_dies(self, place: Place) -> None:
        """Made stopped, started, stopped, deleted: each state is what the node then says."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            assert await place.states(node) == {}
            await node.create(wish)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}
            await node.start(wish.name)
            assert await place.states(node) == {wish.name: ContainerState.RUNNING}
            await node.stop(wish.name, STOP_S)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}
            await node.start(wish.name)
            await node.kill(wish.name)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}
            await node.delete(wish.name)
            assert await place.states(node) == {}

        place.run(body)

    def test_every_step_may_be_repeated(self, place: Place) -> None:
        """Whoever does not know what became of a call makes it again: nothing changes."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.import_image(place.image)
            for _ in range(2):
                await node.create(wish)
            for _ in range(2):
                await node.start(wish.name)
            await node.create(wish)
            assert await place.states(node) == {wish.name: ContainerState.RUNNING}
            for _ in range(2):
                await node.resize(wish.name, replace(LIMITS, memory_mib=128))
            for _ in range(2):
                await node.label(wish.name, {"vi": "x"})
            for _ in range(2):
                await node.stop(wish.name, STOP_S)
            for _ in range(2):
                await node.kill(wish.name)
            await node.create(wish)
            assert await place.states(node) == {wish.name: ContainerState.STOPPED}
            for _ in range(2):
                await node.delete(wish.name)
            assert await place.states(node) == {}

        place.run(body)

    def test_steps_at_the_same_time_do_no_harm(self, place: Place) -> None:
        """Two calls of one step, both in progress, end as one would."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await asyncio.gather(node.create(wish), node.create(wish))
            await asyncio.gather(node.start(wish.name), node.start(wish.name))
            assert await place.states(node) == {wish.name: ContainerState.RUNNING}
            await asyncio.gather(node.kill(wish.name), node.kill(wish.name))
            await asyncio.gather(node.delete(wish.name), node.delete(wish.name))
            assert await place.states(node) == {}

        place.run(body)

    def test_another_wish_of_the_same_name_is_refused(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            with pytest.raises(ContainerExistsError):
                await node.create(replace(wish, labels={"vi": "another"}))
            assert (await node.read(wish.name)).labels == wish.labels

        place.run(body)

    def test_what_is_not_there_is_missing(self, place: Place) -> None:
        """Only `delete` is content with a container that is not there."""

        async def body(node: NodeAdapter) -> None:
            name = place.wish().name
            for step in (
                node.start(name),
                node.stop(name, STOP_S),
                node.kill(name),
                node.resize(name, LIMITS),
                node.restore(name, place.wish()),
                node.label(name, {"a": "b"}),
                node.read(name),
                node.usage(name),
                node.logs(name),
            ):
                with pytest.raises(ContainerMissingError):
                    await step
            await node.delete(name)

        place.run(body)

    def test_a_container_is_what_was_asked_for(self, place: Place) -> None:
        """The live configuration fulfils the policy, and is that of the wish; labels come back."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            await node.start(wish.name)
            facts = await node.read(wish.name)
            assert live_violations(facts.live, place.site) == []
            assert live_differences(facts.live, build(wish, place.site)) == []
            assert (facts.name, facts.image) == (wish.name, wish.image)
            assert facts.labels == wish.labels
            assert facts in await node.containers()

        place.run(body)

    def test_limits_change_while_it_runs(self, place: Place) -> None:
        """More and less of everything, read back at once; the container goes on."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            await node.start(wish.name)
            for limits in (Limits(1.5, 256, 320, 80, 40, 80), LIMITS):
                await node.resize(wish.name, limits)
                facts = await node.read(wish.name)
                built = build(replace(wish, limits=limits), place.site)
                assert live_differences(facts.live, built) == []
                assert live_violations(facts.live, place.site) == []
                assert facts.state is ContainerState.RUNNING

        place.run(body)

    def test_what_somebody_changed_is_put_right(self, place: Place) -> None:
        """Limits, addresses and environment are those of the wish again; further labels stay."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            await node.start(wish.name)
            await node.label(wish.name, {"role": "another", "epoch": "7"})
            await node.resize(wish.name, Limits(1.5, 256, 320, 80, 40, 80))
            before = await node.read(wish.name)
            assert len(live_differences(before.live, build(wish, place.site))) >= 5
            for _ in range(2):
                await node.restore(wish.name, wish)
                facts = await node.read(wish.name)
                assert live_differences(facts.live, build(wish, place.site)) == []
                assert live_violations(facts.live, place.site) == []
                assert facts.state is ContainerState.RUNNING
                assert facts.labels == {"vi": "1", "role": "test", "epoch": "7"}
            await node.stop(wish.name, STOP_S)
            await node.restore(wish.name, wish)
            await node.start(wish.name)
            await node.create(wish)  # still the one that was made of this wish

        place.run(body)

    def test_labels_change_one_by_one(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            await node.label(wish.name, {"role": "serving", "epoch": "7"})
            facts = await node.read(wish.name)
            assert facts.labels == {"vi": "1", "role": "serving", "epoch": "7"}
            assert live_violations(facts.live, place.site) == []

        place.run(body)

    def test_a_third_nic_comes_and_goes(self, place: Place) -> None:
        """Where there is a way to the IP network, a wish may have it, and another may not."""
        plain = place.wish()
        address = NicAddresses(IPv4Interface("10.212.0.16/24"), IPv6Interface("fd00:12::10/64"))
        granted = replace(plain, egress=address)

        async def body(node: NodeAdapter) -> None:
            if place.site.egress_bridge is None:
                with pytest.raises(NodeRefusedError, match="no bridge to the IP network"):
                    await node.create(granted)
                return
            await node.create(granted)
            with pytest.raises(ContainerExistsError):
                await node.create(plain)
            for wish in (granted, plain, granted):
                await node.restore(wish.name, wish)
                live = (await node.read(wish.name)).live
                assert ("eth2" in live.devices) == (wish is granted)
                assert live_violations(live, place.site) == []
                assert live_differences(live, build(wish, place.site)) == []

        place.run(body)

    def test_usage_and_console(self, place: Place) -> None:
        """A running container uses something and says `up` with the token it was made with."""

        async def body(node: NodeAdapter) -> None:
            wish = place.wish()
            await node.create(wish)
            assert (await node.usage(wish.name)).processes_count == 0
            await node.start(wish.name)
            await wait_for(lambda: logged(node, wish.name, "up token-1"))
            usage = await node.usage(wish.name)
            assert usage.processes_count >= 1
            assert 0 < usage.memory_bytes <= usage.memory_peak_bytes
            assert set(usage.nics) == {"eth0", "eth1"}
            assert usage.disk_bytes is not None or not place.site.has_disk_quota
            await node.stop(wish.name, STOP_S)
            assert (await node.usage(wish.name)).processes_count == 0
            assert len((await node.logs(wish.name)).encode()) <= MAX_LOG_BYTES

        place.run(body)

    def test_several_containers_are_told_apart(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            wishes = [place.wish(number) for number in (1, 2, 3)]
            await asyncio.gather(*(node.create(wish) for wish in wishes))
            await asyncio.gather(*(node.start(wish.name) for wish in wishes))
            await node.kill(wishes[1].name)
            assert list((await place.states(node)).values()) == [
                ContainerState.RUNNING,
                ContainerState.STOPPED,
                ContainerState.RUNNING,
            ]

        place.run(body)

    def test_an_image_that_is_not_there(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            unknown = "0" * 64
            assert not await node.has_image(unknown)
            await node.remove_image(unknown)
            with pytest.raises(NodeRefusedError):
                await node.create(replace(place.wish(), image=unknown))
            assert await place.states(node) == {}
            assert await node.has_image(place.image.fingerprint)

        place.run(body)

    def test_a_wish_against_the_policy_is_refused(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            with pytest.raises(NodeRefusedError, match="environment 'LD_PRELOAD'"):
                await node.create(replace(place.wish(), environment={"LD_PRELOAD": "x"}))
            assert await place.states(node) == {}

        place.run(body)

    def test_a_node_says_what_it_has(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            facts = await node.describe()
            assert facts.name == node.name
            assert facts.cores_count >= 1
            assert 0 <= facts.memory_used_bytes < facts.memory_bytes
            assert 0 <= facts.disk_used_bytes < facts.disk_bytes
            assert facts.has_disk_quota == place.site.has_disk_quota
            for protection in facts.protections:
                assert protection.is_active == (not protection.cost)

        place.run(body)

    def test_a_closed_node_answers_nothing(self, place: Place) -> None:
        async def body(node: NodeAdapter) -> None:
            other = await place.open_node()
            await other.close()
            with pytest.raises(NodeUnreachableError):
                await other.containers()

        place.run(body)


async def logged(node: NodeAdapter, name: str, text: str) -> bool:
    return text in await node.logs(name)


async def wait_for(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait for what another process does; a node in memory has done it before the first look."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.05)
