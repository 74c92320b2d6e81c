"""An amount of what VIs share on a node, and VI types. Source: paper, section 3.2."""

from __future__ import annotations

from dataclasses import dataclass

from packetcloud.domain_controller.core.checks import (
    MAX_INTEGER,
    check_integer,
    check_name,
    check_type,
)

MAX_MILLI_CPUS = 4_096_000
"""Of one node: 4 096 processors."""
MAX_MEMORY_BYTES = 1 << 50
"""Of one node: 1 PiB. With the next: a domain's sum over its nodes stays in 63 bits."""
MAX_DISK_BYTES = 1 << 50
"""Of one node: 1 PiB."""
MAX_IO_PER_S = 1_000_000_000
"""Of one node: operations each second, reads and writes together."""
MAX_PRICE_TIER = 1000


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of what VIs share. Never negative, never a fraction."""

    milli_cpus: int = 0
    """Thousandths of a processor's time."""
    memory_bytes: int = 0
    disk_bytes: int = 0
    io_per_s: int = 0
    """Operations on disk each second, reads and writes together."""

    def __post_init__(self) -> None:
        amounts = self.amounts
        if (
            set(map(type, amounts)) == _INTEGERS
            and min(amounts) >= 0
            and max(amounts) <= MAX_INTEGER
        ):
            return  # sums are made for each step of a calendar
        for name in KINDS:
            check_integer(f"resources.{name}", getattr(self, name), 0, MAX_INTEGER)

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.milli_cpus + other.milli_cpus,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
            self.io_per_s + other.io_per_s,
        )

    def less(self, other: Resources) -> Resources:
        """Return what is left of this without `other`; of each kind at least nothing."""
        return Resources(
            max(0, self.milli_cpus - other.milli_cpus),
            max(0, self.memory_bytes - other.memory_bytes),
            max(0, self.disk_bytes - other.disk_bytes),
            max(0, self.io_per_s - other.io_per_s),
        )

    def times(self, number: int) -> Resources:
        """Return this amount, `number` times."""
        return Resources(
            self.milli_cpus * number,
            self.memory_bytes * number,
            self.disk_bytes * number,
            self.io_per_s * number,
        )

    def permille(self, share: int) -> Resources:
        """Return so many thousandths of this amount, each kind cut to a whole number."""
        return Resources(*(amount * share // 1000 for amount in self.amounts))

    def lacking_for(self, wanted: Resources) -> list[str]:
        """Name the kinds of which this is less than `wanted`; empty: it is enough."""
        return [
            name
            for name, have, want in zip(KINDS, self.amounts, wanted.amounts, strict=True)
            if have < want
        ]

    def fits_in(self, whole: Resources) -> bool:
        """Tell whether `whole` is enough for this."""
        return not whole.lacking_for(self)

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        """The four amounts, in the order of `KINDS`."""
        return self.milli_cpus, self.memory_bytes, self.disk_bytes, self.io_per_s


_INTEGERS = {int}
KINDS = ("milli_cpus", "memory_bytes", "disk_bytes", "io_per_s")
NOTHING = Resources()
MAX_OF_NODE = Resources(MAX_MILLI_CPUS, MAX_MEMORY_BYTES, MAX_DISK_BYTES, MAX_IO_PER_S)


def check_node_amount(where: str, value: object) -> None:
    """Refuse what no node has.

    Raises:
        InvalidValueError: names `where`, the kind and the bound.
    """
    check_type(where, value, Resources, "resources")
    assert isinstance(value, Resources)
    for name, amount, most in zip(KINDS, value.amounts, MAX_OF_NODE.amounts, strict=True):
        check_integer(f"{where}.{name}", amount, 0, most)


@dataclass(frozen=True, slots=True)
class ViType:
    """A size of VI that tenants reserve by name."""

    name: str
    resources: Resources
    price_tier: int = 1
    """A price list has a price for each tier; a greater one is dearer."""

    def __post_init__(self) -> None:
        check_name("vi_type.name", self.name)
        check_node_amount("vi_type.resources", self.resources)
        check_integer("vi_type.resources.milli_cpus", self.resources.milli_cpus, 1, MAX_MILLI_CPUS)
        check_integer("vi_type.price_tier", self.price_tier, 1, MAX_PRICE_TIER)
