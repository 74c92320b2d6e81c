"""What a cloudlet has and wants: resources, services, settings. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of what VIs share on a node."""

    cpus: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    io_per_s: int = 0
    """Reads and writes of a disk; of a node: as declared, nothing measures it."""

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cpus + other.cpus,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
            self.io_per_s + other.io_per_s,
        )

    def __sub__(self, other: Resources) -> Resources:
        return self + other.times(-1)

    def times(self, factor: float) -> Resources:
        """Return this amount, `factor` times; all but processors are cut to whole ones."""
        return Resources(
            self.cpus * factor,
            int(self.memory_bytes * factor),
            int(self.disk_bytes * factor),
            int(self.io_per_s * factor),
        )

    def least(self, other: Resources) -> Resources:
        """Return of each kind the smaller amount."""
        return Resources(
            min(self.cpus, other.cpus),
            min(self.memory_bytes, other.memory_bytes),
            min(self.disk_bytes, other.disk_bytes),
            min(self.io_per_s, other.io_per_s),
        )

    def most(self, other: Resources) -> Resources:
        """Return of each kind the larger amount."""
        return Resources(
            max(self.cpus, other.cpus),
            max(self.memory_bytes, other.memory_bytes),
            max(self.disk_bytes, other.disk_bytes),
            max(self.io_per_s, other.io_per_s),
        )

    def lacking_for(self, wanted: Resources) -> list[str]:
        """Name the kinds of which this is less than `wanted`; empty: it is enough.

        Of what is not wanted there is enough, also where more is taken than there is.
        """
        pairs = (
            ("cpus", self.cpus, wanted.cpus),
            ("memory", self.memory_bytes, wanted.memory_bytes),
            ("disk", self.disk_bytes, wanted.disk_bytes),
            ("io", self.io_per_s, wanted.io_per_s),
        )
        # Sums of fractions of a processor differ from the whole in the last digits.
        return [name for name, have, want in pairs if want > 0 and want - have > 1e-9]

    @property
    def is_overdrawn(self) -> bool:
        """Tell whether it is what is left of something of which more was taken than there was."""
        return min(self.cpus, self.memory_bytes, self.disk_bytes, self.io_per_s) < -1e-9

    def largest_share_of(self, whole: Resources) -> float:
        """Return the largest of the shares that this is of `whole`; of nothing: infinite."""
        pairs = (
            (self.cpus, whole.cpus),
            (self.memory_bytes, whole.memory_bytes),
            (self.disk_bytes, whole.disk_bytes),
            (self.io_per_s, whole.io_per_s),
        )
        return max(part / all_ if all_ > 0 else float(part > 0) * 1e9 for part, all_ in pairs)


NOTHING = Resources()


@dataclass(frozen=True, slots=True)
class Allotment:
    """Those limits of a VI's container that are not its type's all the time."""

    cpus: float = 0.0
    memory_bytes: int = 0
    read_mib_s: int = 0
    """What it may read of its disk."""

    def is_about(self, other: Allotment) -> bool:
        """Tell whether limits are the same: those of LXD are whole ms of 100 ms, and whole MiB."""
        return (
            abs(self.cpus - other.cpus) < 0.0055
            and abs(self.memory_bytes - other.memory_bytes) < 1 << 20
            and self.read_mib_s == other.read_mib_s
        )


NOT_ALLOTTED = Allotment()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a VI that dies is started again."""

    first_delay_s: float = 0.1
    longest_delay_s: float = 30.0
    stable_s: float = 30.0
    """A VI that ran for so long starts again with the first delay."""
    quarantine_crashes: int = 8
    """Crashes within the window after which it is not started again; 0: never."""
    quarantine_window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """When a service gets or gives up a VI, between its bounds."""

    up_wait_s: float = 0.5
    """A chunk that waited so long for a VI calls for one more."""
    up_penalty_s: float | None = None
    """So does a delay penalty (p99) above this; None: it does not count."""
    up_after_s: float = 3.0
    """The cause must last so long."""
    down_busy_share: float = 0.3
    """With less than this share of each VI's time busy, one too many runs."""
    down_after_s: float = 60.0
    pause_s: float = 10.0
    """After each change the next waits so long: a new VI takes some time to show."""


@dataclass(frozen=True, slots=True)
class ConductPolicy:
    """What a VI may do before it is restricted, and then stopped."""

    restrict_violations: int = 10
    """Within the window."""
    stop_violations: int = 100
    window_s: float = 60.0
    restrict_s: float = 600.0
    """How long the first restriction lasts; each further one twice as long."""
    max_restrictions: int = 3
    """When it would be restricted once more, it is stopped."""


@dataclass(frozen=True, slots=True)
class ServiceWish:
    """One service as the operator declared it."""

    name: str
    sid: str
    """40 hexadecimal digits."""
    vi_type: str
    replicas_min: int = 1
    replicas_max: int = 1
    standbys: int = 0
    """VIs that wait for a launch, so that the next one is quick."""
    image: str = ""
    """Fingerprint of the image that its VIs are made of; empty: there is none."""
    owner: str | None = None
    """The tenant; None: the ISP itself."""
    has_state: bool = False
    """Its state must go along when it migrates."""
    router_entry: Mapping[str, object] = field(default_factory=dict)
    """What the router's table says of it besides its VIs: name, priority, fail_policy, ..."""
    restart: RestartPolicy = RestartPolicy()
    scaling: ScalingPolicy = ScalingPolicy()
    conduct: ConductPolicy = ConductPolicy()
    hang_s: float = 10.0
    """A VI that is silent for so long, or has one task for so long, is killed."""
    nodes: frozenset[str] | None = None
    """Nodes that can have its VIs; None: all."""
    denied_per_violation: int = 0
    """Tries to reach what it may not in the IP network that are a violation; 0: they are none."""


@dataclass(frozen=True, slots=True)
class CloudletSettings:
    """Everything that the core needs to know of its cloudlet."""

    name: str
    nodes: tuple[str, ...]
    vi_types: Mapping[str, Resources]
    reads_mib_s: Mapping[str, int]
    """What a VI may read of its disk, by its type."""
    services: Mapping[str, ServiceWish]
    addresses: range = range(16, 4096)
    """Numbers of the addresses that VIs may have on the two bridges."""
    isp_share: float = 0.0
    """Share of each node that third parties' VIs cannot take."""
    boot_cpus: float = 1.0
    """Processors that a VI may have until it is ready, of what nobody has reserved; 0: it starts
    with the limits of its type."""
    boot_read_mib_s: int = 1000
    """What it may read of its disk until then."""
    boot_limit_s: float = 30.0
    """From a container's start to its call over the control link."""
    launch_limit_s: float = 30.0
    """From the launch to `ready`."""
    stop_limit_s: float = 8.0
    """For an orderly end; longer than a runtime drains (5 s)."""
    migration_limit_s: float = 60.0
    """For a whole migration, most of which is the twin's start."""
    hold_limit_s: float = 10.0
    """For the part of it in which chunks wait."""
    node_lost_s: float = 10.0
    """A node that does not answer for so long is given up: its VIs start elsewhere."""
    evacuations_at_once: int = 2
    retry_s: float = 1.0
    """A command that a node did not answer is repeated after so long."""
    name_at_domain: str = ""
    """Under which the domain controller knows it; empty: there is none."""
