"""Images of services: the newest that was built of each one's code, or the files that the config
names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.declared_services import DeclaredService
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.images.assembly import service_code_digest
from packetcloud.cloudlet.images.build import DEFAULT_NAME
from packetcloud.cloudlet.images.recipe import ImageError
from packetcloud.cloudlet.images.store import BuiltImage, ImageStore
from packetcloud.cloudlet.process_node import OWN_PROGRAM

_READ_BYTES = 1 << 20


def find_images(config: CloudletConfig) -> dict[str, ImageFiles]:
    """Return the image of each service that has one, by the service's name.

    A bundled service runs from the image of all bundled services; an author's from one that was
    built of the files that lie beside its manifest now, whatever others are called; a child process
    from what is installed here. Files that the config names are read whole, for their fingerprint.

    Raises:
        CloudletConfigError: a file cannot be read, or a service's files are more than an image
            takes.
    """
    if config.file.has_processes:
        return {one.name: OWN_PROGRAM for one in config.services}
    images = ImageStore(config.images_folder).images()
    found = {}
    for one in config.services:
        files = config.image_files(one)
        if files:
            found[one.name] = read_image(f"service {one.name}", files)
            continue
        newest = _newest_of(one, images)
        if newest is not None:
            found[one.name] = newest.files()
    return found


def read_image(description: str, files: tuple[Path, ...]) -> ImageFiles:
    """Return an image made of these files, with the fingerprint that LXD will give it.

    Raises:
        CloudletConfigError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as stream:
                while data := stream.read(_READ_BYTES):
                    digest.update(data)
        except OSError as error:
            raise CloudletConfigError(
                f"[[service]] image: {path}: {error.strerror}; allowed: the files of an image"
            ) from None
    return ImageFiles(digest.hexdigest(), description, files)


def _newest_of(one: DeclaredService, images: list[BuiltImage]) -> BuiltImage | None:
    if one.is_bundled:
        return next((image for image in images if image.name == DEFAULT_NAME), None)
    if not images:
        return None  # its files need not be read
    try:
        code = service_code_digest(one.manifest_path.parent)
    except ImageError as error:
        raise CloudletConfigError(f"[[service]] {one.name}: {error}") from None
    except OSError as error:
        raise CloudletConfigError(
            f"[[service]] {one.name}: {error.filename}: {error.strerror}; allowed: files that an "
            "image can be built of"
        ) from None
    return next((image for image in images if image.service_code == code), None)
