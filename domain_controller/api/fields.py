"""The kinds of values that requests and answers are made of: bounded, strict.

What stands here is in the OpenAPI file, and a request that breaks it is answered 400. What only the
core can know (an end before its begin, a time that is over) is answered 422.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic import StringConstraints as Text

from packetcloud.domain_controller.core.advice import MAX_CHUNKS_PER_S, MAX_RESERVE_PERMILLE
from packetcloud.domain_controller.core.checks import MAX_TEXT_CHARS, MAX_TIME_MS
from packetcloud.domain_controller.core.cloudlets import MAX_HOPS, MAX_VIS_COUNT
from packetcloud.domain_controller.core.resources import (
    MAX_DISK_BYTES,
    MAX_IO_PER_S,
    MAX_MEMORY_BYTES,
    MAX_MILLI_CPUS,
    MAX_PRICE_TIER,
)

MAX_PAGE_COUNT = 500
DEFAULT_PAGE_COUNT = 100
MAX_WAIT_S = 30
MAX_DOCUMENT_CHARS = 900_000
"""Of a document of rules: larger ones go to the router by its own API."""
MAX_EXACT = (1 << 53) - 1
"""Up to here every reader of JSON keeps an integer as it is (RFC 8259, section 6)."""
MIN_IDEMPOTENCY_CHARS = 8
MAX_IDEMPOTENCY_CHARS = 64


class Asked(BaseModel):
    """The body of a request: fields that are not listed are refused, and "1" is no integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answered(BaseModel):
    """The body of an answer: what is not listed does not leave."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _digits(value: object) -> object:
    """Take only the plain form of a number from a query: Python's int() takes much more."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal() and len(value) <= 19):
        raise ValueError("allowed: decimal digits")
    return value


def _whole(value: object) -> object:
    """Take 2.0 for 2, as JSON Schema does; 2.5 and what is too large to be exact stay wrong."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT:
        return int(value)
    return value


WHOLE = BeforeValidator(_whole)
Name = Annotated[str, Text(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and '-'."""
Identifier = Annotated[str, Text(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""A name that the controller gave."""
Title = Annotated[str, Field(max_length=200)]
LongText = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Hex20 = Annotated[str, Text(pattern=r"^[0-9a-f]{40}$")]
"""A GUID or SID."""
Hex32 = Annotated[str, Text(pattern=r"^[0-9a-f]{64}$")]
"""A public key, or a digest."""
Hex64 = Annotated[str, Text(pattern=r"^[0-9a-f]{128}$")]
"""A signature."""
TimeMs = Annotated[int, Strict(), Field(ge=0, le=MAX_TIME_MS), WHOLE]
"""Milliseconds since 1970, UTC."""
ViCount = Annotated[int, Strict(), Field(ge=1, le=MAX_VIS_COUNT), WHOLE]
Micros = Annotated[int, Strict(), Field(ge=0, le=MAX_EXACT), WHOLE]
"""Millionths of the currency's unit."""
Hops = Annotated[int, Strict(), Field(ge=0, le=MAX_HOPS), WHOLE]
NaNumber = Annotated[int, Strict(), Field(ge=1, le=0xFFFF_FFFF), WHOLE]
MilliCpus = Annotated[int, Strict(), Field(ge=1, le=MAX_MILLI_CPUS), WHOLE]
MemoryBytes = Annotated[int, Strict(), Field(ge=0, le=MAX_MEMORY_BYTES), WHOLE]
DiskBytes = Annotated[int, Strict(), Field(ge=0, le=MAX_DISK_BYTES), WHOLE]
IoPerS = Annotated[int, Strict(), Field(ge=0, le=MAX_IO_PER_S), WHOLE]
PriceTier = Annotated[int, Strict(), Field(ge=1, le=MAX_PRICE_TIER), WHOLE]
ChunksPerS = Annotated[int, Strict(), Field(ge=0, le=MAX_CHUNKS_PER_S), WHOLE]
ReservePermille = Annotated[int, Strict(), Field(ge=0, le=MAX_RESERVE_PERMILLE), WHOLE]
Permille = Annotated[int, Strict(), Field(ge=0, le=1000), WHOLE]
PageCount = Annotated[int, Field(ge=1, le=MAX_PAGE_COUNT), BeforeValidator(_digits)]
WaitS = Annotated[int, Field(ge=0, le=MAX_WAIT_S), BeforeValidator(_digits)]
QueryTimeMs = Annotated[int, Field(ge=0, le=MAX_TIME_MS), BeforeValidator(_digits)]
BillNumber = Annotated[int, Field(ge=1, le=(1 << 31) - 1), BeforeValidator(_digits)]
EventNumber = Annotated[int, Field(ge=0, le=(1 << 63) - 1), BeforeValidator(_digits)]
IdempotencyKey = Annotated[
    str,
    Text(pattern=rf"^[A-Za-z0-9_-]{{{MIN_IDEMPOTENCY_CHARS},{MAX_IDEMPOTENCY_CHARS}}}$"),
]
"""Chosen by who asks, anew for each thing that is asked for."""
Cursor = Annotated[str, Text(pattern=r"^[A-Za-z0-9_:-]{1,128}$")]
