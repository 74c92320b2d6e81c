"""What a container may be: what we ask for is allowed, and each known trick is found."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

import pytest

from packetcloud.cloudlet.container_config import (
    MAX_NAME_CHARS,
    MAX_SETTINGS_COUNT,
    MAX_VALUE_CHARS,
    build,
    limit_config,
    live_differences,
    restored_config,
)
from packetcloud.cloudlet.containers import LiveConfig, NicAddresses
from packetcloud.cloudlet.errors import NodeRefusedError
from packetcloud.cloudlet.policy import lanes_device, live_violations, shared_id_maps
from packetcloud.cloudlet.vi_types import load_catalogue
from tests.unit.cloudlet.tricks import TRICKS, Trick
from tests.unit.cloudlet.wishes import LIMITS, SITE, WISH, as_live, wish


def test_what_is_asked_for_is_allowed() -> None:
    built = build(WISH, SITE)
    assert live_violations(as_live(built), SITE) == []
    assert live_differences(as_live(built), built) == []


def test_every_type_of_the_catalogue_is_allowed() -> None:
    for kind in load_catalogue().types.values():
        assert live_violations(as_live(build(wish(limits=kind.limits), SITE)), SITE) == []


def test_limits_become_keys() -> None:
    """A share of a core's time becomes milliseconds of each 100, never none."""
    assert limit_config(LIMITS) == {
        "limits.cpu.allowance": "50ms/100ms",
        "limits.memory": "128MiB",
        "limits.processes": "64",
    }
    assert limit_config(replace(LIMITS, vcpu=2))["limits.cpu.allowance"] == "200ms/100ms"
    assert limit_config(replace(LIMITS, vcpu=0.001))["limits.cpu.allowance"] == "1ms/100ms"


def test_a_pool_without_quota_gets_no_size() -> None:
    """A pool that cannot hold a root to its size is not asked to; others must."""
    site = replace(SITE, has_disk_quota=False)
    built = build(WISH, site)
    assert "size" not in built.devices["root"]
    assert live_violations(as_live(built), site) == []
    assert live_violations(as_live(built), SITE) == [
        "device root: size is None; allowed: [1-9][0-9]*MiB"
    ]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_a_trick_is_found(trick: Trick) -> None:
    """Whatever hand put it there, the live configuration shows it."""
    live = as_live(build(WISH, SITE))
    config, devices = trick.apply(dict(live.config), {k: dict(v) for k, v in live.devices.items()})
    assert live_violations(replace(live, config=config, devices=devices), SITE) != []


HERE = replace(SITE, is_here=True)
LANES = "/run/packetcloud-0/lanes/0123456789abcdef"


def _with_lanes(**changes: str | None) -> LiveConfig:
    live = as_live(build(wish(lanes=LANES), HERE))
    device = {**live.devices["lanes"], **changes}
    kept = {key: value for key, value in device.items() if value is not None}
    return replace(live, devices={**live.devices, "lanes": kept})


def test_a_vi_of_the_routers_machine_sees_its_folder() -> None:
    """That alone, and it may write nothing there; VIs elsewhere see none."""
    assert build(wish(lanes=LANES), HERE).devices["lanes"] == {
        "type": "disk",
        "source": LANES,
        "path": "/run/packetcloud/lanes/0123456789abcdef",
        "readonly": "true",
        "required": "false",
    }
    assert live_violations(_with_lanes(), HERE) == []
    assert "lanes" not in build(wish(lanes=LANES), SITE).devices
    assert "lanes" not in build(WISH, HERE).devices
    assert live_violations(_with_lanes(), SITE) == [
        "device lanes (disk); allowed: root, eth0, eth1"
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"source": "/"},
        {"source": "/etc"},
        {"source": LANES + "/door"},
        {"source": "/run/packetcloud-0/lanes"},
        {"source": "/run/packetcloud-0/lanes/../../../"},
        {"source": "/run/../packetcloud-0/lanes/0123456789abcdef"},
        {"source": None},
        {"path": "/opt/packetcloud"},
        {"path": "/run/packetcloud/lanes/../../../etc"},
        {"readonly": "false"},
        {"readonly": None},
        {"required": "true"},
        {"recursive": "true"},
        {"propagation": "shared"},
        {"shift": "true"},
        {"pool": "pool"},
        {"type": "unix-char"},
    ],
)
def test_another_folder_in_its_place_is_found(change: dict[str, str | None]) -> None:
    assert live_violations(_with_lanes(**change), HERE) != []


def test_a_vi_without_the_folder_stays_as_it_is() -> None:
    """It was made before its router was there; one that sees another router's is put right."""
    wanted = build(wish(lanes=LANES), HERE)
    assert live_differences(as_live(build(WISH, HERE)), wanted) == []
    assert live_differences(_with_lanes(), build(WISH, HERE)) == []
    other = lanes_device("/run/packetcloud-0/lanes/fedcba9876543210")
    assert len(live_differences(_with_lanes(**other), wanted)) == 2


@pytest.mark.parametrize(
    "change", [{"profiles": ("default",)}, {"kind": "virtual-machine"}, {"is_ephemeral": True}]
)
def test_a_container_as_a_whole_is_checked(change: dict[str, Any]) -> None:
    assert len(live_violations(replace(as_live(build(WISH, SITE)), **change), SITE)) == 1


def test_a_limit_that_was_raised_is_a_difference() -> None:
    """A larger limit is a limit still: only the comparison with the wish shows it."""
    built = build(WISH, SITE)
    live = as_live(build(wish(limits=replace(LIMITS, memory_mib=4096, disk_mib=9999)), SITE))
    assert live_violations(live, SITE) == []
    assert [text.split(" is ")[0] for text in live_differences(live, built)] == [
        "device root: size",
        "limits.memory",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "name: allowed"),
        ({"name": "Vi"}, "name: allowed"),
        ({"name": "1vi"}, "name: allowed"),
        ({"name": "vi-"}, "name: allowed"),
        ({"name": "vi/../x"}, "name: allowed"),
        ({"name": "v\n"}, "name: allowed"),
        ({"image": "ubuntu"}, "64 hexadecimal digits"),
        ({"limits": replace(LIMITS, vcpu=float("nan"))}, "vcpu = nan: allowed: more than 0"),
        ({"limits": replace(LIMITS, vcpu=0)}, "vcpu = 0"),
        ({"limits": replace(LIMITS, memory_mib=0)}, "memory_mib = 0: allowed: a whole number"),
        ({"limits": replace(LIMITS, memory_mib="1GiB")}, "memory_mib = '1GiB'"),
        ({"limits": replace(LIMITS, processes_count=True)}, "processes_count = True"),
        ({"limits": replace(LIMITS, disk_mib=1 << 31)}, "disk_mib = 2147483648"),
        ({"labels": {"A": "x"}}, "label 'A'"),
        ({"labels": {"wish": "x"}}, "label 'wish' is the node's own"),
        ({"labels": {"a.b": "x"}}, "label 'a.b'"),
        ({"labels": {"a": "x\ny"}}, "label a: allowed: printable"),
        ({"lanes": "/etc"}, "lanes '/etc': allowed"),
        ({"environment": {"PATH": "/tmp"}}, "environment 'PATH'"),
        ({"environment": {"PACKETCLOUD_A": "\0"}}, "environment PACKETCLOUD_A: allowed"),
        (
            {"data": NicAddresses(IPv4Interface("127.0.0.1/8"), WISH.data.ipv6)},
            "data address 127.0.0.1",
        ),
        (
            {"control": NicAddresses(WISH.data.ipv4, IPv6Interface("fe80::1%eth0/64"))},
            "control address fe80::1",
        ),
    ],
)
def test_a_wish_that_breaks_the_policy_is_refused(change: dict[str, Any], said: str) -> None:
    """The text names what is wrong and says what is allowed."""
    with pytest.raises(NodeRefusedError) as caught:
        build(wish(**change), SITE)
    assert said in str(caught.value)


def _is_taken(**change: Any) -> bool:
    try:
        build(wish(**change), SITE)
    except NodeRefusedError:
        return False
    return True


def test_the_caps_of_a_wish() -> None:
    """Names, values and their numbers are taken at the cap, refused above."""
    labels = {f"l{number}": "x" for number in range(MAX_SETTINGS_COUNT + 1)}
    assert not _is_taken(labels=labels)
    assert _is_taken(labels=dict(list(labels.items())[1:]))
    for length, is_taken in ((MAX_NAME_CHARS, True), (MAX_NAME_CHARS + 1, False)):
        assert _is_taken(name="v" * length) is is_taken
    for length, is_taken in ((MAX_VALUE_CHARS, True), (MAX_VALUE_CHARS + 1, False)):
        assert _is_taken(environment={"PACKETCLOUD_X": "v" * length}) is is_taken


def _with_ids(first: int, count: int = 65536) -> LiveConfig:
    id_map = [
        {"Isuid": is_user, "Isgid": not is_user, "Hostid": first, "Nsid": 0, "Maprange": count}
        for is_user in (True, False)
    ]
    return LiveConfig((), {"volatile.idmap.next": json.dumps(id_map)}, {})


def test_containers_that_share_ids_are_found() -> None:
    """LXD gives out the maps; each of them must be its container's alone, and none the host's."""
    apart = {"a": _with_ids(165536), "b": _with_ids(100000), "c": LiveConfig((), {}, {})}
    assert shared_id_maps(apart) == {}
    assert shared_id_maps({**apart, "d": _with_ids(165535)}) == {
        "b": ("it shares ids from 165535 with d",),
        "d": ("it shares ids from 165535 with b", "it shares ids from 165536 with a"),
        "a": ("it shares ids from 165536 with d",),
    }
    assert shared_id_maps({"a": _with_ids(0)}) == {"a": ("its ids from 0 are the host's",)}


@pytest.mark.parametrize(
    "text",
    ["", "x", "null", "1", "[1]", "[null]", '[{"Isuid": true}]', '{"Isuid": true}']
    + [f'[{{"Isuid": true, "Hostid": {value}, "Maprange": 1}}]' for value in ('"a"', "null", "{}")],
)
def test_a_map_of_ids_that_is_none_is_found(text: str) -> None:
    """Its own fault, not the controller's; the others are looked at."""
    live = LiveConfig((), {"volatile.idmap.next": text}, {})
    assert shared_id_maps({"a": _with_ids(165536), "b": live, "c": _with_ids(165536)}) == {
        "a": ("it shares ids from 165536 with c",),
        "b": ("its map of ids cannot be read",),
        "c": ("it shares ids from 165536 with a",),
    }


def test_differences_show_no_token_and_no_endless_value() -> None:
    """What is found goes to logs and to whoever may ask."""
    built = build(WISH, SITE)
    live = as_live(built)
    secret = next(key for key in built.config if key.startswith("environment."))
    changed = {secret: "x", "limits.memory": "9" * 5000 + "MiB"}
    found = live_differences(replace(live, config={**live.config, **changed}), built)
    assert found[0] == f"{secret} is not what it was"
    assert found[1].startswith("limits.memory is '999") and len(found[1]) < 200
    assert len(found) == 2


def test_a_variable_that_somebody_added_is_a_difference() -> None:
    """Labels may be added: they change nothing."""
    built = build(WISH, SITE)
    live = as_live(built)
    added = {"environment.LD_PRELOAD": "/evil.so", "user.packetcloud.more": "1"}
    found = live_differences(replace(live, config={**live.config, **added}), built)
    assert found == ["environment.LD_PRELOAD is set, wanted: not"]


def test_a_container_is_put_right_without_what_lxd_wrote_down() -> None:
    """Keys that were added go; those of LXD and further labels stay."""
    built = build(WISH, SITE)
    own = {"volatile.uuid": "u", "user.packetcloud.wish": "w", "user.packetcloud.more": "1"}
    added = {"raw.lxc": "x", "security.nesting": "true", "environment.PACKETCLOUD_EVIL": "1"}
    assert restored_config({**built.config, **own, **added}, built) == {**built.config, **own}


EGRESS = NicAddresses(IPv4Interface("10.212.0.16/20"), IPv6Interface("fd00:12::10/64"))
EGRESS_SITE = replace(SITE, egress_bridge="pc-egress")


def test_a_way_to_the_ip_network_is_a_third_nic() -> None:
    """As exact as the others; a node without a bridge for it refuses the wish, and the NIC."""
    built = build(wish(egress=EGRESS), EGRESS_SITE)
    live = as_live(built)
    assert built.devices["eth2"] == {
        "type": "nic",
        "name": "eth2",
        "nictype": "bridged",
        "parent": "pc-egress",
        "mtu": "1500",
        "security.mac_filtering": "true",
        "security.ipv4_filtering": "true",
        "security.ipv6_filtering": "true",
        "security.port_isolation": "true",
        "ipv4.address": "10.212.0.16",
        "ipv6.address": "fd00:12::10",
    }
    assert live_violations(live, EGRESS_SITE) == live_differences(live, built) == []
    assert any("device eth2" in text for text in live_violations(live, SITE))
    with pytest.raises(NodeRefusedError, match="no bridge to the IP network"):
        build(wish(egress=EGRESS), SITE)
    with pytest.raises(NodeRefusedError, match="egress address ff02::1"):
        build(wish(egress=replace(EGRESS, ipv6=IPv6Interface("ff02::1/64"))), EGRESS_SITE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parent", "pc-data"),
        ("parent", "eth0"),
        ("network", "lxdbr0"),
        ("nictype", "macvlan"),
        ("name", "eth0"),
        ("mtu", "9000"),
        ("hwaddr", "00:16:3e:00:00:01"),
        ("vlan", "1"),
        ("ipv4.routes", "0.0.0.0/0"),
        ("ipv4.address", None),
        ("ipv6.address", "none"),
        ("ipv4.address", "10.212.0.1/20"),
        ("security.mac_filtering", "false"),
        ("security.ipv4_filtering", None),
        ("security.ipv6_filtering", "false"),
        ("security.port_isolation", None),
    ],
)
def test_a_trick_at_the_third_nic_is_found(key: str, value: str | None) -> None:
    live = as_live(build(wish(egress=EGRESS), EGRESS_SITE))
    nic = {**live.devices["eth2"], key: value}
    eth2 = {name: one for name, one in nic.items() if one is not None}
    devices = {**live.devices, "eth2": eth2}
    assert live_violations(replace(live, devices=devices), EGRESS_SITE) != []


def test_a_nic_that_nobody_granted_is_a_difference() -> None:
    """Somebody hung a container on the bridge, or took it off, or gave it another's address."""
    granted, plain = build(wish(egress=EGRESS), EGRESS_SITE), build(WISH, EGRESS_SITE)
    other = replace(EGRESS, ipv4=IPv4Interface("10.212.0.17/20"))
    moved = build(wish(egress=other), EGRESS_SITE)
    assert "device eth2: parent is 'pc-egress', wanted None" in live_differences(
        as_live(granted), plain
    )
    assert len(live_differences(as_live(plain), granted)) == len(granted.devices["eth2"])
    assert live_differences(as_live(moved), granted) == [
        "device eth2: ipv4.address is '10.212.0.17', wanted '10.212.0.16'"
    ]
