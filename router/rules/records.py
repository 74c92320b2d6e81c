"""Tables in documents: their fields, how they are read, and how errors show a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packetcloud.router.rules.errors import RuleFieldError
from packetcloud.router.rules.values import Kind, WrongElementError


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table in a document."""

    kind: Kind
    about: str
    """One line for the page and the schema."""
    is_required: bool = False


def read_fields(
    record: Mapping[str, Any], fields: Mapping[str, Field], prefix: str = ""
) -> dict[str, Any]:
    """Return the values of a table by key, each as its kind reads it.

    Raises:
        RuleFieldError: a key is unknown or missing, or a value is not allowed.
    """
    values = {}
    for key, value in record.items():
        field = fields.get(key)
        if field is None:
            raise RuleFieldError(f"{prefix}{shown(key, '')}", _unknown(fields))
        try:
            values[key] = field.kind.read(value)
        except WrongElementError as error:
            wrong = f"[{error.index}] = {shown(error.value)}: allowed: {field.kind.allowed}"
            raise RuleFieldError(prefix + key, wrong) from None
        except ValueError:
            raise RuleFieldError(
                prefix + key, f" = {shown(value)}: allowed: {field.kind.allowed}"
            ) from None
    for key, field in fields.items():
        if field.is_required and key not in values:
            raise RuleFieldError(prefix + key, f": missing; allowed: {field.kind.allowed}")
    return values


def shown(value: object, quote: str = '"') -> str:
    """Return a value as an error shows it: printable and short."""
    text = (
        quote + value.encode("unicode_escape").decode() + quote
        if isinstance(value, str)
        else ascii(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown(fields: Mapping[str, Field]) -> str:
    return f": unknown key; allowed: {', '.join(fields)}"
