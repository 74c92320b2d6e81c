"""TOML files checked against models: each mistake is one readable sentence.

Each room reads its files by a `TomlFiles` that raises the room's own error.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from packetcloud.chunk.errors import PacketCloudError

MAX_FILE_BYTES = 4 << 20
"""A catalogue or a list of nodes is some KiB; a larger file is a mistake."""


class TomlTable(BaseModel):
    """A table of a file: unknown keys are refused, the value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


FileModel = TypeVar("FileModel", bound=TomlTable)


@dataclass(frozen=True, slots=True)
class TomlFiles:
    """Reads files; every mistake in one is raised as `error`."""

    error: type[PacketCloudError]
    sample_command: str = ""
    """What prints such a file to begin with."""

    def read(self, path: Path, model: type[FileModel]) -> FileModel:
        """Read and check the file at `path`.

        Raises:
            PacketCloudError: of class `error`: names file, table and key, and says what is allowed.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            begin = f"; begin with: {self.sample_command} > {path}" if self.sample_command else ""
            raise self.error(f"no file {path}{begin}") from None
        except OSError as error:
            raise self.error(f"cannot read {path}: {error.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise self.error(f"{path}: over {MAX_FILE_BYTES} bytes; is it the right file?")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"{path}: not TOML: {error}") from None
        return self.parse(text, model, str(path))

    def parse(self, text: str, model: type[FileModel], origin: str) -> FileModel:
        """Check the text of a file; `origin` is its name in errors.

        Raises:
            PacketCloudError: as `read`.
        """
        try:
            document = tomllib.loads(text)
        except ValueError as error:
            # Not only TOMLDecodeError: an integer of thousands of digits is a plain ValueError.
            raise self.error(f"{origin}: not TOML: {error}") from None
        try:
            return model.model_validate(document)
        except ValidationError as error:
            problems = [one for one in error.errors(include_url=False) if not _is_echo(one)]
            # A key that is misspelt is unknown, and another one missing: the first says more.
            problems.sort(key=lambda one: one["type"] != "extra_forbidden")
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            text = _explain(model, dict(problems[0]))
            raise self.error(f"{origin}: {text}{more}") from None


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    """Turn pydantic's finding into: table, key, value, what is allowed."""
    location = list(problem["loc"])
    place = ""
    while len(location) > 1 and (inner := _table_model(model, location[0])) is not None:
        name = location.pop(0)
        is_array = bool(location) and isinstance(location[0], int)
        place = f"[[{name}]] number {location.pop(0) + 1}" if is_array else f"[{name}]"
        model = inner
    where = f"{place} {'.'.join(map(str, location))}".strip()
    match problem["type"]:
        case "extra_forbidden":
            what = "key" if place else "table"
            return f"{where}: unknown {what}; allowed: {', '.join(model.model_fields)}"
        case "missing":
            return f"{where}: missing"
        case "value_error":
            given = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
            return f"{where}{given}: {problem['ctx']['error']}".removeprefix(": ")
        case _:
            return f"{where} = {problem['input']!r}: {problem['msg']}"


def _is_echo(problem: Any) -> bool:
    """Tell of pydantic's complaint that a list is empty once it has thrown out its bad members."""
    return bool(problem["type"] == "too_short" and problem["input"])


def _table_model(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    field = model.model_fields.get(key) if isinstance(key, str) else None
    if field is None:
        return None
    annotation = field.annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
