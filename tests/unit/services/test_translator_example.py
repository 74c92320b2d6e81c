"""The example of a translator in a cloudlet's file: its two lists say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packetcloud.services.translator.egress import parse_rules

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "give-a-service-the-internet.md"


def test_the_example_tries_nothing_that_its_cloudlet_denies() -> None:
    """Denied tries count against a VI: no host may have the translator restricted for all."""
    lines = PAGE.read_text().partition("<<'END'\n")[2].partition("> END")[0].splitlines()
    (service,) = tomllib.loads("\n".join(line[2:] for line in lines))["service"]
    places = [place.rpartition(":")[2].split(",") for place in service["egress"]["allow"]]
    granted = {int(port) for ports in places for port in ports}
    rules = parse_rules(service["settings"]["allow"], "allow")
    assert {port for one in rules for port in range(one.first_port, one.last_port + 1)} == granted
    assert service["egress"]["denied_per_violation"] == 0
