"""What a VI's container may use now: as its type says, more until it is ready, less as a standby.

A program that starts in a new container reads its files, since no two containers share them in
memory, and needs its processor; the limits of a small type stretch both. So a VI may read fast
until its service runs, and have more processors (`boot_cpus`), of what nobody has reserved.
Source: docs/decisions/0013-cloudlet.md.
"""

from __future__ import annotations

from packetcloud.cloudlet.core.instances import Role, Vi, ViState
from packetcloud.cloudlet.core.values import Allotment, CloudletSettings, Resources

_BOOTS = (ViState.PLACED, ViState.CREATED, ViState.BOOTING, ViState.LAUNCHING)
_STOPPED = (ViState.PLACED, ViState.BACKING_OFF, ViState.QUARANTINED, ViState.GONE)
WAITING_SIZE = Resources(0.1, 128 << 20, 1 << 60)
"""What a standby may use while it waits, where its type has more; of the disk, all of its type's.
It does nothing: the memory is what its program has loaded, and the files that the kernel keeps."""


def standing_of(vi: Vi, settings: CloudletSettings) -> Resources:
    """Return what is reserved for a VI: its type, or the larger one of a resize under way."""
    types = settings.vi_types
    size = types[vi.vi_type]
    size = size.most(types.get(vi.resize_to or vi.vi_type, size))
    return size.least(WAITING_SIZE) if vi.role is Role.STANDBY else size


def is_booting(vi: Vi) -> bool:
    """Tell whether a VI is on its way to its service, or to where it waits for one."""
    return vi.state in _BOOTS or (vi.state is ViState.WAITING and vi.role is not Role.STANDBY)


def borrowed_by(vi: Vi, settings: CloudletSettings) -> float:
    """Return how many processors a VI has, or is to get, above what is reserved for it.

    What it had for its start counts until its node said that it has less, or that it is stopped.
    """
    lent = vi.boot_cpus if is_booting(vi) else 0.0
    had = 0.0 if vi.state in _STOPPED else vi.allotted.cpus
    return max(0.0, max(lent, had) - standing_of(vi, settings).cpus)


def allotment_of(vi: Vi, settings: CloudletSettings, vi_type: str) -> Allotment:
    """Return the limits that a VI's container should have now, as one of `vi_type`."""
    if vi.role is Role.STANDBY:
        size = standing_of(vi, settings)
    else:
        # A type that is no longer in the catalogue is refused where the rest of its limits is.
        size = settings.vi_types.get(vi_type, settings.vi_types[vi.vi_type])
    read_mib_s = settings.reads_mib_s.get(vi_type, settings.reads_mib_s[vi.vi_type])
    if not is_booting(vi) or not vi.boot_cpus:
        return Allotment(size.cpus, size.memory_bytes, read_mib_s)
    more_cpus = max(0.0, vi.boot_cpus - standing_of(vi, settings).cpus)
    return Allotment(
        size.cpus + more_cpus, size.memory_bytes, max(read_mib_s, settings.boot_read_mib_s)
    )
