"""Images of the VIs of an experiment: those of the store, or built now while it is told how far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from packetcloud.cloudlet.images.build import BuildRequest, Progress, build_image
from packetcloud.cloudlet.images.store import BuiltImage, ImageStore

_MAX_DETAIL_CHARS = 60


def vi_image(
    tell: Callable[[str], None], folder: Path | None = None, manifest: Path | None = None
) -> BuiltImage:
    """Return the image of this source tree's code; building one takes a minute or two.

    Args:
        folder: of the store; None: where `packetcloud image build` puts images.
        manifest: of an author's own service; None: the image of all bundled ones.

    Raises:
        ImageError, ManifestError: it cannot be built.
    """

    def told(progress: Progress) -> None:
        tell(f"image: {progress.step}: {progress.detail[:_MAX_DETAIL_CHARS]}")

    store = ImageStore() if folder is None else ImageStore(folder)
    built, _ = build_image(store, BuildRequest(manifest=manifest), told)
    return built
