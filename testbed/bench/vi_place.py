"""What the parts of `bench vi` share: sizes, images, a cloudlet on private LXD servers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, Self

from packetcloud.cloudlet.images.store import BuiltImage
from packetcloud.cloudlet.schemas import OperationInfo, ViInfo
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.bench.rounds import Progress as Tell
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.lxd_cloudlet import (
    LIMIT_S,
    CloudletPlan,
    CloudletService,
    LxdCloudlet,
    lxd_cloudlet,
)
from packetcloud.testbed.lxd_daemon import LxdDaemon
from packetcloud.testbed.tally import NAME, lay_tally
from packetcloud.testbed.vi_images import vi_image

PARTS = ("penalty", "cold", "standby", "resize", "migration", "idle")
SERVICE = "secure-communication"
SUITE = {"direction": "encrypt", "suite": "aes-128-cbc"}
"""As in the paper, and as in `bench service`."""


@dataclass(frozen=True, slots=True)
class ViPlan:
    """What is measured, and how often."""

    parts: Sequence[str] = PARTS
    launches: int = 100
    resizes: int = 100
    migrations: int = 100
    rate: float = 200.0
    """Chunks per second during migrations."""
    vis: int = 50
    """On one node, idle."""
    settle_s: float = 5.0
    """After the last one's launch, until what it started has come to rest."""
    idle_s: float = 10.0
    """At least: a tick of processor time is 10 ms, of so long that is a thousandth."""
    sizes: Sequence[int] = (64 << 10, 1 << 20)
    """Of the chunks whose delay penalty is measured; the last one's ratio stands at the top."""
    images: Path | None = None
    """Where images are kept; None: where `packetcloud image build` puts them."""
    forgets: bool = False
    """A control: the state of a VI that moves is thrown away, and the judge must see it."""


class Servers:
    """Private LXD servers, which the cloudlets of several parts have one after the other: to start
    one and give it the image takes longer than most parts. Use it in a `with` statement."""

    def __init__(self) -> None:
        self._running: list[LxdDaemon] = []
        self._pool_mib = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(0)

    @contextlib.contextmanager
    def lent(self, count: int, pool_mib: int) -> Iterator[Sequence[LxdDaemon]]:
        """So many servers, no more, with pools of at least this size.

        Whoever has them takes its VIs down. After an error nobody did: the next has fresh ones.

        Raises:
            TestbedError: one does not start.
        """
        self._end(count if self._pool_mib >= pool_mib else 0)
        if not self._running:
            self._pool_mib = pool_mib
        try:
            while len(self._running) < count:
                self._running.append(LxdDaemon(pool_mib=self._pool_mib).__enter__())
            yield tuple(self._running)
        except BaseException:
            self._end(0)
            raise

    def _end(self, kept: int) -> None:
        while len(self._running) > kept:
            self._running.pop().close()


@dataclass(slots=True)
class Workplace:
    """Where a part is measured: an empty folder, and images that are built when they are needed."""

    folder: Path
    plan: ViPlan
    timing: Timing
    tell: Tell
    failures: list[str] = field(default_factory=list)
    """What went wrong and did not end the part."""
    servers: Servers | None = None
    """None: its cloudlet has servers of its own, which end with it."""

    def bundled_image(self) -> BuiltImage:
        """Return the image of all bundled services."""
        return self._image()

    def sealing_service(self, name: str, **table: int | float | str) -> CloudletService:
        """Return the encrypting service, with a key file of this folder."""
        key_file = self.key_file()
        image = self.bundled_image()
        return CloudletService(name, SERVICE, image, SUITE, {"key_file": key_file}, table)

    def key_file(self) -> Path:
        path = self.folder / "aes.key"
        if not path.exists():
            create_key_file(path)
        return path

    def tally_service(self, **table: int | float | str) -> CloudletService:
        """Return the service that counts."""
        manifest = self.folder / NAME
        if not manifest.exists():
            lay_tally(self.folder)
        image = self._image(manifest)
        settings = {"forgets": self.plan.forgets}
        return CloudletService(NAME, str(manifest), image, settings, {}, table)

    @contextlib.contextmanager
    def cloudlet(self, plan: CloudletPlan) -> Iterator[LxdCloudlet]:
        """A cloudlet that runs; nothing is left of it."""
        self.tell(f"starting {plan.nodes_count} LXD, router and controller")
        with contextlib.ExitStack() as stack:
            lent: Sequence[LxdDaemon] = ()
            if self.servers is not None:
                lent = stack.enter_context(self.servers.lent(plan.nodes_count, plan.pool_mib))
            made = stack.enter_context(lxd_cloudlet(self.folder, plan, servers=lent))
            yield made
            self.tell("removing it all")
            if lent:
                made.take_down()

    def _image(self, manifest: Path | None = None) -> BuiltImage:
        return vi_image(self.tell, self.plan.images, manifest)


@contextlib.contextmanager
def workplace(
    plan: ViPlan, timing: Timing, tell: Tell, servers: Servers | None = None
) -> Iterator[Workplace]:
    """A folder for one part, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="packetcloud-bench-vi-") as folder:
        yield Workplace(Path(folder), plan, timing, tell, servers=servers)


def owner(cloudlet: LxdCloudlet) -> ViInfo:
    """Return the one VI that serves.

    Raises:
        ChildError: there is none, or more than one.
    """
    found = [one for one in cloudlet.list_vis() if one.role == "owner" and not one.is_leaving]
    if len(found) != 1:
        raise ChildError(f"{len(found)} VIs serve, wanted 1: {found}\n{cloudlet.logs()}")
    return found[0]


def done(cloudlet: LxdCloudlet, what: str, begun: OperationInfo) -> None:
    """Wait for the end of an operation.

    Raises:
        ChildError: it was refused, came to nothing, or takes too long.
    """
    with cloudlet.client() as client:
        end = client.await_end(begun, LIMIT_S)
    if end.state != "done":
        raise ChildError(f"{what}: {end.state}: {end.text}")


def spread(values_s: Sequence[float]) -> dict[str, Any]:
    """Return median, 95th percentile, extremes and every sample; None where there is no value."""
    if not values_s:
        return {"p50_s": None, "p95_s": None, "min_s": None, "max_s": None, "samples_s": []}
    cuts = quantiles(values_s, n=100, method="inclusive") if len(values_s) > 1 else [*values_s] * 99
    return {
        "p50_s": cuts[49],
        "p95_s": cuts[94],
        "min_s": min(values_s),
        "max_s": max(values_s),
        "samples_s": list(values_s),
    }
