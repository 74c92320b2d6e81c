"""The encrypting service on a workbench: as child processes and, where it is, in LXD's containers.

AES-128-CBC, as in the paper; by OpenSSL, which is what the paper's service uses, and by
PyCryptodome, which is what ours does if nobody says otherwise.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packetcloud.chunk.identity import create_identity_file
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.vi_place import SERVICE, SUITE, ViPlan, Workplace
from packetcloud.testbed.daemons import (
    Router,
    RouterPlan,
    ServiceEntry,
    own_processor,
    start_router,
    start_service,
    wait_attached,
)
from packetcloud.testbed.lxd_cloudlet import CloudletPlan, CloudletService, LxdCloudlet
from packetcloud.testbed.processes import Child, Children
from packetcloud.testbed.protections import protections_of

PROCESS, LXD = "process", "lxd"
OPENSSL, PYCRYPTODOME = "openssl", "pycryptodome"
VI_TYPE = "medium"
"""As much of a core as the service can use: what is compared is isolation, not a limit."""
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Column:
    """One VI that encrypts."""

    back_end: str
    library: str

    @property
    def name(self) -> str:
        return f"{self.back_end}-{self.library}"


@dataclass(frozen=True, slots=True)
class SealingPlace:
    """A router with a VI for each column."""

    children: Children
    router: Router
    address: tuple[str, int]
    """Where hosts of this machine attach to it."""
    sids: Mapping[Column, str]
    key_file: Path
    services: Mapping[Column, Child]
    """Those of them that are child processes."""
    cloudlet: LxdCloudlet | None
    """That has the others."""

    def protections(self) -> list[str]:
        """Return what is in force now, found out from kernel and LXD."""
        found: list[str] = []
        for child in self.services.values():
            found += protections_of(PROCESS, child)
        if self.cloudlet is not None:
            found += protections_of_nodes(self.cloudlet)
        return list(dict.fromkeys(found))


@contextlib.contextmanager
def sealing_place(
    folder: Path, columns: Sequence[Column], tell: Callable[[str], None]
) -> Iterator[SealingPlace]:
    """A router with all columns; a whole cloudlet on a private LXD if one of them wants that.

    Of its folder only logs are left: keys are of nobody any more, and results are passed around.

    Raises:
        TestbedError: something did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_leave_logs_only, folder)
        cloudlet: LxdCloudlet | None = None
        key_file = folder / "aes.key"
        create_key_file(key_file)
        own = [column for column in columns if column.back_end == PROCESS]
        sids = {c: create_identity_file(folder / f"{c.name}.key").guid.hex for c in own}
        entries = [ServiceEntry(sid, column.name) for column, sid in sids.items()]
        if len(own) < len(columns):
            place = Workplace(folder, ViPlan(), Timing(), tell)
            image = place.bundled_image()
            contained = [
                CloudletService(
                    column.name,
                    SERVICE,
                    image,
                    {**SUITE, "library": column.library},
                    {"key_file": key_file},
                    {"vi_type": VI_TYPE, "replicas_max": 1},
                )
                for column in columns
                if column.back_end == LXD
            ]
            plan = CloudletPlan(
                contained, router_services=entries, router_processors=own_processor()
            )
            cloudlet = stack.enter_context(place.cloudlet(plan))
            children, router = cloudlet.children, cloudlet.router
            address = cloudlet.router_address
            cloudlet.until_running(len(contained))
            by_name = {column.name: column for column in columns}
            sids |= {by_name[name]: sid for name, sid in cloudlet.sids.items()}
        else:
            children = stack.enter_context(Children())
            anywhere = (LOCALHOST, 0)
            router = start_router(
                children, RouterPlan(anywhere, anywhere, entries, processors=own_processor())
            )
            address = router.address
        services = {}
        for column in own:
            settings = {**SUITE, "library": column.library, "key_file": key_file}
            key = folder / f"{column.name}.key"
            services[column] = start_service(children, column.name, SERVICE, address, key, settings)
            wait_attached(router, services[column], sids[column])
        yield SealingPlace(children, router, address, sids, key_file, services, cloudlet)


def protections_of_nodes(cloudlet: LxdCloudlet) -> list[str]:
    """Return what the controller of a cloudlet says of its nodes, as operators see it."""
    found = []
    with cloudlet.client() as client:
        for node in client.nodes():
            active = [one.name for one in node.protections if one.is_active]
            found.append(f"lxd, node {node.name}: in force are {', '.join(active) or 'none'}.")
            found += [
                f"lxd, node {node.name}: not in force is {one.name}: {one.cost}."
                for one in node.protections
                if not one.is_active
            ]
    return found


def _leave_logs_only(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.suffix != ".log":
            path.unlink()
