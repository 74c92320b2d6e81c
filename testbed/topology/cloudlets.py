"""What the cloudlet controllers of a topology say, each asked inside its router's namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from packetcloud.cloudlet.client import CloudletClient, ControllerUnreachableError
from packetcloud.cloudlet.schemas import ProtectionInfo, ViInfo
from packetcloud.testbed.namespaces import Namespace
from packetcloud.testbed.topology.router_files import CONTROLLER

_LIMIT_S = 10.0
T = TypeVar("T")


def vis_at(place: Namespace) -> list[ViInfo]:
    """Return the VIs of the cloudlet in a namespace.

    Raises:
        ControllerUnreachableError: its controller does not answer.
    """
    return place.run(_ask, CloudletClient.vis)


def protections_at(place: Namespace) -> list[ProtectionInfo]:
    """Return what holds the containers of the cloudlet in a namespace, and what does not.

    Raises:
        ControllerUnreachableError: its controller does not answer.
    """
    return [one for node in place.run(_ask, CloudletClient.nodes) for one in node.protections]


def trouble_at(place: Namespace, service: str) -> str:
    """Return why a service has not all its VIs, as far as the controller knows; empty: it does
    not."""
    try:
        listed = place.run(_ask, CloudletClient.services)
        said = [one.text for one in listed if one.name == service and one.text]
        vis = [one for one in place.run(_ask, CloudletClient.vis) if one.service == service]
        said += [
            f"{one.container} is {one.state}" + (f": {one.why}" if one.why else "")
            for one in vis
            if not one.is_attached
        ]
    except ControllerUnreachableError as error:
        said = [str(error)]
    return "; ".join(said)


def _ask(question: Callable[[CloudletClient], list[T]]) -> list[T]:
    with CloudletClient(f"http://{CONTROLLER}", _LIMIT_S) as client:
        return question(client)
