"""Images and the parts they are made of on disk: each is whole or not there.

What is being made lies in a folder of its own and is renamed into place at the end. One builder at
a time holds the store's lock; what a killed one left, the next removes. The lock is the kernel's,
so it goes with its holder. Readers need none.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.images.recipe import ImageError

FORMAT = "packetcloud-image-1"
DEFAULT_FOLDER = Path("/var/cache/packetcloud/images")
_TARBALL = "image.tar"
_FACTS = "image.json"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in the store."""

    version: str
    name: str
    suite: str
    fingerprint: str
    python: str
    files_count: int
    size_bytes: int
    made_at: float
    """Seconds since 1970."""
    packages: tuple[tuple[str, str], ...]
    requirements: tuple[tuple[str, str], ...]
    """Name and version that pip chose."""
    path: Path
    service_code: str = ""
    """Digest of the author's files in it; empty: none, or an earlier version built it."""

    def files(self) -> ImageFiles:
        """Return it as nodes import it."""
        return ImageFiles(self.fingerprint, f"{self.name} {self.version}", (self.path,))


class ImageStore:
    """A folder of images."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self._work = folder / "work"

    def images(self) -> list[BuiltImage]:
        """Return all images, the newest first."""
        found = [self._read(path) for path in (self.folder / "images").glob(f"*/{_FACTS}")]
        return sorted((one for one in found if one), key=lambda image: -image.made_at)

    def get(self, wanted: str) -> BuiltImage:
        """Return the image of this version, or the newest of this name.

        Raises:
            ImageError: neither; the text says what there is.
        """
        images = self.images()
        for image in images:
            if wanted in (image.version, image.name):
                return image
        known = ", ".join(f"{image.name} ({image.version})" for image in images) or "none"
        raise ImageError(f"no image {wanted!r} in {self.folder}; images: {known}")

    def remove(self, version: str) -> None:
        """Remove an image. Raises: ImageError: there is none of this version."""
        with self.locked(lambda text: None):
            image = self.get(version)
            trash = self._work / f"removed-{image.version}"
            image.path.parent.rename(trash)
            shutil.rmtree(trash)
            for answer in (self.folder / "answers").glob("*"):
                if answer.read_text() == image.version:
                    answer.unlink()

    @contextmanager
    def locked(self, told: Callable[[str], None]) -> Iterator[Path]:
        """Hold the store alone and give a folder to work in, empty, gone afterwards.

        Raises:
            ImageError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageError(f"cannot write to {self.folder}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told("another build is going on; waiting for its end")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._clear_work()
            self._work.mkdir()
            try:
                yield self._work
            finally:
                self._clear_work()
        finally:
            os.close(descriptor)

    def part(self, key: str) -> Path:
        """Return where a part of this key is, or would be: the packages of a suite."""
        return self.folder / "parts" / key

    def put_part(self, key: str, made: Path) -> Path:
        """Move a whole part into the store, in place of an older one."""
        place = self.part(key)
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(self._work / "old-part")
        made.rename(place)
        return place

    def answer(self, inputs: str, service_code: str = "") -> BuiltImage | None:
        """Return the image that was made of inputs of this digest, if it is still there.

        One that does not say of which author's files it is, as earlier versions built them, is
        none: no service would be found to be its own.
        """
        path = self.folder / "answers" / inputs
        if not path.is_file():
            return None
        image = self._read(self.folder / "images" / path.read_text() / _FACTS)
        return image if image is not None and image.service_code == service_code else None

    def put_image(self, inputs: str, facts: dict[str, Any], tarball: Path) -> BuiltImage:
        """Move an image into the store and remember what it was made of."""
        made = self._work / "image"
        made.mkdir()
        tarball.rename(made / _TARBALL)
        facts = {"format": FORMAT, **facts, "size_bytes": (made / _TARBALL).stat().st_size}
        (made / _FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        place = self.folder / "images" / facts["version"]
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(self._work / "old-image")
        made.rename(place)
        note = self._work / "answer"
        note.write_text(facts["version"])
        (self.folder / "answers").mkdir(exist_ok=True)
        note.rename(self.folder / "answers" / inputs)
        image = self._read(place / _FACTS)
        assert image is not None
        return image

    def _read(self, path: Path) -> BuiltImage | None:
        try:
            values = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None  # removed meanwhile
        if values.pop("format", None) != FORMAT:
            return None  # another version's; not ours to judge
        values["packages"] = tuple(map(tuple, values["packages"]))
        values["requirements"] = tuple(map(tuple, values["requirements"]))
        return BuiltImage(**values, path=path.with_name(_TARBALL))

    def _clear_work(self) -> None:
        if self._work.exists():
            shutil.rmtree(self._work)


def document_of(image: BuiltImage) -> dict[str, Any]:
    """Return an image as JSON has it."""
    return {**asdict(image), "path": str(image.path)}
