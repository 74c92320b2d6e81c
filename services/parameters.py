"""Parameters of a service: declared in the manifest, set by the operator, read by the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from packetcloud.services.errors import ParameterError, ServiceMisuseError

ParameterValue = str | int | float | bool
"""Paths are kept as text, so that values pass through JSON unchanged."""
_Kind = TypeVar("_Kind", str, int, float, bool)


class Parameters(Mapping[str, ParameterValue]):
    """Checked values by name, with one reader per type so that authors need no casts."""

    def __init__(self, values: Mapping[str, ParameterValue]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> ParameterValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        return self._read(name, str)

    def integer(self, name: str) -> int:
        return self._read(name, int)

    def number(self, name: str) -> float:
        value = self._values.get(name)
        return float(value) if isinstance(value, int) else self._read(name, float)

    def flag(self, name: str) -> bool:
        return self._read(name, bool)

    def path(self, name: str) -> Path:
        return Path(self._read(name, str))

    def _read(self, name: str, kind: type[_Kind]) -> _Kind:
        value = self._values.get(name)
        if not isinstance(value, kind):
            raise ServiceMisuseError(
                f"parameter {name!r} read as {kind.__name__}, but the manifest declares "
                f"{'none' if value is None else type(value).__name__}"
            )
        return value


def parse_settings(settings: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Split the `KEY=VALUE` words of `--set`.

    Raises:
        ParameterError: no `=`, an empty key, or a key twice.
    """
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ParameterError(f"--set {setting}: expected KEY=VALUE")
        if key in values:
            raise ParameterError(f"--set {key}: given twice")
        values[key] = value
    return values
