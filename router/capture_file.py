"""Sights as pcapng: each a packet of the hop protocol in the open, with a comment that says more.

The comment begins with the point, then `; ` and words such as `from=host ...`, `to=VI 2 of service
x`, `rules=NUMBERS`, `shadow-rules=NUMBERS`, and at last what else is known.
Source: docs/how-to/capture-chunks.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from packetcloud.chunk import pcapng
from packetcloud.chunk.open_frames import OpenBody, Place
from packetcloud.router.tap import Sight, described

APPLICATION = "packetcloud chunk capture"
_NOWHERE = {4: ("0.0.0.0", 0), 6: ("::", 0)}


class CaptureWriter:
    """One capture as a file.

    Args:
        router_name: the name of the interface in the file.
        place: where the router listens; None: it does not.
        session: 64 bits that stand for a session in the packets.
    """

    def __init__(self, router_name: str, place: Place | None, session: int) -> None:
        self._router_name = router_name
        self._place = place
        self._session = session
        self._transfer = 0
        self._lost_count = 0

    def beginning(self) -> bytes:
        """Return what stands before the first packet."""
        return pcapng.section(APPLICATION) + pcapng.interface(self._router_name, pcapng.LINK_RAW)

    def packets(self, sights: Iterable[tuple[Sight, int]]) -> bytes:
        """Return the packets of sights, each given with how many were lost before it."""
        return b"".join(self._packets(sight, lost_count) for sight, lost_count in sights)

    def ending(self, time_ns: int, lost_count: int) -> bytes:
        """Return what stands behind the last packet; `lost_count`: since then."""
        return pcapng.statistics(time_ns, self._lost_count + lost_count)

    def _packets(self, sight: Sight, lost_count: int) -> bytes:
        self._lost_count += lost_count
        self._transfer += 1
        here = self._place
        there = sight.neighbour.neighbour.address if sight.neighbour is not None else None
        if there is None or not there[0]:
            there = here or _NOWHERE[4]
        if here is None:
            here = _NOWHERE[ipaddress.ip_address(there[0]).version]
        ways = (here, there) if sight.is_outbound else (there, here)
        body = OpenBody(
            *ways,
            self._session,
            self._transfer,
            sight.kind,
            sight.content,
            sight.body_bytes,
            sight.flow,
        )
        way = pcapng.Direction.OUTBOUND if sight.is_outbound else pcapng.Direction.INBOUND
        parts: list[bytes] = []
        for data, wire_bytes in body.frames():
            parts.append(
                pcapng.packet(
                    data,
                    wire_bytes,
                    sight.time_ns,
                    direction=way,
                    comment="" if parts else self._comment(sight),
                    lost_count=0 if parts else lost_count,
                )
            )
        return b"".join(parts)

    def _comment(self, sight: Sight) -> str:
        words: list[str] = [sight.point]
        if sight.neighbour is not None:
            words.append(f"{'to' if sight.is_outbound else 'from'}={described(sight.neighbour)}")
        if sight.rules:
            words.append(f"rules={','.join(map(str, sight.rules))}")
        if sight.shadow_rules:
            words.append(f"shadow-rules={','.join(map(str, sight.shadow_rules))}")
        if sight.text:
            words.append(sight.text)
        return "; ".join(words)
