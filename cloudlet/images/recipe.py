"""What goes into an image, and what it is named by. Pure.

An image's version is a digest over everything that it was made of, so equal inputs are one image
and a changed one is another. Source: docs/how-to/build-an-image.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packetcloud.cloudlet.errors import CloudletError

RECIPE = 1
"""Grows with every change of what this package makes of equal inputs."""
INCLUDED = ("python3-minimal", "libpython3-stdlib", "iproute2", "tini")
"""What debootstrap fetches besides its smallest set."""
SEEDS = ("dash", "iproute2", "libc-bin", "libgcc-s1", "libstdc++6", "tini", "zlib1g")
"""What an image holds, with all that these need, and Python's own packages. The libraries are those
that every wheel may count on. Source: PEP 513, PEP 599."""
NOT_NEEDED = frozenset({"debconf", "dpkg", "media-types", "perl-base", "readline-common", "tzdata"})
"""Named by packages of an image for their installation, which an image does not do."""
LEFT_OUT = (
    "./etc/cron*",
    "./etc/init.d",
    "./etc/pam.d",
    "./lib/systemd",
    "./usr/lib/systemd",
    "./usr/lib/*/gconv",
    "./usr/lib/*/perl*",
    "./usr/lib/python3*/lib2to3",
    "./usr/lib/python3*/pydoc_data",
    "./usr/lib/python3*/turtle.py",
    "./usr/share",
    "./var",
)
"""Files of the packages that no service needs: documentation, locales, what installs."""
VI_REQUIREMENTS = (
    "cryptography",
    "hyperscan",
    "numpy",
    "pycryptodome",
    "pynacl",
    "twisted",
    "zstandard",
)
"""Distributions that the runtime and the bundled services import in a VI: not the controllers',
and a test walks the imports."""
OWN_ROOMS = ("chunk", "services")
SERVICE_FOLDER = "/opt/packetcloud/service"
"""Where the code of an author's own service lies in an image; on the path of its Python."""
INIT = """#!/bin/sh
exec /usr/bin/tini -- /usr/bin/python3 -P -m packetcloud.services.vi
"""
DEFAULT_SUITE = "bookworm"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?"
    r"\s*(?:\(?[<>=!~][A-Za-z0-9<>=!~.*+_,\s-]*\)?)?\s*(?:;[^/@]*)?"
)
_ARCHIVES = (".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".txz", ".lz", ".lzma")
"""What pip takes for a file where there is one of this name."""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC_MINOR = 17
"""manylinux2014, the oldest that wheels of today are made for."""


class ImageError(CloudletError):
    """An image could not be built; the text names the step and what the tool said."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of Debian."""

    name: str
    version: str
    needs: tuple[tuple[str, ...], ...]
    """Each a choice: one of its names must be there."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What wheels must fit."""

    python: tuple[int, int]
    glibc: tuple[int, int]
    architecture: str
    """As Debian names it: `amd64`."""

    @property
    def machine(self) -> str:
        return _MACHINES[self.architecture]

    def pip_options(self) -> list[str]:
        """Return what tells pip of the platform: every manylinux that its glibc can run."""
        tags = [
            f"manylinux_{self.glibc[0]}_{minor}_{self.machine}"
            for minor in range(self.glibc[1], _OLDEST_GLIBC_MINOR - 1, -1)
        ]
        options = ["--python-version", f"{self.python[0]}.{self.python[1]}"]
        options += ["--implementation", "cp", "--only-binary", ":all:"]
        for tag in [*tags, f"manylinux2014_{self.machine}"]:
            options += ["--platform", tag]
        return options


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """Everything that an image is made of and that is known before it is made."""

    name: str
    """The service's, or `packetcloud`: for people."""
    suite: str
    platform: Platform
    packages: tuple[tuple[str, str], ...]
    """Name and version."""
    own_code: str
    """Digest of our rooms' files."""
    requirements: tuple[str, ...]
    """As pip takes them."""
    service_code: str = ""
    """Digest of an author's files; empty: a bundled service, or none in particular."""

    def digest(self) -> str:
        """Return what equal inputs have in common."""
        platform = self.platform
        return _digest(
            RECIPE,
            self.name,
            self.suite,
            [platform.python, platform.glibc, platform.architecture],
            sorted(self.packages),
            self.own_code,
            sorted(self.requirements),
            self.service_code,
        )


def version_of(inputs: ImageInputs, resolved: Iterable[tuple[str, str]]) -> str:
    """Return the version: the inputs, and which distributions pip chose for them."""
    return _digest(inputs.digest(), sorted(resolved))[:16]


def check_name(name: str) -> None:
    """Raises: ImageError: no name of an image."""
    if not _NAME.fullmatch(name):
        raise ImageError(
            f"image name {name!r}: allowed: lower-case letters, digits, '.', '_', '-', at most 63"
        )


def needed_packages(packages: Mapping[str, Package], seeds: Iterable[str]) -> list[Package]:
    """Return the packages that `seeds` need, themselves included, by name.

    Raises:
        ImageError: one is not among `packages`.
    """
    found: dict[str, Package] = {}
    open_names = list(seeds)
    while open_names:
        name = open_names.pop()
        if name in found:
            continue
        if name not in packages:
            raise ImageError(f"debootstrap fetched no package {name}")
        found[name] = packages[name]
        for choice in packages[name].needs:
            if NOT_NEEDED.isdisjoint(choice):
                # None of them is there: it is provided by one that is, or debootstrap would fail.
                open_names += [one for one in choice if one in packages][:1]
    return [found[name] for name in sorted(found)]


def parse_needs(text: str) -> tuple[tuple[str, ...], ...]:
    """Read a field Depends: `libc6 (>= 2.34), debconf | debconf-2.0`."""
    return tuple(
        tuple(re.split(r"[\s(:]", one.strip(), maxsplit=1)[0] for one in choice.split("|"))
        for choice in text.split(",")
        if choice.strip()
    )


def platform_of(packages: Mapping[str, Package], architecture: str) -> Platform:
    """Return the platform of a set of packages.

    Raises:
        ImageError: no Python or C library among them, or no architecture that we build for.
    """
    if architecture not in _MACHINES:
        known = ", ".join(_MACHINES)
        raise ImageError(f"architecture {architecture}: images are built for {known}")
    pythons = [
        match for name in packages if (match := re.fullmatch(r"python(3)\.(\d+)-minimal", name))
    ]
    libc = (
        re.match(r"(?:\d+:)?(\d+)\.(\d+)", packages["libc6"].version)
        if "libc6" in packages
        else None
    )
    if len(pythons) != 1 or libc is None:
        raise ImageError("the packages have no Python 3 or no libc6; choose another suite")
    return Platform(
        (int(pythons[0][1]), int(pythons[0][2])), (int(libc[1]), int(libc[2])), architecture
    )


def seeds_of(platform: Platform) -> list[str]:
    """Return the packages that an image of this Python begins with."""
    python = f"python{platform.python[0]}.{platform.python[1]}"
    return [*SEEDS, f"{python}-minimal", f"lib{python}-stdlib"]


def metadata_document(inputs: ImageInputs, version: str) -> str:
    """Return `metadata.yaml` of LXD's image format. JSON is YAML, too."""
    properties = {
        "description": f"PacketCloud {inputs.name} {version} ({inputs.suite})",
        "os": "debian",
        "release": inputs.suite,
        "packetcloud-name": inputs.name,
        "packetcloud-version": version,
    }
    document = {
        "architecture": inputs.platform.machine,
        "creation_date": 1,  # the same image has the same bytes, whenever it was made
        "properties": properties,
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def requirement_lines(text: str) -> Iterator[str]:
    """Yield the requirements of a requirements.txt, one each, without comments.

    Raises:
        ImageError: an option of pip, an address or a file: where packages come from is pip's own
            configuration, and of a folder pip would run the code, as root.
    """
    for line in text.splitlines():
        requirement = line.split(" #")[0].strip()
        if not requirement or requirement.startswith("#"):
            continue
        wanted = _REQUIREMENT.fullmatch(requirement)
        if wanted is None or wanted["name"].lower().endswith(_ARCHIVES):
            raise ImageError(
                f"requirement {requirement!r}: allowed: a name and its versions, such as "
                "regex>=2024; indexes are configured with pip config"
            )
        yield requirement


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
