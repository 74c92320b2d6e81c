"""The pages on config files list each key of the models, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from packetcloud.cloudlet import config_tables as cloudlet_tables
from packetcloud.cloudlet import vi_types
from packetcloud.domain_controller import config as domain_config
from packetcloud.domain_controller.core import price_file
from packetcloud.router import config as router_config
from packetcloud.router.cloudlet_schemas import InspectionItem
from packetcloud.services import manifest
from packetcloud.testbed.topology import tables as topology

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ROUTER = {
    "[router]": router_config.RouterTable,
    "[hosts]": router_config.HostsTable,
    "[services]": router_config.ServicesTable,
    "[spool]": router_config.SpoolTable,
    "[rules]": router_config.RulesTable,
    "[cloudlet]": router_config.CloudletFolder,
    "[[service]]": router_config.ServiceTable,
    "[[neighbour]]": router_config.NeighbourTable,
    "[[name]]": router_config.NameTable,
}
MANIFEST = {
    "[service]": manifest.ServiceTable,
    "[behaviour]": manifest.BehaviourTable,
    "[parameters.NAME]": manifest.ParameterTable,
    "[resources]": manifest.ResourcesTable,
    "[supervision]": manifest.SupervisionTable,
    "[pair]": manifest.PairTable,
}
CLOUDLET = {
    "[cloudlet]": cloudlet_tables.CloudletTable,
    "[router]": cloudlet_tables.RouterTable,
    "[network]": cloudlet_tables.NetworkTable,
    "[domain]": cloudlet_tables.DomainTable,
    "[[node]]": cloudlet_tables.NodeTable,
    "[[service]]": cloudlet_tables.ServiceTable,
    "scaling": cloudlet_tables.ScalingTable,
    "conduct": cloudlet_tables.ConductTable,
    "egress": cloudlet_tables.EgressTable,
    "inspect": InspectionItem,
}
DOMAIN = {
    "[domain]": domain_config.DomainTable,
    "[api]": domain_config.ApiTable,
    "[[operator]]": domain_config.OperatorTable,
}
PRICES = {
    "Head": price_file.PriceListFile,
    "[[vi_time]]": price_file.ViTimeTable,
    "[chunks] and [bytes]": price_file.MeterTable,
    "[[tier]]": price_file.TierTable,
}
TOPOLOGY = {
    "Head": topology.TopologyFile,
    "[run]": topology.RunTable,
    "[[link]]": topology.LinkTable,
    "[[service]]": topology.ServiceTable,
    "[[rule]]": topology.RuleTable,
    "[[load]]": topology.LoadTable,
    "[[fault]]": topology.FaultTable,
}
CATALOGUE = {"[[vi_type]]": vi_types.ViTypeTable}


def _documented(page: str, table: str) -> dict[str, str]:
    """Return key -> default from the section of `table`."""
    text = (REFERENCE / page).read_text()
    section = text.split(f"\n## {table}\n", 1)[1].split("\n## ", 1)[0]
    found = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            keys, _, default, _ = (cell.strip() for cell in line.strip("|").split("|"))
            found.update(dict.fromkeys(re.findall(r"`(\w+)`", keys), default))
    return found


def _default_text(value: Any) -> set[str]:
    """Return the ways in which a page may write a default."""
    match value:
        case bool():
            return {"true" if value else "false"}
        case int() | float():
            return {str(value), f"{value:g}"}
        case str():
            return {f"`{value}`"} if value else {"empty"}
        case _:
            # Nothing, or an empty list: the page says in words what that means.
            return set()


@pytest.mark.parametrize(
    ("page", "table", "model"),
    [("router-config.md", table, model) for table, model in ROUTER.items()]
    + [("service-manifest.md", table, model) for table, model in MANIFEST.items()]
    + [("cloudlet-config.md", table, model) for table, model in CLOUDLET.items()]
    + [("domain-config.md", table, model) for table, model in DOMAIN.items()]
    + [("price-list.md", table, model) for table, model in PRICES.items()]
    + [("topology.md", table, model) for table, model in TOPOLOGY.items()]
    + [("vi-types.md", table, model) for table, model in CATALOGUE.items()],
)
def test_every_key_stands_in_its_page(page: str, table: str, model: type[BaseModel]) -> None:
    """Keys, their order and their defaults are those of the model that reads the file."""
    documented = _documented(page, table)
    assert sorted(documented) == sorted(model.model_fields)
    for key, field in model.model_fields.items():
        written = documented[key]
        if field.is_required():
            assert written == "", f"{key} is required"
        elif allowed := _default_text(field.default):
            assert written in allowed, f"{key}: default {field.default!r}"
        else:
            assert written, f"{key}: the page says nothing about leaving it out"
