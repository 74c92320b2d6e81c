"""The tables of docs/ say what the code does: offsets, numbers, words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from packetcloud.chunk import header, messages, reasons
from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.names import GUID_BYTES, GUID_ZERO, ChunkId
from packetcloud.cli.main import NOUNS, load_noun
from packetcloud.cli.output import ExitCode

ROOT = Path(__file__).parents[2]
CHUNK_PAGE = ROOT / "docs" / "protocol" / "chunk.md"
COMMAND_PAGE = ROOT / "docs" / "reference" / "cli.md"
CODES_PAGE = ROOT / "docs" / "reference" / "exit-codes.md"


def _tables(page: Path, *columns: str) -> list[list[list[str]]]:
    """Return the rows of every table of `page` whose head begins with `columns`."""
    found: list[list[list[str]]] = []
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        head = _cells(line)
        is_head = number + 1 < len(lines) and set(lines[number + 1]) == set("|-")
        if is_head and tuple(head[: len(columns)]) == columns:
            rows = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append(_cells(row))
            found.append(rows)
    return found


def _table(page: Path, *columns: str) -> list[list[str]]:
    (table,) = _tables(page, *columns)
    return table


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _docstrings(path: Path, class_name: str) -> dict[str, str]:
    """Return the docstring under each member of an enum."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            found = {}
            for member, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
                    assert isinstance(member.targets[0], ast.Name)
                    found[member.targets[0].id] = " ".join(ast.literal_eval(text.value).split())
            return found
    raise AssertionError(f"no class {class_name} in {path}")


def test_reasons() -> None:
    """Every reason stands in the page with its number, its word and what it means."""
    meanings = _docstrings(ROOT / "chunk" / "reasons.py", "Reason")
    assert _table(CHUNK_PAGE, "number", "word", "meaning") == [
        [str(reason.value), f"`{reason.word}`", meanings[reason.name]] for reason in reasons.Reason
    ]


def test_fixed_header() -> None:
    """The fields of the fixed header lie where the page says."""
    rows = _table(CHUNK_PAGE, "offset", "bytes", "field", "changes on the way")
    end = 0
    layout = []
    for offset, count, *_ in rows:
        assert int(offset) == end
        end += int(count)
        layout.append(int(count))
    assert end == header.FIXED_BYTES
    sizes = {"B": 1, "H": 2, "I": 4, "Q": 8, "20s": GUID_BYTES}
    parts = re.findall(r"\d+s|[BHIQ]", header.FIXED.format)
    assert layout == [sizes[part] for part in parts]
    named = {row[2].split(":")[0]: int(row[0]) for row in rows}
    assert named["hop limit"] == header.HOP_LIMIT_OFFSET
    assert named["payload bytes"] == header.PAYLOAD_BYTES_OFFSET
    assert named["source NA"] == header.SOURCE_NA_OFFSET
    assert named["destination NA"] == header.DESTINATION_NA_OFFSET
    assert named["SID"] == header.SID_OFFSET


@pytest.mark.parametrize(
    ("columns", "members"),
    [
        (("value", "mode"), header.DeliveryMode),
        (("value", "type", "payload"), header.PayloadType),
        (("value", "outcome"), messages.Outcome),
        (("code", "verdict"), messages.VerdictCode),
    ],
)
def test_numbered_words(
    columns: tuple[str, ...],
    members: type[
        header.DeliveryMode | header.PayloadType | messages.Outcome | messages.VerdictCode
    ],
) -> None:
    """Modes, payload types, outcomes and verdicts carry the numbers that the page says."""
    assert [row[:2] for row in _table(CHUNK_PAGE, *columns)] == [
        [str(member.value), member.name.lower()] for member in members
    ]


def test_extensions() -> None:
    """Types, names and the critical flag of the extensions are those of the encoder."""
    rows = _table(CHUNK_PAGE, "type", "extension", "critical")
    assert [row[:2] for row in rows] == [
        [str(kind.value), kind.name.lower().replace("_", " ")] for kind in header.ExtensionType
    ]
    for kind, _, critical, value_bytes, *_ in rows:
        if value_bytes.isdigit():
            flags = 0x80 if critical == "yes" else 0
            header.decode_header(_header_with(int(kind), flags, int(value_bytes)))
            with pytest.raises(ProtocolError, match="bad_extension"):
                header.decode_header(_header_with(int(kind), flags ^ 0x80, int(value_bytes)))


def _header_with(kind: int, flags: int, value_bytes: int) -> bytes:
    plain = header.ChunkHeader(GUID_ZERO, GUID_ZERO, ChunkId(1), payload_bytes=0).to_bytes()
    extension = bytes([kind, flags]) + value_bytes.to_bytes(2, "big") + b"\x01" * value_bytes
    return plain[:2] + (len(plain) + len(extension)).to_bytes(2, "big") + plain[4:] + extension


def test_limits() -> None:
    """The limits in the text are the constants of the code."""
    text = " ".join(CHUNK_PAGE.read_text().split())
    assert f"88 to {header.MAX_HEADER_BYTES}" in text
    assert f"count n (1 to {header.MAX_SEQUENCE_COUNT})" in text
    assert f"1 MiB ({header.DEFAULT_MAX_PAYLOAD_BYTES:_} bytes)".replace("_", " ") in text
    assert f"at most {messages.MAX_DETAIL_BYTES}" in text
    assert f"At most {messages.MAX_REPORT_ENTRIES} entries" in text


def test_message_layouts() -> None:
    """Task, verdict and report entry have the sizes that the page says."""
    tables = _tables(CHUNK_PAGE, "offset", "bytes", "field")
    sizes = []
    for rows in tables:
        fixed = [row for row in rows if row[1].isdigit()]
        assert [int(row[0]) for row in fixed] == [
            sum(int(other[1]) for other in fixed[:number]) for number in range(len(fixed))
        ]
        sizes.append(int(fixed[-1][0]) + int(fixed[-1][1]))
    report = messages.DeliveryReport(ChunkId(1), messages.Outcome.DELIVERED)
    entry_bytes = len(messages.encode_reports([report]))
    bodies = [messages.TASK_BYTES, messages.VERDICT_BYTES]
    assert sizes == [header.FIXED_BYTES, 4, entry_bytes, *bodies]


def test_exit_codes() -> None:
    """The page on exit codes lists each code with what it means."""
    meanings = _docstrings(ROOT / "cli" / "output.py", "ExitCode")
    assert _table(CODES_PAGE, "code", "name", "meaning") == [
        [str(code.value), code.name.lower(), meanings[code.name]] for code in ExitCode
    ]


def _verbs(command: click.Command, path: str) -> Iterator[list[str]]:
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _verbs(child, f"{path} {name}")
    else:
        yield [f"`{path}`", command.get_short_help_str(limit=500)]


def test_commands() -> None:
    """The reference lists every command with the first sentence of its help."""
    assert _table(COMMAND_PAGE, "command", "what it does") == [
        row for name, noun in NOUNS.items() for row in _verbs(load_noun(noun), name)
    ]
