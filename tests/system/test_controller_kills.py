"""SIGKILL of the cloudlet controller at each step of a launch, a resize, a migration: real LXD.

A step is a command that is written down and not carried out yet: every third one is tried, each one
with `--controller-kills commands`; with `all` also each answer, carried out and not written down.
The next controller brings everything to one owner for each slot, without a container that is
nobody's; no chunk is lost or doubled meanwhile.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.system import killed_controller
from tests.system.fault_cloudlet import ALLOWANCES, FaultCloudlet, fault_cloudlet
from tests.system.lxd_places import needs_lxd
from tests.system.paced_host import Paced
from tests.system.vi_image import BUILD_TIMEOUT_S

LIMIT_S = 20.0
"""For what follows from a wish, up to the kill."""
RATE = 40.0
FEW = 3
"""Of so many commands one."""
pytestmark = [
    pytest.mark.timeout(BUILD_TIMEOUT_S),  # of several, the first counts
    *needs_lxd,
    pytest.mark.needs("debootstrap"),
]


@dataclass
class Scene:
    """A cloudlet on two servers, with a service that has a state under load."""

    cloudlet: FaultCloudlet
    traffic: Paced
    kills: str

    def at_each_step(
        self,
        wish: Callable[[], object],
        is_done: Callable[[], object],
        after: Callable[[], object],
        first: str,
    ) -> list[str]:
        """Have the controller killed at each step of what follows from `wish`; returns all steps.

        Args:
            first: the first step; what comes before it, such as an update of the table that was
                still due, follows from something else.
            is_done: tells that it is done, where no controller is killed.
            after: checks what the next controller made of it, and sees to it that the same can be
                wished again.
        """
        found = self._steps_of(wish, is_done)
        assert first in found, found
        found = found[found.index(first) :]
        steps = self._chosen(found)
        after()
        self.cloudlet.stop_controller()
        self.cloudlet.start_fragile_controller(steps[0])
        killed: list[str] = []
        for step, following in itertools.pairwise([*steps, ""]):
            self.until_settled()
            self._arm()
            wish()
            if self._until_killed():
                killed.append(step)
            else:  # such as an update of the table that went along with another this time
                self.cloudlet.stop_controller()
            self._disarm()
            self.cloudlet.start_fragile_controller(following)
            after()
            self.until_settled()
            self.traffic.flowing()
        assert killed[:1] == steps[:1] and len(killed) > len(steps) // 2, f"{killed} of {steps}"
        return found

    def until_settled(self) -> None:
        """Wait until every VI runs, each slot has one owner, and no container is nobody's."""

        def is_so() -> bool:
            vis = self.cloudlet.vis()
            slots = [(one["service"], one["slot"]) for one in vis]
            return (
                self.cloudlet.is_in_order()
                and all(one["state"] == "running" and one["is_attached"] for one in vis)
                and all(one["role"] == "owner" and not one["is_leaving"] for one in vis)
                and len(slots) == len(set(slots))
                and vis != []
                and sorted(one["container"] for one in vis) == self.cloudlet.containers()
            )

        self.cloudlet.until(is_so)

    def _steps_of(self, wish: Callable[[], object], is_done: Callable[[], object]) -> list[str]:
        self.cloudlet.stop_controller()
        self.cloudlet.start_fragile_controller()
        self.until_settled()
        self._arm()
        wish()
        self.cloudlet.until(is_done)
        self.until_settled()
        path = self.cloudlet.folder / killed_controller.STEPS
        steps = path.read_text().splitlines()
        self._disarm()
        return steps

    def _chosen(self, steps: list[str]) -> list[str]:
        if self.kills == "all":
            return steps
        commands = [step for step in steps if killed_controller.is_command(step)]
        return commands if self.kills == "commands" else commands[::FEW]

    def _arm(self) -> None:
        (self.cloudlet.folder / killed_controller.STEPS).unlink(missing_ok=True)
        (self.cloudlet.folder / killed_controller.ARMED).touch()

    def _disarm(self) -> None:
        (self.cloudlet.folder / killed_controller.ARMED).unlink()

    def _until_killed(self) -> bool:
        controller = self.cloudlet.controller
        end = time.monotonic() + LIMIT_S
        while controller.is_running and time.monotonic() < end:
            time.sleep(0.02)
        return controller.poll_exit() == -signal.SIGKILL


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    services = {"tally": {}, "strict": {"replicas_min": 0}}
    folder = tmp_path_factory.mktemp("kills")
    with fault_cloudlet(folder, services, nodes_count=2) as cloudlet:
        cloudlet.until_running()
        traffic = cloudlet.paced("tally", RATE)
        try:
            yield Scene(cloudlet, traffic, request.config.getoption("--controller-kills"))
            traffic.stop()
            assert traffic.broken_promises() == []
            assert traffic.broken_counts() == []
        finally:
            traffic.kill()


def test_killed_at_each_step_of_a_launch(scene: Scene) -> None:
    """A VI that was asked for runs in the end, once."""
    cloudlet = scene.cloudlet

    def is_done() -> bool:
        return len(cloudlet.vis_of("strict")) == 1

    def after() -> None:
        cloudlet.until(is_done)
        scene.until_settled()
        stopped = cloudlet.ask("vi", "stop", cloudlet.vi_of("strict")["number"])
        assert stopped["state"] == "done"

    steps = scene.at_each_step(
        lambda: cloudlet.ask("vi", "launch", "strict", "--no-wait", code=None),
        is_done,
        after,
        "DoWork create #1",
    )
    assert {"DoWork create #1", "DoWork start #1", "SendLaunch #1", "PushTable #1"} <= set(steps)


def test_killed_at_each_step_of_a_resize(scene: Scene) -> None:
    """What was asked for is done, at the container too."""
    cloudlet = scene.cloudlet
    types = ["medium", "small"]

    def wish() -> None:
        cloudlet.ask(
            "vi", "resize", cloudlet.vi_of("tally")["number"], types[0], "--no-wait", code=None
        )

    def is_done() -> bool:
        return bool(cloudlet.vi_of("tally")["vi_type"] == types[0])

    def after() -> None:
        cloudlet.until(is_done)
        config = cloudlet.container_config(cloudlet.vi_of("tally"))
        assert config["limits.cpu.allowance"] == ALLOWANCES[types[0]]
        types.reverse()

    scene.at_each_step(wish, is_done, after, "DoWork resize #1")


def test_killed_at_each_step_of_a_migration(scene: Scene) -> None:
    """It is undone before its new owner is written down, and completed afterwards."""
    cloudlet = scene.cloudlet

    def wish() -> None:
        cloudlet.ask("vi", "migrate", cloudlet.vi_of("tally")["number"], "--no-wait", code=None)

    epochs = [cloudlet.vi_of("tally")["owner_epoch"]]

    def is_done() -> bool:
        return bool(cloudlet.vi_of("tally")["owner_epoch"] == epochs[0] + 1)

    def after() -> None:
        cloudlet.until(lambda: cloudlet.is_settled("tally"))
        epochs.append(cloudlet.vi_of("tally")["owner_epoch"])

    steps = scene.at_each_step(wish, is_done, after, "DoWork create #1")
    commands = {step.rpartition(" #")[0] for step in steps}
    assert {
        *("DoWork create", "DoWork start", "SendLaunch", "PushTable", "AwaitIdle"),
        *("ExportState", "ImportState", "DropState", "DoWork stop", "DoWork delete"),
    } <= commands
    moved = [later - before for before, later in itertools.pairwise(epochs)]
    assert set(moved) == {0, 1}, "some were undone, some completed, and none twice"
