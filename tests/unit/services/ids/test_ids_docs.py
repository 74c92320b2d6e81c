"""The page about the ids service says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packetcloud.services.catalogue import find_service
from packetcloud.services.ids.flows import DEFAULT_MAX_BYTES, DEFAULT_MAX_FLOWS_COUNT
from packetcloud.services.ids.keywords import REFUSED, reason_to_refuse
from packetcloud.services.ids.rates import DEFAULT_MAX_COUNT
from packetcloud.services.ids.reader import read_rules

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "ids.md").read_text()


def _table(head: str) -> list[list[str]]:
    _, rest = PAGE.split(f"| {head} |", 1)
    rows = rest.splitlines()[2:]
    end = next(number for number, line in enumerate(rows) if not line.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[:end]]


def test_every_refused_keyword_is_listed_with_its_reason() -> None:
    """And none that is taken."""
    listed = {
        word: reason
        for reason, words in _table("reason | keywords")
        for word in re.findall(r"`([^`]+)`", words)
    }
    assert listed == REFUSED


def test_parameters_and_defaults() -> None:
    """As the manifest has them; caps are those of the code."""
    parameters = find_service("ids").manifest.parameters
    rows = {row[0].strip("`"): row for row in _table("parameter | values | default | meaning")}
    assert list(rows) == list(parameters)
    for name, declared in parameters.items():
        said = rows[name][2].strip("`").replace(" ", "")
        default = declared.default
        word = "empty" if default == "" else "" if default is None else str(default).lower()
        assert said == word, name
        for value in declared.allowed:
            assert f"`{value}`" in rows[name][1]
        if declared.maximum is not None and declared.minimum is not None:
            numbers = [int(one.replace(" ", "")) for one in rows[name][1].split(" to ")]
            assert numbers == [declared.minimum, declared.maximum]
    assert parameters["max_flows"].default == DEFAULT_MAX_FLOWS_COUNT
    assert parameters["max_counted"].default == DEFAULT_MAX_COUNT
    assert parameters["border_mib"].default == DEFAULT_MAX_BYTES >> 20


@pytest.mark.parametrize("row", _table("option | taken | how"), ids=lambda row: row[0])
def test_what_is_called_taken_is_taken(row: list[str]) -> None:
    """No option of the table is an unknown one."""
    for keyword in re.findall(r"`([a-z_]+)`", row[0]):
        assert keyword not in REFUSED
        file = read_rules(f"alert chunk any any -> any any ({keyword}; sid:1;)".encode(), {})
        endings = (": unknown", reason_to_refuse("http.uri"))
        assert not any(one.reason.endswith(endings) for one in file.refusals)
