"""This machine as a router between VIs and the IP network: turned on, compared, turned off again.

What was changed is noted in the alias of the bridge, which lives as long as the kernel's settings
do: so whoever removes the bridge, after whatever crash, puts them back. The filters come first:
they let nothing pass but what belongs to VIs, where the machine forwarded nothing before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

from packetcloud.cloudlet.bridges import ALIAS, SYSTEM, NetworkError, device_index
from packetcloud.cloudlet.egress_filters import EgressPlan

_ON, _OFF = "1", "0"
_IPV6 = "ipv6"
_RA_ALSO_WHEN_FORWARDING = "2"


def for_us(plan: EgressPlan) -> frozenset[int]:
    """Return 4, 6 or both: what this machine forwards, or will, because of us alone."""
    words = _noted(plan) or []
    switches = _switches(plan).items()
    ours = [word for word, path in switches if word in words or _value(path) != _ON]
    return frozenset(6 if word == _IPV6 else 4 for word in ours)


def start_forwarding(plan: EgressPlan) -> None:
    """Let this machine forward what comes in by the device of a plan; the bridge is there.

    Raises:
        NetworkError: no such device; or the bridge is somebody else's, and cannot bear the note.
    """
    with IPRoute() as netlink:
        if device_index(netlink, plan.device) is None:
            raise NetworkError(f"[network] egress_device: no device {plan.device}")
        off = {word: path for word, path in _switches(plan).items() if _value(path) != _ON}
        if not off:
            return
        index = device_index(netlink, plan.name)
        words = _noted(plan)
        if words is None:
            raise NetworkError(
                f"bridge {plan.name} is not ours, and this machine does not forward; turn it on "
                f"yourself: {', '.join(f'echo 1 > {path}' for path in off.values())}"
            )
        netlink.link("set", index=index, ifalias=" ".join([ALIAS, *sorted({*words, *off})]))
    if plan.forwards_ipv6:
        _keep_router_advertisements()
    for path in off.values():
        path.write_text(_ON)


def stop_forwarding(plan: EgressPlan) -> None:
    """Turn off what `start_forwarding` turned on; before the filters go."""
    words = _noted(plan) or []
    for word, path in _switches(plan).items():
        if word in words and path.exists():
            path.write_text(_OFF)


def forwarding_problems(plan: EgressPlan) -> Iterator[str]:
    """Yield what is not turned on."""
    for path in _switches(plan).values():
        if _value(path) != _ON:
            yield f"{path} is not {_ON}"


def _switches(plan: EgressPlan) -> dict[str, Path]:
    """Return the kernel's switches, by the word that notes that we turned one on."""
    switches = {f"ipv4:{plan.device}": SYSTEM / f"ipv4/conf/{plan.device}/forwarding"}
    if plan.forwards_ipv6:
        switches[_IPV6] = SYSTEM / "ipv6/conf/all/forwarding"
    return switches


def _noted(plan: EgressPlan) -> list[str] | None:
    """Return what we turned on; None: the bridge is not ours."""
    with IPRoute() as netlink:
        index = device_index(netlink, plan.name)
        if index is None:
            return []
        (link,) = netlink.get_links(index)
        first, *words = (link.get_attr("IFLA_IFALIAS") or "").split(" ")
        return words if first == ALIAS else None


def _keep_router_advertisements() -> None:
    """A router heeds no advertisements of others unless it is told to: it would lose its way."""
    for path in (SYSTEM / "ipv6/conf").glob("*/accept_ra"):
        if _value(path) == _ON:
            path.write_text(_RA_ALSO_WHEN_FORWARDING)


def _value(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # no such device, or no such protocol
