"""Child processes as a node: the contract of all nodes, and what is found after a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from packetcloud.cloudlet.containers import ContainerState, NodeAdapter
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.process_node import OWN_PROGRAM, ProcessNode
from tests.node_contract import NodeContract, Place, logged, wait_for
from tests.unit.cloudlet.wishes import SITE, WISH

NO_QUOTA = replace(SITE, has_disk_quota=False)
SLEEPS = ("/bin/sh", "-c", 'echo "up $PACKETCLOUD_TOKEN"; exec sleep 600')
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo up; while true; do sleep 600; done")
OURS = replace(WISH, image=OWN_PROGRAM.fingerprint, environment={"PACKETCLOUD_TOKEN": "t1"})


class TestProcessNode(NodeContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        async def open_node() -> NodeAdapter:
            return ProcessNode("here", NO_QUOTA, tmp_path, SLEEPS)

        yield Place(open_node, NO_QUOTA, OWN_PROGRAM, "vi")


def test_what_runs_is_found_by_the_next_controller(tmp_path: Path) -> None:
    """Its process, its labels and its log; it can be ended by whom it was not started by."""

    async def body() -> None:
        first = ProcessNode("here", NO_QUOTA, tmp_path, SLEEPS)
        await first.create(OURS)
        await first.start(OURS.name)
        await first.label(OURS.name, {"epoch": "2"})
        await first.close()
        second = ProcessNode("here", NO_QUOTA, tmp_path, SLEEPS)
        (facts,) = await second.containers()
        assert facts.state is ContainerState.RUNNING and facts.labels["epoch"] == "2"
        await second.create(OURS)
        await wait_for(lambda: logged(second, OURS.name, "up t1"))
        pid = int((tmp_path / OURS.name / "pid").read_text())
        await second.start(OURS.name)
        assert int((tmp_path / OURS.name / "pid").read_text()) == pid
        waiting = asyncio.create_task(second.stop(OURS.name, 10))
        await asyncio.to_thread(os.waitpid, pid, 0)  # we are its parent, and nobody else asks
        await waiting
        await second.delete(OURS.name)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(body())


def test_who_does_not_end_is_killed(tmp_path: Path) -> None:
    """With all that it started."""

    async def body() -> None:
        node = ProcessNode("here", NO_QUOTA, tmp_path, STUBBORN)
        await node.create(OURS)
        await node.start(OURS.name)
        await wait_for(lambda: logged(node, OURS.name, "up"))
        await node.stop(OURS.name, 0.1)
        assert (await node.read(OURS.name)).state is ContainerState.STOPPED
        await node.delete(OURS.name)

    asyncio.run(body())


def test_a_number_that_became_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    """Here our own: without a look at the token this process would be killed."""

    async def body() -> None:
        node = ProcessNode("here", NO_QUOTA, tmp_path, SLEEPS)
        await node.create(OURS)
        (tmp_path / OURS.name / "pid").write_text(f"{os.getpid()}\n")
        assert (await node.read(OURS.name)).state is ContainerState.STOPPED
        await node.delete(OURS.name)

    asyncio.run(body())


def test_a_program_that_ends_at_once_is_a_stopped_container(tmp_path: Path) -> None:
    async def body() -> None:
        node = ProcessNode("here", NO_QUOTA, tmp_path, ("/bin/sh", "-c", "exit 3"))
        await node.create(OURS)
        await node.start(OURS.name)

        async def is_over() -> bool:
            return (await node.read(OURS.name)).state is ContainerState.STOPPED

        await wait_for(is_over)
        await node.delete(OURS.name)

    asyncio.run(body())


def test_a_file_of_another_version_is_told(tmp_path: Path) -> None:
    (tmp_path / "c1-1").mkdir()
    (tmp_path / "c1-1" / "vi.json").write_text('{"wish": {}}')
    with pytest.raises(NodeRefusedError, match=r"vi\.json cannot be read"):
        ProcessNode("here", NO_QUOTA, tmp_path)
