"""From LXD's JSON to frozen values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packetcloud.cloudlet.containers import (
    MAX_LOG_BYTES,
    ContainerFacts,
    ContainerState,
    ContainerUsage,
    LiveConfig,
    NicUsage,
)
from packetcloud.cloudlet.policy import LABEL_PREFIX, WISH_KEY

_STATES = {
    "Stopped": ContainerState.STOPPED,
    "Running": ContainerState.RUNNING,
    "Error": ContainerState.BROKEN,
}
_NANO = 1e-9


def is_unread(instance: Mapping[str, Any]) -> bool:
    """Tell whether a cluster lists an instance by its name alone: its member does not answer.

    The cluster itself takes that member for online until its own time-out is over.
    """
    return instance["status"] == "Error" and not instance.get("config")


def container_facts(instance: Mapping[str, Any]) -> ContainerFacts:
    """Read an instance as `GET /1.0/instances` lists it."""
    config = instance["expanded_config"] or {}
    live = LiveConfig(
        profiles=tuple(instance["profiles"] or ()),
        config=config,
        devices=instance["expanded_devices"] or {},
        kind=instance["type"],
        is_ephemeral=instance["ephemeral"],
    )
    return ContainerFacts(
        name=instance["name"],
        state=_STATES.get(instance["status"], ContainerState.CHANGING),
        image=config.get("volatile.base_image", ""),
        labels={
            key.removeprefix(LABEL_PREFIX): value
            for key, value in config.items()
            if key.startswith(LABEL_PREFIX) and key != WISH_KEY
        },
        live=live,
    )


def container_usage(state: Mapping[str, Any]) -> ContainerUsage:
    """Read `GET /1.0/instances/NAME/state`. LXD says -1 for what it cannot measure."""
    memory = state.get("memory") or {}
    disk = ((state.get("disk") or {}).get("root") or {}).get("usage")
    return ContainerUsage(
        cpu_s=max(0, (state.get("cpu") or {}).get("usage", 0)) * _NANO,
        memory_bytes=max(0, memory.get("usage", 0)),
        memory_peak_bytes=max(0, memory.get("usage_peak", 0)),
        disk_bytes=disk if disk is not None and disk >= 0 else None,
        processes_count=max(0, state.get("processes", 0)),
        nics={
            name: _nic_usage(nic["counters"])
            for name, nic in (state.get("network") or {}).items()
            if name != "lo"
        },
    )


def console_tail(data: bytes) -> str:
    """Return the end of a console as text."""
    return data[-MAX_LOG_BYTES:].decode("utf-8", "replace").replace("\r\n", "\n")


def _nic_usage(counters: Mapping[str, int]) -> NicUsage:
    return NicUsage(
        in_bytes=counters["bytes_received"],
        out_bytes=counters["bytes_sent"],
        in_packets=counters["packets_received"],
        out_packets=counters["packets_sent"],
    )
