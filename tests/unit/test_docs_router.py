"""The pages on router and file transfer list what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from packetcloud.chunk.names import GUID, NA
from packetcloud.host import file_format
from packetcloud.router.cloudlet_metrics import TableCollector, TableFigures
from packetcloud.router.core import RouterCore
from packetcloud.router.metrics import PREFIX, RouterCollector
from packetcloud.router.rules.figures import RuleFigures
from packetcloud.router.rules.metrics import RuleCollector
from packetcloud.router.settings import RouterSettings

ROOT = Path(__file__).parents[2]
ROUTER_PAGE = (ROOT / "docs" / "reference" / "router.md").read_text()
FILE_PAGE = (ROOT / "docs" / "protocol" / "file-transfer.md").read_text()


def test_metrics() -> None:
    """Every metric of a router stands in the page, with its labels, and no other does."""
    core = RouterCore(RouterSettings(GUID(b"r" * 20), NA(1)), 0.0, 1)
    collectors = (
        RouterCollector(core, dict, dict),
        RuleCollector(RuleFigures),
        TableCollector(core, TableFigures()),
    )
    exported = {
        metric.name.removeprefix(PREFIX) + ("_total" if metric.type == "counter" else "")
        for collector in collectors
        for metric in collector.collect()
        if metric.name.startswith(PREFIX)
    }
    section = ROUTER_PAGE.split("\n## Metrics\n", 1)[1]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    listed = re.findall(r"`(\w+)`", " ".join(rows))
    assert set(listed) == exported
    assert len(listed) == len(set(listed))


def test_paths() -> None:
    """Every path of the management API stands in the page."""
    api = json.loads((ROOT / "router" / "openapi.json").read_text())
    listed = re.findall(r"^\| `(/[\w/]*)", ROUTER_PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(api["paths"])


@pytest.mark.parametrize(
    ("head", "members"),
    [("kind | message", file_format.MessageKind), ("state | meaning", file_format.AnswerState)],
)
def test_numbers_of_file_messages(
    head: str, members: type[file_format.MessageKind | file_format.AnswerState]
) -> None:
    """Kinds and states carry the numbers that the page says."""
    section = FILE_PAGE.split(f"\n| {head}", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\w+)", section, re.MULTILINE)
    assert [(int(number), word.upper()) for number, word in rows] == [
        (member.value, member.name) for member in members
    ]


@pytest.mark.parametrize(
    ("message", "fixed_bytes"),
    [
        (file_format.Offer(bytes(16), 1, bytes(16), 3, ""), 54),
        (file_format.Finish(bytes(16), 1, 3, bytes(32)), 68),
        (file_format.Answer(bytes(16), 1, file_format.AnswerState.WANTED), 74),
    ],
)
def test_lengths_of_file_messages(
    message: file_format.Offer | file_format.Finish | file_format.Answer, fixed_bytes: int
) -> None:
    """The fixed part of each message ends where the page says that the rest begins."""
    assert len(message.to_bytes()) == fixed_bytes
    assert f"\n| {fixed_bytes} | " in FILE_PAGE or f"\n| {fixed_bytes - 32} | 32 | " in FILE_PAGE


def test_file_data_begins_where_the_page_says() -> None:
    """The bytes of the file follow 32 bytes of head."""
    assert len(file_format.data_header(bytes(16), 0)) == 32
    assert "\n| 32 | rest | " in FILE_PAGE
