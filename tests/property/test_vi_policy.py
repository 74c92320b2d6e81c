"""Whatever a tenant asks for, the configuration that comes out fulfils the policy (Z11)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from packetcloud.cloudlet.container_config import build
from packetcloud.cloudlet.containers import ContainerWish, NicAddresses
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.policy import FIXED_CONFIG, LANES_SOURCE, NodeSite, live_violations
from tests.unit.cloudlet.wishes import SITE, WISH, as_live

TEXTS = st.one_of(st.text(max_size=80), st.from_regex(r"[a-zA-Z][a-zA-Z0-9_.-]{0,30}"))
NUMBERS = st.one_of(st.integers(-2, 1 << 33), st.floats(), st.booleans())
SOURCES = st.dictionaries(TEXTS, TEXTS, max_size=6)
NICS = st.builds(
    NicAddresses,
    st.builds(lambda address: IPv4Interface((address, 24)), st.ip_addresses(v=4)),
    st.builds(lambda address: IPv6Interface((address, 64)), st.ip_addresses(v=6)),
)
WISHES = st.builds(
    ContainerWish,
    name=st.one_of(TEXTS, st.just("vi-1")),
    image=st.one_of(TEXTS, st.just("0f" * 32)),
    limits=st.one_of(
        st.builds(Limits, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        st.builds(
            Limits, st.floats(0.01, 64), *[st.integers(1, 1 << 20).map(int) for _ in range(5)]
        ),
    ),
    data=NICS,
    control=NICS,
    labels=SOURCES,
    environment=SOURCES,
    lanes=st.one_of(st.none(), TEXTS, st.from_regex(LANES_SOURCE, fullmatch=True)),
)
DEVICE_KEYS = st.sampled_from(
    ["type", "path", "source", "pool", "parent", "network", "nictype", "hwaddr", "size", "listen"]
)


def _refused_or_allowed(wish: ContainerWish, site: NodeSite) -> None:
    try:
        built = build(wish, site)
    except NodeRefusedError as error:
        assert str(error)
        return
    assert live_violations(as_live(built), site) == []
    for key in built.config.keys() - FIXED_CONFIG.keys():
        assert "\n" not in key + built.config[key]
    assert all("\n" not in text for device in built.devices.values() for text in device.values())


@settings(max_examples=500)
@given(wish=WISHES, has_disk_quota=st.booleans(), is_here=st.booleans())
@example(
    wish=replace(WISH, data=NicAddresses(IPv4Interface("255.255.255.255"), WISH.data.ipv6)),
    has_disk_quota=True,
    is_here=False,
)
def test_a_wish_is_refused_or_its_container_is_allowed(
    wish: ContainerWish, has_disk_quota: bool, is_here: bool
) -> None:
    """No value of a wish, however odd, makes a container that the policy would stop."""
    _refused_or_allowed(wish, replace(SITE, has_disk_quota=has_disk_quota, is_here=is_here))


@given(
    name=st.one_of(st.sampled_from(sorted(build(WISH, SITE).config)), TEXTS),
    value=st.one_of(st.none(), TEXTS),
)
def test_a_changed_key_is_found_or_means_the_same(name: str, value: str | None) -> None:
    """Only what LXD and our labels may hold, and the size of a limit, can change unseen."""
    live = as_live(build(WISH, SITE))
    config: dict[str, Any] = {**live.config, name: value}
    if value is None:
        del config[name]
    found = live_violations(replace(live, config=config), SITE)
    is_free = name.startswith(
        ("user.packetcloud.", "environment.PACKETCLOUD_", "image.", "volatile.", "limits.")
    )
    assert found or is_free or config == dict(live.config)


@given(
    device=st.sampled_from(["root", "eth0", "eth1", "other"]),
    key=DEVICE_KEYS,
    value=TEXTS,
)
def test_a_changed_device_is_found(device: str, key: str, value: str) -> None:
    """No key of a device can be set to anything that the policy does not name."""
    live = as_live(build(WISH, SITE))
    devices = {name: dict(keys) for name, keys in live.devices.items()}
    before = devices.setdefault(device, {}).get(key)
    devices[device][key] = value
    found = live_violations(replace(live, devices=devices), SITE)
    assert bool(found) == (value != before) or (key == "size" and not found)


@given(address=st.ip_addresses())
def test_an_address_of_a_nic_is_one_host(address: IPv4Address | IPv6Address) -> None:
    """What the filters let pass is one unicast address, never a group, a loopback or nothing."""
    live = as_live(build(WISH, SITE))
    key = f"ipv{address.version}.address"
    devices = {**live.devices, "eth0": {**live.devices["eth0"], key: str(address)}}
    is_allowed = not live_violations(replace(live, devices=devices), SITE)
    is_special = (
        address.is_multicast
        or address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or str(address) == "255.255.255.255"
    )
    assert is_allowed != is_special
