"""The catalogue of VI types: what one can order, and how dear it is.

Source: paper, section 3.2; docs/reference/vi-types.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from packetcloud.chunk.toml_files import TomlFiles, TomlTable
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.limits import MAX_IO_PER_S, Limits

MAX_TYPES_COUNT = 256
"""People choose from this list; a longer one is a mistake."""
DEFAULT_CATALOGUE = "vi_types.toml"
_FILES = TomlFiles(CloudletConfigError)


class ViTypeTable(TomlTable):
    """`[[vi_type]]`: one type."""

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$"),
        Field(description="lower-case letters, digits and '-', at most 31"),
    ]
    vcpu: Annotated[float, Field(ge=0.01, le=256)]
    memory_mib: Annotated[int, Field(ge=64, le=1 << 20, strict=True)]
    disk_mib: Annotated[int, Field(ge=64, le=1 << 24, strict=True)]
    disk_read_mib_s: Annotated[int, Field(ge=1, le=1 << 16, strict=True)] = 100
    disk_write_mib_s: Annotated[int, Field(ge=1, le=1 << 16, strict=True)] = 50
    processes: Annotated[int, Field(ge=8, le=32768, strict=True)] = 64
    io_per_s: Annotated[int, Field(ge=0, le=MAX_IO_PER_S, strict=True)] = 0
    """Reads and writes of its node's disk that are reserved for it."""
    price_tier: Annotated[int, Field(ge=1, le=1000, strict=True)]


class CatalogueFile(TomlTable):
    """A whole catalogue; `catalogue = 1` is the version of this format."""

    catalogue: Annotated[int, Field(ge=1, le=1, strict=True)]
    vi_type: Annotated[tuple[ViTypeTable, ...], Field(min_length=1, max_length=MAX_TYPES_COUNT)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        name, count = Counter(table.name for table in self.vi_type).most_common(1)[0]
        if count > 1:
            raise ValueError(f"[[vi_type]] name: {name} stands there {count} times; allowed: once")
        return self


@dataclass(frozen=True, slots=True)
class ViType:
    """A size of VI that tenants reserve by name."""

    name: str
    limits: Limits
    price_tier: int
    """A greater tier is dearer; what a tier costs is the domain controller's to say."""
    io_per_s: int = 0
    """What is reserved of its node's reads and writes."""


@dataclass(frozen=True, slots=True)
class ViTypeCatalogue:
    """All types of a cloudlet, in the order of the file."""

    types: Mapping[str, ViType]

    def get(self, name: str) -> ViType:
        """Return the type of this name.

        Raises:
            CloudletConfigError: there is none; the text names those that there are.
        """
        try:
            return self.types[name]
        except KeyError:
            known = ", ".join(self.types)
            raise CloudletConfigError(f"no VI type {name!r}; VI types: {known}") from None


def load_catalogue(path: Path | None = None) -> ViTypeCatalogue:
    """Read the catalogue at `path`; None: the one that comes with PacketCloud.

    Raises:
        CloudletConfigError: names file, table and key, and says what is allowed.
    """
    if path is not None:
        return _catalogue(_FILES.read(path, CatalogueFile))
    text = files(__package__).joinpath(DEFAULT_CATALOGUE).read_text(encoding="utf-8")
    return _catalogue(_FILES.parse(text, CatalogueFile, DEFAULT_CATALOGUE))


def _catalogue(file: CatalogueFile) -> ViTypeCatalogue:
    return ViTypeCatalogue(
        MappingProxyType({table.name: _vi_type(table) for table in file.vi_type})
    )


def _vi_type(table: ViTypeTable) -> ViType:
    limits = Limits(
        vcpu=table.vcpu,
        memory_mib=table.memory_mib,
        disk_mib=table.disk_mib,
        disk_read_mib_s=table.disk_read_mib_s,
        disk_write_mib_s=table.disk_write_mib_s,
        processes_count=table.processes,
    )
    return ViType(table.name, limits, table.price_tier, table.io_per_s)
