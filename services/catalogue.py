"""The bundled services, and finding the manifest that a user means by a name or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packetcloud.services.errors import ManifestError
from packetcloud.services.manifest import Manifest, load_manifest

BUNDLED = ("secure_communication", "translator", "wan_optimizer")
"""Sub-packages of this room that hold a service and its `manifest.toml`."""
_ROOM = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class FoundService:
    """A manifest and where it lies."""

    manifest: Manifest
    path: Path
    search_path: str | None
    """Folder of an author's own module; None for a bundled service."""


def bundled_services() -> list[FoundService]:
    """Return every service that comes with PacketCloud."""
    paths = [_ROOM / name / "manifest.toml" for name in BUNDLED]
    return [FoundService(load_manifest(path), path, None) for path in paths]


def find_service(name_or_file: str) -> FoundService:
    """Return the bundled service of that name, or the one whose manifest is that file or folder.

    Raises:
        ManifestError: neither; the text names the bundled services.
    """
    bundled = {found.manifest.service.name: found for found in bundled_services()}
    if name_or_file in bundled:
        return bundled[name_or_file]
    path = Path(name_or_file).expanduser()
    if path.is_dir():
        path = path / "manifest.toml"
    if not path.is_file():
        raise ManifestError(
            f"no service {name_or_file!r}: neither a manifest file nor a bundled service; "
            f"bundled: {', '.join(sorted(bundled))}"
        )
    path = path.absolute()
    return FoundService(load_manifest(path), path, str(path.parent))
