"""What a VI reads from its environment."""

from __future__ import annotations

import pytest

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.vi_settings import ViSettings

ENVIRONMENT = {
    "PACKETCLOUD_VI": "vi-7",
    "PACKETCLOUD_TOKEN": "secret",
    "PACKETCLOUD_CONTROLLER": "10.78.0.1:4790",
    "PACKETCLOUD_DATA_IPV4": "10.77.1.7/16",
    "PACKETCLOUD_DATA_IPV6": "fd77::7/64",
    "PACKETCLOUD_CONTROL_IPV4": "10.78.1.7/16",
    "PACKETCLOUD_CONTROL_IPV6": "fd78::7/64",
}


def test_the_environment_says_all_that_a_vi_needs() -> None:
    """Name, token, controller, and two interfaces with two addresses each."""
    settings = ViSettings.from_environment(ENVIRONMENT)
    assert settings.name == "vi-7" and settings.controller == ("10.78.0.1", 4790)
    assert [nic.name for nic in settings.nics] == ["eth0", "eth1"]
    assert [str(address) for address in settings.nics[1].addresses] == [
        "10.78.1.7/16",
        "fd78::7/64",
    ]
    assert "secret" not in repr(settings)
    assert settings.is_contained
    child = ViSettings.from_environment(ENVIRONMENT | {"PACKETCLOUD_ISOLATION": "process"})
    assert not child.is_contained


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_a_missing_variable_is_named(name: str) -> None:
    """And who should have set it."""
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}
    with pytest.raises(ServiceConfigError, match=f"{name} is not set"):
        ViSettings.from_environment(environment)


@pytest.mark.parametrize("name", ["PACKETCLOUD_CONTROLLER", "PACKETCLOUD_DATA_IPV4"])
def test_a_value_that_is_no_address_is_named(name: str) -> None:
    """The variable, and what is wrong with it."""
    with pytest.raises(ServiceConfigError, match=name):
        ViSettings.from_environment(ENVIRONMENT | {name: "nowhere"})


EGRESS = {
    "PACKETCLOUD_EGRESS_IPV4": "10.212.0.16/20",
    "PACKETCLOUD_EGRESS_IPV6": "fd00:12::10/64",
    "PACKETCLOUD_EGRESS_GATEWAYS": "10.212.0.1 fd00:12::1",
    "PACKETCLOUD_RESOLVERS": "203.0.113.53",
}


def test_a_way_to_the_ip_network_is_a_third_interface() -> None:
    """With its gateways, and whom to ask for names; without a grant there is none of these."""
    settings = ViSettings.from_environment(ENVIRONMENT | EGRESS)
    assert [nic.name for nic in settings.nics] == ["eth0", "eth1", "eth2"]
    assert [str(one) for one in settings.nics[2].gateways] == ["10.212.0.1", "fd00:12::1"]
    assert [str(one) for one in settings.resolvers] == ["203.0.113.53"]
    plain = ViSettings.from_environment(ENVIRONMENT)
    assert not plain.resolvers and not any(nic.gateways for nic in plain.nics)


@pytest.mark.parametrize("name", sorted(EGRESS))
def test_what_is_no_address_of_the_way_is_named(name: str) -> None:
    with pytest.raises(ServiceConfigError, match=name.rsplit("_", 1)[0]):
        ViSettings.from_environment(ENVIRONMENT | EGRESS | {name: "nowhere"})
