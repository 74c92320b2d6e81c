"""Where a run of trains may land; a fault of it once kept a receiver busy for ever."""

from __future__ import annotations

from packetcloud.chunk.hop import wire
from packetcloud.chunk.messages import BodyKind
from tests.unit.chunk.hop.hop_link import A, B, Link


def test_no_run_lands_behind_the_end_of_a_transfer_that_has_a_hole() -> None:
    """Its last segment is there, one before it is not: the repeat must be read elsewhere.

    Seen as a stall: the shell received into no rows, over and over, and read nothing any more.
    """
    link = Link()
    neighbour = link.connect()
    missing = [True]

    def passes(source: object, datagram: bytes) -> bool:
        is_data = source == A and datagram[0] == wire.DATA_BYTE
        return not (is_data and missing[0] and wire.DATA_HEADER.unpack_from(datagram)[6] == 5)

    link.on_datagram = passes
    neighbour.send(BodyKind.CHUNK, b"", bytes(20_000), 1)
    receiver = link.cores[B].sessions[next(iter(link.cores[B].sessions))].receiver
    link.run(lambda: any(one.high == one.segments for one in receiver.incoming.transfers.values()))
    assert link.uppers[B].bodies == []
    assert link.cores[B].landing_place.landing_run() is None
    missing[0] = False
    link.run(lambda: bool(link.uppers[A].settled))
    assert link.uppers[B].bodies == [bytes(20_000)]
