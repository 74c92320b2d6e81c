"""The end of a cloudlet: VIs are taken off the router's table, then their containers removed."""

from __future__ import annotations

from collections.abc import Callable

from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.container_checks import LABEL_CLOUDLET
from packetcloud.cloudlet.core import commands as do
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.rows import from_rows, to_rows
from packetcloud.cloudlet.core.saved import Saved
from packetcloud.cloudlet.daemon import OpenNodes, open_all_nodes
from packetcloud.cloudlet.router_client import RouterClient
from packetcloud.cloudlet.store import Store


async def remove_vis(
    config: CloudletConfig,
    told: Callable[[str], None],
    open_all: OpenNodes = open_all_nodes,
    router: RouterClient | None = None,
) -> int:
    """Remove every VI of a cloudlet whose controller does not run; returns how many there were.

    May be repeated. A router that does not answer keeps its table until a controller writes one.

    Raises:
        CloudletConfigError: its controller runs, or it had another name.
        NodeError: a node did not do it.
    """
    store = Store(config.state_folder)
    own = router or RouterClient(config.file.router.url, config.file.cloudlet.name, config.token)
    try:
        store.check_cloudlet(config.file.cloudlet.name)
        saved = from_rows(store.load())
        # An epoch and numbers that no later controller of this cloudlet uses again.
        emptied = Saved(saved.epoch + 1, saved.version + 1, saved.next_number)
        store.save(dict(to_rows(emptied)))
        answer = await own.push(do.PushTable(emptied.epoch, emptied.version, None, {}, ()))
        if isinstance(answer, saw.TableUnanswered):
            told(f"the router keeps its table: {answer.text}")
        elif not answer.is_in_force:
            told(f"the router keeps its table: it is another controller's, {answer.fenced_by}")
        return await _remove_containers(config, told, open_all)
    finally:
        await own.close()
        store.close()


async def _remove_containers(
    config: CloudletConfig, told: Callable[[str], None], open_all: OpenNodes
) -> int:
    count = 0
    nodes, _ = await open_all(config)
    try:
        for node in nodes.values():
            for container in await node.containers():
                if container.labels.get(LABEL_CLOUDLET) == config.file.cloudlet.name:
                    told(f"{node.name}: removing {container.name}")
                    await node.delete(container.name)
                    count += 1
    finally:
        for node in nodes.values():
            await node.close()
    return count
