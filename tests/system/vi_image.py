"""The image of VIs for tests: built once, kept in build/ for the next run."""

from __future__ import annotations

from pathlib import Path

from packetcloud.cloudlet.images.build import BuildRequest, build_image
from packetcloud.cloudlet.images.store import BuiltImage, ImageStore

STORE = ImageStore(Path(__file__).parents[2] / "build" / "images")
BUILD_TIMEOUT_S = 900
"""For `pytest.mark.timeout` of whoever may be the first to need it."""


def vi_image() -> BuiltImage:
    """Return the image of this source tree; takes a minute or two when the tree has changed."""
    built, _ = build_image(STORE, BuildRequest(), lambda progress: None)
    return built
