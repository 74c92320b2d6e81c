"""TUN devices: what the kernel sends there is read here, what is written here it receives.

Source: linux/if_tun.h; Documentation/networking/tuntap.
"""

from __future__ import annotations

import fcntl
import os
import struct

_TUNSETIFF = 0x4004_54CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
READ_BYTES = 65536
"""More than any IP packet."""


def open_tun(device: str) -> int:
    """Make the TUN device `device` in the network namespace of the calling thread.

    Without a header before the packets, so the kernel segments and sums before we read: every read
    is one packet of MTU size at most. The device goes when the descriptor is closed.

    Raises:
        OSError: no /dev/net/tun, or we are not root.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
