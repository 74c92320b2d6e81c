"""The demonstration's services in containers: for each scenario a cloudlet on a private LXD server.

One server and one image serve all scenarios; router, controller and VIs are started afresh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from packetcloud.cloudlet.images.store import BuiltImage
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.demo.scenario import Scenario, Stage, Step
from packetcloud.testbed.lxd_cloudlet import (
    CloudletPlan,
    CloudletService,
    LxdCloudlet,
    lxd_cloudlet,
)
from packetcloud.testbed.lxd_daemon import LxdDaemon, check_lxd
from packetcloud.testbed.machine import describe_machine
from packetcloud.testbed.vi_images import vi_image

_TYPE = "demo"
_CATALOGUE = """\
catalogue = 1
[[vi_type]]
name = "{name}"
vcpu = {vcpu:.2f}
memory_mib = 384
disk_mib = 512
price_tier = 1
"""


class Containers:
    """The server and the image; use it in a `with` statement.

    Args:
        store: where images are kept; None: where `packetcloud image build` puts them.
        tell: told what happens, in words.
    """

    name = "lxd"

    def __init__(self, store: Path | None, tell: Callable[[str], None]) -> None:
        self.protections: Sequence[Mapping[str, Any]] = ()
        self._store = store
        self._tell = tell
        self._daemon = LxdDaemon()
        self._image: BuiltImage | None = None

    def __enter__(self) -> Self:
        check_lxd()
        self._image = vi_image(self._tell, self._store)
        self._tell("starting LXD")
        self._daemon.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("removing containers and LXD")
        self._daemon.close()

    @contextlib.contextmanager
    def open_stage(self, scenario: Scenario, folder: Path) -> Iterator[Stage]:
        """Router, controller and a container for each step."""
        create_key_file(folder / "aes.key")
        steps = scenario.steps
        cores = describe_machine()["usable_cores"]
        assert isinstance(cores, int)
        types = _CATALOGUE.format(name=_TYPE, vcpu=min(1.0, cores / max(1, len(steps))))
        plan = CloudletPlan([self._service(step, folder) for step in steps], vi_types=types)
        with lxd_cloudlet(folder, plan, servers=[self._daemon]) as cloudlet:
            cloudlet.until_running(len(steps))
            self._look_at(cloudlet)
            yield Stage(
                cloudlet.children,
                folder,
                cloudlet.router,
                cloudlet.router_address,
                [cloudlet.controller],
                dict(cloudlet.sids),
            )
            cloudlet.take_down()

    def _service(self, step: Step, folder: Path) -> CloudletService:
        assert self._image is not None, "it was entered"
        files = {"key_file": folder / "aes.key"} if step.needs_key else {}
        settings: dict[str, Any] = dict(step.settings)
        return CloudletService(
            step.name, step.manifest, self._image, settings, files, {"vi_type": _TYPE}
        )

    def _look_at(self, cloudlet: LxdCloudlet) -> None:
        with cloudlet.client() as client:
            (node,) = client.nodes()
        self.protections = [one.model_dump() for one in node.protections]
