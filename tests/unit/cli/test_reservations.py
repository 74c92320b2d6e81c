"""What the commands about reservations show."""

from __future__ import annotations

from packetcloud.cli.reservation import places_of
from packetcloud.domain_controller.api.answered import PlaceInfo


def test_a_cloudlet_that_is_away_shows_with_its_time() -> None:
    """Beside the number of VIs; one that is there shows without."""
    here = PlaceInfo(cloudlet="edge-1", count=2)
    away = PlaceInfo(cloudlet="edge-2", count=1, away_since_ms=1_800_000_000_000)
    assert places_of([here, away]) == "edge-1: 2, edge-2: 1 (away since 2027-01-15 08:00:00Z)"
