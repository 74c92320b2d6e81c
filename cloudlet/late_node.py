"""A compute node that did not answer when the controller started: opened as soon as it does.

A controller must be able to start while one of its nodes is away. Until that answers, every call is
`NodeUnreachableError`, like those to a node that went away later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from packetcloud.cloudlet.containers import (
    ContainerFacts,
    ContainerUsage,
    ContainerWish,
    ImageFiles,
    NodeAdapter,
    NodeFacts,
)
from packetcloud.cloudlet.errors import NodeUnreachableError
from packetcloud.cloudlet.limits import Limits


class LateNode:
    """One node, under the name that the config gives it. See `NodeAdapter` for each method.

    Args:
        open_node: opens it. Raises: NodeError.
    """

    def __init__(self, name: str, open_node: Callable[[], Awaitable[NodeAdapter]]) -> None:
        self.name = name
        self._open_node = open_node
        self._opening = asyncio.Lock()
        self._node: NodeAdapter | None = None
        self._is_closed = False

    async def describe(self) -> NodeFacts:
        return await (await self._opened()).describe()

    async def containers(self) -> list[ContainerFacts]:
        return await (await self._opened()).containers()

    async def create(self, wish: ContainerWish) -> None:
        await (await self._opened()).create(wish)

    async def start(self, name: str) -> None:
        await (await self._opened()).start(name)

    async def stop(self, name: str, timeout_s: float) -> None:
        await (await self._opened()).stop(name, timeout_s)

    async def kill(self, name: str) -> None:
        await (await self._opened()).kill(name)

    async def delete(self, name: str) -> None:
        await (await self._opened()).delete(name)

    async def resize(self, name: str, limits: Limits) -> None:
        await (await self._opened()).resize(name, limits)

    async def restore(self, name: str, wish: ContainerWish) -> None:
        await (await self._opened()).restore(name, wish)

    async def label(self, name: str, labels: Mapping[str, str]) -> None:
        await (await self._opened()).label(name, labels)

    async def read(self, name: str) -> ContainerFacts:
        return await (await self._opened()).read(name)

    async def usage(self, name: str) -> ContainerUsage:
        return await (await self._opened()).usage(name)

    async def logs(self, name: str) -> str:
        return await (await self._opened()).logs(name)

    async def has_image(self, fingerprint: str) -> bool:
        return await (await self._opened()).has_image(fingerprint)

    async def import_image(self, image: ImageFiles) -> None:
        await (await self._opened()).import_image(image)

    async def remove_image(self, fingerprint: str) -> None:
        await (await self._opened()).remove_image(fingerprint)

    async def close(self) -> None:
        self._is_closed = True
        if self._node is not None:
            await self._node.close()

    async def _opened(self) -> NodeAdapter:
        async with self._opening:
            if self._is_closed and self._node is None:
                raise NodeUnreachableError(f"{self.name}: this connection is closed")
            if self._node is None:
                self._node = await self._open_node()
            return self._node


_ADAPTER: type[NodeAdapter] = LateNode
"""For the type checker: it is a node."""
