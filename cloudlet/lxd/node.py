"""The adapter of one compute node: an LXD server, or one member of an LXD cluster."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from pylxd.exceptions import LXDAPIException, NotFound
from requests_toolbelt import MultipartEncoder

from packetcloud.cloudlet.container_config import (
    ContainerConfig,
    build,
    label_config,
    limit_config,
    restored_config,
    root_device,
)
from packetcloud.cloudlet.containers import (
    MAX_LOG_BYTES,
    ContainerFacts,
    ContainerUsage,
    ContainerWish,
    ImageFiles,
    NodeFacts,
)
from packetcloud.cloudlet.errors import (
    ContainerExistsError,
    ContainerMissingError,
    NodeError,
    NodeRefusedError,
    NodeUnreachableError,
)
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.lxd.connection import Api, LxdConnection, translated
from packetcloud.cloudlet.lxd.operations import creations, finish, under_way, wait
from packetcloud.cloudlet.lxd.project import PROJECT, allow_lanes
from packetcloud.cloudlet.lxd.protections import POOLS_WITH_QUOTA, find_protections
from packetcloud.cloudlet.lxd.replies import (
    console_tail,
    container_facts,
    container_usage,
    is_unread,
)
from packetcloud.cloudlet.policy import LANES_DEVICE, WISH_KEY, NodeSite

CREATE_TIMEOUT_S = 120.0
"""The first container of an image unpacks it."""
CHANGE_TIMEOUT_S = 60.0
IMPORT_TIMEOUT_S = 600.0
STOP_MARGIN_S = 10.0
"""LXD's own work around a stop: interfaces, filters, mounts."""
_log = logging.getLogger("packetcloud.cloudlet")


class LxdNode:
    """One node. See `NodeAdapter` for what each method promises.

    Args:
        member: name in the cluster; None for a server of its own.
    """

    def __init__(
        self, connection: LxdConnection, name: str, site: NodeSite, member: str | None = None
    ) -> None:
        self.name = name
        self.site = site
        self._connection = connection
        self._member = member
        self._creation = asyncio.Lock()
        self._seen_made: set[str] = set()
        self._consoles: dict[str, bytes] = {}
        self._listed: tuple[bytes, list[ContainerFacts]] = (b"", [])
        """What the server said of all containers last, and what that means."""

    async def describe(self) -> NodeFacts:
        # Asked about a project, LXD keeps the server's own warnings to itself.
        warnings = await self._connection.call(_warnings, is_of_project=False)
        return await self._connection.call(lambda api: self._describe(api, warnings))

    async def containers(self) -> list[ContainerFacts]:
        return await self._connection.call(self._containers)

    async def create(self, wish: ContainerWish) -> None:
        # One after the other: LXD 5.0 picks a container's range of ids before it writes down the
        # last one's, so two that are made at once may get the same, or one that is not its own.
        async with self._creation:
            await self._connection.call(lambda api: self._create(api, wish))

    async def start(self, name: str) -> None:
        await self._connection.call(lambda api: _change_state(api, name, "start", "Running"))

    async def stop(self, name: str, timeout_s: float) -> None:
        await self._connection.call(lambda api: _stop(api, name, timeout_s))

    async def kill(self, name: str) -> None:
        await self._connection.call(lambda api: _kill(api, name))

    async def delete(self, name: str) -> None:
        self._seen_made.discard(name)
        self._consoles.pop(name, None)
        await self._connection.call(lambda api: _delete(api, name))

    async def resize(self, name: str, limits: Limits) -> None:
        document = {
            "config": limit_config(limits),
            "devices": {"root": root_device(limits, self.site)},
        }
        await self._patch(name, document)

    async def restore(self, name: str, wish: ContainerWish) -> None:
        built = build(wish, self.site)

        def work(api: Api) -> None:
            _settle(api, name, CHANGE_TIMEOUT_S)
            before = _instance(api, name)
            document = {
                "architecture": before["architecture"],
                "config": restored_config(before["config"], built),
                "description": before["description"],
                "devices": _devices(api, built),
                "ephemeral": False,
                "profiles": [],
            }
            finish(api, api.instances[name].put(json=document), CHANGE_TIMEOUT_S)

        await self._connection.call(work)

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        await self._patch(name, {"config": label_config(labels)})

    async def read(self, name: str) -> ContainerFacts:
        return await self._connection.call(lambda api: container_facts(_instance(api, name)))

    async def usage(self, name: str) -> ContainerUsage:
        return await self._connection.call(
            lambda api: container_usage(api.instances[name].state.get().json()["metadata"])
        )

    async def logs(self, name: str) -> str:
        """LXD gives each piece of a running container's console once; we keep the end of them.

        What was read before this object was made is therefore not in it.
        """
        is_running, piece = await self._connection.call(lambda api: _console(api, name))
        whole = self._consoles.get(name, b"") + piece
        if is_running:  # a stopped one's rest can be read again and again
            self._consoles[name] = whole[-MAX_LOG_BYTES:]
        return console_tail(whole)

    async def has_image(self, fingerprint: str) -> bool:
        return await self._connection.call(lambda api: _has_image(api, fingerprint))

    async def import_image(self, image: ImageFiles) -> None:
        await self._connection.call(lambda api: _import_image(api, image))

    async def remove_image(self, fingerprint: str) -> None:
        await self._connection.call(lambda api: _remove_image(api, fingerprint))

    async def close(self) -> None:
        self._connection.close()

    async def _patch(self, name: str, document: Mapping[str, Any]) -> None:
        def work(api: Api) -> None:
            finish(api, api.instances[name].patch(json=document), CHANGE_TIMEOUT_S)

        await self._connection.call(work)

    def _target(self) -> dict[str, str]:
        return {} if self._member is None else {"target": self._member}

    def _check_member(self, api: Api) -> None:
        """The cluster answers also for a member that it has lost, with what it last knew of it.

        Raises:
            NodeUnreachableError: this node is such a member, or none at all any more.
        """
        if self._member is None:
            return
        try:
            status = api.cluster.members[self._member].get().json()["metadata"]["status"]
        except NotFound:
            raise NodeUnreachableError(
                f"{self._member}: no member of the cluster any more"
            ) from None
        if status != "Online":
            raise NodeUnreachableError(f"{self._member}: the cluster says {status.lower()}")

    def _describe(self, api: Api, warnings: list[Mapping[str, Any]]) -> NodeFacts:
        self._check_member(api)
        target = self._target()
        server = api.get(params=dict(target)).json()["metadata"]
        resources = api.resources.get(params=dict(target)).json()["metadata"]
        pool = api.storage_pools[self.site.pool]
        driver = pool.get().json()["metadata"]["driver"]
        space = pool.resources.get(params=dict(target)).json()["metadata"]["space"]
        project = api.projects[PROJECT].get().json()["metadata"]["config"]
        here = [one for one in warnings if one.get("location") in ("", "none", self._member)]
        return NodeFacts(
            name=self.name,
            server_version=server["environment"]["server_version"],
            cores_count=resources["cpu"]["total"],
            memory_bytes=resources["memory"]["total"],
            memory_used_bytes=resources["memory"]["used"],
            pool=self.site.pool,
            disk_bytes=space["total"],
            disk_used_bytes=space["used"],
            has_disk_quota=driver in POOLS_WITH_QUOTA,
            protections=find_protections(server, project, here, driver),
        )

    def _containers(self, api: Api) -> list[ContainerFacts]:
        self._check_member(api)
        # Said again word for word it means the same: half a MiB of JSON is not read anew. Every
        # word counts, so that what somebody changed in whatever way is read.
        answer = api.instances.get(params={"recursion": 1}, is_api=False)
        before, known = self._listed
        if answer.content == before:
            return known
        listing = answer.json()["metadata"]
        here = [one for one in listing if self._member in (None, one["location"])]
        if self._member is not None and any(map(is_unread, here)):
            raise NodeUnreachableError(f"{self._member}: the cluster gets no answer from it")
        found = sorted(map(container_facts, here), key=lambda facts: facts.name)
        self._listed = (answer.content, found)
        return found

    def _create(self, api: Api, wish: ContainerWish) -> None:
        digest = wish_digest(wish)
        built = build(wish, self.site)
        deadline = time.monotonic() + CREATE_TIMEOUT_S
        for operation in creations(api):  # begun before our restart, or whose answer was lost
            _wait_out(api, operation, deadline)
        if self._is_made(api, wish.name, digest, deadline):
            return
        document = {
            "name": wish.name,
            "type": "container",
            "source": {"type": "image", "fingerprint": wish.image},
            "profiles": [],
            "config": {**built.config, WISH_KEY: digest},
            "devices": _devices(api, built),
        }
        try:
            response = api.instances.post(json=document, params=self._target())
            finish(api, response, deadline - time.monotonic())
            self._seen_made.add(wish.name)
        except NotFound as error:
            raise NodeRefusedError(f"container {wish.name}: image {wish.image}: {error}") from error
        except (LXDAPIException, ContainerExistsError) as error:
            # An earlier call of ours may have come to the server after we looked.
            if "already exists" in str(error).lower() and self._is_made(
                api, wish.name, digest, deadline
            ):
                return
            raise

    def _is_made(self, api: Api, name: str, digest: str, deadline: float) -> bool:
        """Tell whether an earlier call made this container whole; what it left half is removed.

        That is known when we saw its creation end, or when it has run: the server writes it down
        before its disk is there, and a crash of the server leaves it so.
        """
        try:
            instance = _instance(api, name)
        except ContainerMissingError:
            return False
        if instance["config"].get(WISH_KEY) != digest or self._member not in (
            None,
            instance["location"],
        ):
            raise ContainerExistsError(f"container {name}: another one has this name")
        if name in self._seen_made or "volatile.last_state.power" in instance["config"]:
            return True
        _delete(api, name)
        return False


def wish_digest(wish: ContainerWish) -> str:
    """Return what equal wishes have in common and others have not.

    Not the lanes: a VI that was made before its router was there does without.
    """
    document: dict[str, object] = {
        "name": wish.name,
        "image": wish.image,
        "limits": [getattr(wish.limits, name) for name in Limits.__slots__],
        "nics": [str(nic.ipv4) + str(nic.ipv6) for nic in (wish.data, wish.control)],
        "labels": dict(wish.labels),
        "environment": dict(wish.environment),
    }
    if wish.egress is not None:
        document["egress"] = str(wish.egress.ipv4) + str(wish.egress.ipv6)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _devices(api: Api, built: ContainerConfig) -> dict[str, dict[str, str]]:
    """Return a container's devices, without the lanes where the project does not allow them."""
    devices = {name: dict(device) for name, device in built.devices.items()}
    lanes = devices.get(LANES_DEVICE)
    if lanes is not None and not allow_lanes(api, lanes["source"].rpartition("/")[0]):
        _log.warning("the project does not allow %s: a VI shares no memory", lanes["source"])
        del devices[LANES_DEVICE]
    return devices


def _warnings(api: Api) -> list[Mapping[str, Any]]:
    """Return what the server, or its cluster, warns of."""
    found: list[Mapping[str, Any]] = api.warnings.get(params={"recursion": 1}).json()["metadata"]
    return found


def _instance(api: Api, name: str) -> Any:
    try:
        return api.instances[name].get().json()["metadata"]
    except NotFound:
        raise ContainerMissingError(f"no container {name}") from None


def _settle(api: Api, name: str, timeout_s: float) -> None:
    """Wait for what is in progress on a container: the server takes one change at a time."""
    deadline = time.monotonic() + timeout_s
    for operation in under_way(api, name):
        _wait_out(api, operation, deadline)


def _wait_out(api: Api, operation: Any, deadline: float) -> None:
    """Wait for the end of an operation, whatever that is: whoever began it was told."""
    try:
        wait(api, operation, deadline)
    except NodeUnreachableError:
        raise
    except NodeError:
        return


def _change_state(
    api: Api, name: str, action: str, wanted: str, *, force: bool = False, timeout_s: float = 30
) -> None:
    """Bring a container into a state; being there already is success."""
    _settle(api, name, CHANGE_TIMEOUT_S)
    if _instance(api, name)["status"] == wanted:
        return
    document = {"action": action, "timeout": round(timeout_s), "force": force}
    try:
        response = api.instances[name].state.put(json=document)
        finish(api, response, timeout_s + CHANGE_TIMEOUT_S)
    except (NodeError, LXDAPIException) as error:
        # It may have come there by itself meanwhile: a crash, a repeated call.
        if _instance(api, name)["status"] != wanted:
            raise error if isinstance(error, NodeError) else translated(error, name) from None


def _stop(api: Api, name: str, timeout_s: float) -> None:
    try:
        _change_state(api, name, "stop", "Stopped", timeout_s=max(1, timeout_s))
    except NodeRefusedError:
        _kill(api, name)


def _kill(api: Api, name: str) -> None:
    _change_state(api, name, "stop", "Stopped", force=True)


def _delete(api: Api, name: str) -> None:
    for is_last in (False, True):
        try:
            _kill(api, name)
            finish(api, api.instances[name].delete(), CHANGE_TIMEOUT_S)
            return
        except (ContainerMissingError, NotFound):
            return
        except NodeRefusedError:
            # Somebody else was deleting it, or starting it again: look once more.
            if is_last:
                raise


def _console(api: Api, name: str) -> tuple[bool, bytes]:
    """Return whether it runs, and the part of its console that was not read yet."""
    is_running = _instance(api, name)["status"] == "Running"
    try:
        response = api.instances[name].console.get(params={"type": "log"}, is_api=False)
    except LXDAPIException as error:
        if "no such file" in str(error) or isinstance(error, NotFound):
            return is_running, b""  # nothing was said since
        raise
    return is_running, response.content


def _has_image(api: Api, fingerprint: str) -> bool:
    try:
        found = api.images[fingerprint].get().json()["metadata"]["fingerprint"]
    except NotFound:
        return False
    return bool(found == fingerprint)


def _import_image(api: Api, image: ImageFiles) -> None:
    if _has_image(api, image.fingerprint):
        return
    headers = {"X-LXD-fingerprint": image.fingerprint}
    try:
        if len(image.files) == 1:
            with image.files[0].open("rb") as stream:
                response = api.images.post(data=stream, headers=headers)
        else:
            metadata, root = image.files
            with metadata.open("rb") as first, root.open("rb") as second:
                form = MultipartEncoder(
                    {
                        "metadata": (metadata.name, first, "application/octet-stream"),
                        "rootfs": (root.name, second, "application/octet-stream"),
                    }
                )
                headers["Content-Type"] = form.content_type
                response = api.images.post(data=form, headers=headers)
        finish(api, response, IMPORT_TIMEOUT_S)
    except (NodeError, LXDAPIException):
        # Another import of the same files may have come first.
        if not _has_image(api, image.fingerprint):
            raise


def _remove_image(api: Api, fingerprint: str) -> None:
    try:
        finish(api, api.images[fingerprint].delete(), CHANGE_TIMEOUT_S)
    except (ContainerMissingError, NotFound):
        return
