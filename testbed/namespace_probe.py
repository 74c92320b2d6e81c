"""Find out whether this process may make network namespaces, veth pairs and emulated links.

Runs in a process of its own (`python -m packetcloud.testbed.namespace_probe`), because a process
cannot leave a namespace behind that it entered; everything it makes ends with it. Prints one JSON
object.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os

CLONE_NEWNET = 0x4000_0000  # linux/sched.h; os.unshare is there from Python 3.12 on only
_LINK = "pc-probe0"


def probe() -> dict[str, bool]:
    """Enter a new network namespace and try a veth pair, netem and a TUN device in it."""
    found = {"namespaces": False, "veth": False, "netem": False, "tun": False}
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return found
    found["namespaces"] = True

    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    from packetcloud.testbed.emulator.tun import open_tun

    with IPRoute() as routes:
        try:
            routes.link("add", ifname=_LINK, kind="veth", peer={"ifname": "pc-probe1"})
            found["veth"] = True
            index = routes.link_lookup(ifname=_LINK)[0]
            routes.tc("add", "netem", index, handle="1:", delay=1000)
            found["netem"] = True
        except NetlinkError:
            pass
    with contextlib.suppress(OSError):
        os.close(open_tun("pc-probe2"))
        found["tun"] = True
    return found


if __name__ == "__main__":
    print(json.dumps(probe()))
