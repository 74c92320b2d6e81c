"""What a VI is made of: its container, its image, the launch of its service."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.container_checks import LABEL_CLOUDLET, LABEL_INSTANCE, LABEL_VI
from packetcloud.cloudlet.containers import (
    ContainerWish,
    ImageFiles,
    NicAddresses,
    NodeAdapter,
)
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.declared_services import DeclaredService
from packetcloud.cloudlet.egress import EgressPolicy
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import LANES_IN_VI
from packetcloud.services.launch_files import encode_files


class ConfiguredLaunches:
    """The launches that a config file declares.

    Args:
        images: by the name of a service, the image that its VIs are made of.
    """

    def __init__(self, config: CloudletConfig, images: dict[str, ImageFiles]) -> None:
        self.revision = 0
        """Grows with every config, and every folder of the router."""
        self._bringing: dict[str, asyncio.Lock] = {}
        """By node: an image is brought there once, also when many VIs want it."""
        self._brought: set[tuple[str, str]] = set()
        """Nodes and images that have been there."""
        self._lanes: str | None = None
        self.configure(config, images)

    def configure(self, config: CloudletConfig, images: dict[str, ImageFiles]) -> None:
        """Take another config and its images; VIs that there are keep their containers."""
        self.revision += 1
        self.images = images
        self._config = config
        self._services = {one.name: one for one in config.services}
        self._prefix = f"{config.file.cloudlet.name}-"

    @property
    def services(self) -> tuple[DeclaredService, ...]:
        """Those that are declared."""
        return tuple(self._services.values())

    def take_file(self, service: str, name: str, content: bytes) -> None:
        """Launch a service with other content in one of its files from now on."""
        one = self._services[service]
        self._services[service] = dataclasses.replace(one, files={**one.files, name: content})

    def share(self, lanes: str) -> None:
        """Let VIs of this machine that are made now see this folder of the router."""
        self._lanes = lanes
        self.revision += 1

    def files(self, vi: Vi) -> dict[str, str]:
        return encode_files(self._declared(vi).files)

    def container_name(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def number_of(self, container_name: str) -> int | None:
        """Return the number of the VI that a container of this name is; None: none of ours."""
        digits = container_name.removeprefix(self._prefix)
        is_ours = container_name.startswith(self._prefix) and digits.isascii() and digits.isdigit()
        return int(digits) if is_ours and len(digits) < 16 else None

    def limits(self, vi_type: str) -> Limits:
        return self._config.catalogue.get(vi_type).limits

    def control_address(self, vi: Vi) -> str:
        if self._config.file.has_processes:
            return self._config.control_host  # all of this machine call from there
        return str(self._config.network.control.subnet.addresses(vi.address).ipv4.ip)

    def egress_of(self, vi: Vi) -> EgressPolicy | None:
        """Return what the service of a VI is granted in the IP network; None: nothing."""
        declared = self._services.get(vi.service)
        is_granted = declared is not None and declared.egress.is_granted
        return declared.egress if declared is not None and is_granted else None

    def wish(self, vi: Vi, limits: Limits) -> ContainerWish:
        """Return the container for a VI. Raises: NodeRefusedError: its service has no image."""
        network = self._config.network
        data = network.data.subnet.addresses(vi.address)
        egress = self._egress_addresses(vi)
        control = network.control.subnet.addresses(vi.address)
        name = self.container_name(vi.number)
        controller = f"{self._config.control_host}:{network.control.peer_port}"
        return ContainerWish(
            name=name,
            image=self._image_of(vi).fingerprint,
            limits=limits,
            data=data,
            control=control,
            labels={
                LABEL_CLOUDLET: self._config.file.cloudlet.name,
                LABEL_VI: str(vi.number),
                LABEL_INSTANCE: str(vi.instance),
                "service": vi.service,
            },
            environment={
                "PACKETCLOUD_VI": name,
                "PACKETCLOUD_TOKEN": vi.token,
                "PACKETCLOUD_CONTROLLER": controller,
                "PACKETCLOUD_DATA_IPV4": str(data.ipv4),
                "PACKETCLOUD_DATA_IPV6": str(data.ipv6),
                "PACKETCLOUD_CONTROL_IPV4": str(control.ipv4),
                "PACKETCLOUD_CONTROL_IPV6": str(control.ipv6),
                **self._egress_environment(vi, egress),
            },
            egress=egress,
            lanes=self._lanes,
        )

    def _egress_addresses(self, vi: Vi) -> NicAddresses | None:
        """Return the addresses of a VI whose service is granted a way to the IP network."""
        plan = self._config.network.egress
        if plan is None or plan.policy_of(vi.service) is None:
            return None
        return plan.subnet.addresses(vi.address)

    def _egress_environment(self, vi: Vi, egress: NicAddresses | None) -> dict[str, str]:
        plan = self._config.network.egress
        if egress is None or plan is None or (policy := plan.policy_of(vi.service)) is None:
            return {}
        gateways = [plan.peer_ipv4, *([plan.peer_ipv6] if policy.reaches_ipv6 else [])]
        found = {
            "PACKETCLOUD_EGRESS_IPV4": str(egress.ipv4),
            "PACKETCLOUD_EGRESS_IPV6": str(egress.ipv6),
            "PACKETCLOUD_EGRESS_GATEWAYS": " ".join(map(str, gateways)),
        }
        if policy.resolvers:
            found["PACKETCLOUD_RESOLVERS"] = " ".join(map(str, policy.resolvers))
        return found

    def message(self, vi: Vi) -> dict[str, Any]:
        """Return the launch of a VI's service, with the key."""
        declared = self._declared(vi)
        search_path = declared.spec.search_path
        if search_path is not None and not self._config.file.has_processes:
            # The image has the service's own module where every VI's is.
            search_path = "/opt/packetcloud/service"
        # Paths of files that go along are this machine's; the VI has its own.
        own = dict.fromkeys(declared.files, "")
        spec = dataclasses.replace(
            declared.spec,
            instance=vi.instance,
            key_file="",
            search_path=search_path,
            listen=tuple(sorted(set(declared.egress.listen.values()))),
            parameters={**declared.spec.parameters, **own},
            lanes=declared.spec.lanes if self._config.file.has_processes else LANES_IN_VI,
        )
        return {
            "do": "launch",
            "spec": json.loads(spec.to_json()),
            "key": declared.identity.seed.hex(),
            "files": encode_files(declared.files),
        }

    async def bring_image(self, vi: Vi, node: NodeAdapter) -> None:
        """See to it that the node has the image of a VI. Raises: NodeError."""
        await self._bring(self._image_of(vi), node)

    async def bring_images(self, node: NodeAdapter) -> None:
        """Give a node every service's image that it has not been given yet. Raises: NodeError."""
        images = {image.fingerprint: image for image in self.images.values()}
        for image in images.values():
            if (node.name, image.fingerprint) not in self._brought:
                await self._bring(image, node)

    async def _bring(self, image: ImageFiles, node: NodeAdapter) -> None:
        async with self._bringing.setdefault(node.name, asyncio.Lock()):
            if not await node.has_image(image.fingerprint):
                await node.import_image(image)
            self._brought.add((node.name, image.fingerprint))

    def _image_of(self, vi: Vi) -> ImageFiles:
        try:
            return self.images[vi.service]
        except KeyError:
            text = self._declared(vi).no_image(self._config.images_folder)
            raise NodeRefusedError(text) from None

    def _declared(self, vi: Vi) -> DeclaredService:
        try:
            return self._services[vi.service]
        except KeyError:
            raise NodeRefusedError(f"service {vi.service} is no longer declared") from None
