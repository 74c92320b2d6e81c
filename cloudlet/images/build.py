"""One build of an image from end to end. What was made before of the same inputs is found again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packetcloud.cloudlet.images import assembly, debian, requirements
from packetcloud.cloudlet.images.recipe import (
    DEFAULT_SUITE,
    INCLUDED,
    ImageError,
    ImageInputs,
    Platform,
    check_name,
    metadata_document,
    needed_packages,
    platform_of,
    requirement_lines,
    seeds_of,
    version_of,
)
from packetcloud.cloudlet.images.store import BuiltImage, ImageStore
from packetcloud.services.manifest import load_manifest

REQUIREMENTS_FILE = "requirements.txt"
DEFAULT_NAME = "packetcloud"
STEPS = ("packages", "unpack", "requirements", "code", "compile", "pack")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a build is."""

    step: str
    """One of `STEPS`."""
    detail: str


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What is to be built."""

    suite: str = DEFAULT_SUITE
    mirror: str | None = None
    """None: the one that this machine's apt uses for the suite."""
    manifest: Path | None = None
    """Of an author's own service. None: what all bundled services need."""
    refresh: bool = False
    """Fetch packages and requirements anew, also where those of before would do."""


def build_image(
    store: ImageStore, request: BuildRequest, told: Callable[[Progress], None]
) -> tuple[BuiltImage, bool]:
    """Return the image of a request, and whether it had to be made.

    Raises:
        ImageError: not root, or a step failed; the store is as before.
        ManifestError: the service's manifest has a mistake.
    """
    name, wanted, service = _service_of(request)
    if os.geteuid() != 0:
        raise ImageError("images are built by root: files of an image belong to its own root")
    with store.locked(lambda text: told(Progress("packages", text))) as work:
        folder = _packages(store, request, work, told)
        everything = debian.read_packages(folder)
        packages = {key: package for key, (package, _) in everything.items()}
        platform = platform_of(packages, debian.machine_architecture())
        chosen = needed_packages(packages, seeds_of(platform))
        inputs = ImageInputs(
            name=name,
            suite=request.suite,
            platform=platform,
            packages=tuple((package.name, package.version) for package in chosen),
            own_code=assembly.own_code_digest(),
            requirements=(*requirements.runtime_requirements(), *wanted),
            service_code="" if service is None else assembly.service_code_digest(service),
        )
        known = None
        if not request.refresh:
            known = store.answer(inputs.digest(), inputs.service_code)
        if known is not None:
            return known, False
        archives = [everything[package.name][1] for package in chosen]
        return _make(store, inputs, archives, service, work, told), True


def _service_of(request: BuildRequest) -> tuple[str, list[str], Path | None]:
    """Return name, requirements and folder of the service."""
    if request.manifest is None:
        return DEFAULT_NAME, [], None
    path = request.manifest
    if path.is_dir():
        path = path / "manifest.toml"
    name = load_manifest(path).service.name
    check_name(name)
    if name == DEFAULT_NAME:
        raise ImageError(
            f"{path}: [service] name = {name!r}: the image of all bundled services has that name, "
            "and they would run from this one; choose another"
        )
    file = path.parent / REQUIREMENTS_FILE
    lines = list(requirement_lines(file.read_text())) if file.is_file() else []
    return name, lines, path.parent


def _packages(
    store: ImageStore, request: BuildRequest, work: Path, told: Callable[[Progress], None]
) -> Path:
    """Return a folder with the packages of the suite, fetched if need be."""
    architecture = debian.machine_architecture()
    words = "\0".join([request.suite, architecture, request.mirror or "", *INCLUDED])
    key = f"{request.suite}-{architecture}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    place = store.part(key)
    if place.is_dir() and not request.refresh:
        return place
    mirror = request.mirror or debian.find_mirror(request.suite)
    made = work / "packages"
    made.mkdir()

    def heard(line: str) -> None:
        told(Progress("packages", line))

    debian.fetch_packages(made, request.suite, architecture, mirror, heard)
    return store.put_part(key, made)


def _make(
    store: ImageStore,
    inputs: ImageInputs,
    archives: list[Path],
    service: Path | None,
    work: Path,
    told: Callable[[Progress], None],
) -> BuiltImage:
    root, platform = work / "rootfs", inputs.platform
    debian.unpack(archives, root, lambda line: told(Progress("unpack", line)))
    assembly.lay_base_files(root, platform)
    told(Progress("requirements", " ".join(inputs.requirements)))
    target = assembly.site_packages(root, platform)
    resolved = requirements.install(list(inputs.requirements), platform, target)
    version = version_of(inputs, resolved)
    told(Progress("code", "chunk, services" + (f", {service}" if service else "")))
    assembly.lay_own_code(root, platform)
    if service is not None:
        assembly.lay_service_code(root, platform, service)
    told(Progress("compile", f"with Python {_text(platform)} of the image"))
    assembly.compile_modules(root, platform)
    assembly.try_out(root, platform)
    files_count = assembly.count_files(root)
    told(Progress("pack", f"{files_count} files"))
    (work / "metadata.yaml").write_text(metadata_document(inputs, version))
    fingerprint = assembly.pack(work, work / "image.tar")
    facts = {
        "version": version,
        "name": inputs.name,
        "suite": inputs.suite,
        "fingerprint": fingerprint,
        "python": _text(platform),
        "files_count": files_count,
        "made_at": time.time(),
        "packages": sorted(inputs.packages),
        "requirements": resolved,
        "service_code": inputs.service_code,
    }
    return store.put_image(inputs.digest(), facts, work / "image.tar")


def _text(platform: Platform) -> str:
    return f"{platform.python[0]}.{platform.python[1]}"
