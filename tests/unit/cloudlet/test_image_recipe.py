"""What goes into an image and what it is named by; how images lie on disk."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packetcloud.cloudlet.images import assembly, requirements
from packetcloud.cloudlet.images.build import BuildRequest, build_image
from packetcloud.cloudlet.images.recipe import (
    OWN_ROOMS,
    ImageError,
    ImageInputs,
    Package,
    Platform,
    metadata_document,
    needed_packages,
    parse_needs,
    platform_of,
    requirement_lines,
    seeds_of,
    version_of,
)
from packetcloud.cloudlet.images.store import ImageStore

PLATFORM = Platform((3, 11), (2, 36), "amd64")
INPUTS = ImageInputs(
    "packetcloud", "bookworm", PLATFORM, (("tini", "1"), ("dash", "2")), "aa", ("numpy>=1.26",)
)
FACTS = {
    "version": "v1",
    "name": "packetcloud",
    "suite": "bookworm",
    "fingerprint": "ab" * 32,
    "python": "3.11",
    "files_count": 7,
    "made_at": 1.0,
    "packages": [["dash", "2"]],
    "requirements": [["numpy", "2.4"]],
}


def test_everything_of_the_inputs_counts() -> None:
    """Another package, version, requirement, code or name is another image; order is not."""
    changed = [
        replace(INPUTS, name="other"),
        replace(INPUTS, suite="trixie"),
        replace(INPUTS, platform=replace(PLATFORM, python=(3, 12))),
        replace(INPUTS, packages=(("tini", "1"), ("dash", "3"))),
        replace(INPUTS, own_code="ab"),
        replace(INPUTS, requirements=()),
        replace(INPUTS, service_code="x"),
    ]
    assert len({INPUTS.digest(), *(one.digest() for one in changed)}) == len(changed) + 1
    assert replace(INPUTS, packages=INPUTS.packages[::-1]).digest() == INPUTS.digest()
    chosen = [("numpy", "2.4"), ("twisted", "26")]
    assert version_of(INPUTS, chosen) == version_of(INPUTS, chosen[::-1])
    assert version_of(INPUTS, chosen) != version_of(INPUTS, [("numpy", "2.5"), chosen[1]])


def _packages(*described: tuple[str, str]) -> dict[str, Package]:
    return {name: Package(name, "1.0", parse_needs(needs)) for name, needs in described}


def test_an_image_has_what_its_seeds_need() -> None:
    """Along all needs, the first choice that is there; what only installs is left out."""
    packages = _packages(
        ("tini", "libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0"),
        ("libc6", "libgcc-s1:any, nothing-here | libcrypt1"),
        ("libgcc-s1", "libc6"),
        ("libcrypt1", "virtual-package"),
        ("debconf", "perl-base"),
        ("apt", "libc6"),
    )
    names = [package.name for package in needed_packages(packages, ["tini"])]
    assert names == ["libc6", "libcrypt1", "libgcc-s1", "tini"]
    with pytest.raises(ImageError, match="debootstrap fetched no package dash"):
        needed_packages(packages, ["dash"])


def test_the_packages_say_which_wheels_fit() -> None:
    packages = {
        **_packages(("python3.11-minimal", ""), ("python3-minimal", "")),
        "libc6": Package("libc6", "2.36-9+deb12u14", ()),
    }
    platform = platform_of(packages, "arm64")
    assert (platform.python, platform.glibc, platform.machine) == ((3, 11), (2, 36), "aarch64")
    assert seeds_of(platform)[-2:] == ["python3.11-minimal", "libpython3.11-stdlib"]
    options = platform.pip_options()
    assert options[:4] == ["--python-version", "3.11", "--implementation", "cp"]
    assert "manylinux_2_36_aarch64" in options
    assert "manylinux_2_17_aarch64" in options
    assert "manylinux_2_37_aarch64" not in options
    with pytest.raises(ImageError, match="no Python 3 or no libc6"):
        platform_of({"libc6": packages["libc6"]}, "amd64")
    with pytest.raises(ImageError, match="architecture riscv64"):
        platform_of(packages, "riscv64")


def test_requirements_are_names_and_versions() -> None:
    """No option and no address: where packages come from is not a service's to say."""
    right = [
        *("regex>=2024", "numpy==2.4", "a.b_c-d", "x[one, two] ~= 1.0, != 1.0.3", "x (>=1,<2.*)"),
        *("x===1+local; python_version < '3.13'", "x ; sys_platform == 'linux'"),
    ]
    text = "# a comment\n\n" + " # for text\n".join(right) + "\n"
    assert list(requirement_lines(text)) == right


@pytest.mark.parametrize(
    "line",
    [
        *("--find-links /x", "-r other.txt", "x @ https://example.org/x.whl", "x @ file:x"),
        *(".", "./x", "..", "/tmp/x", "x/y", "x[y] @ z", "x.zip", "x.TAR.gz", "x-1.0.tar.bz2"),
        *("x-1-py3-none-any.whl", "x.zip[y]", "x --hash=a", "x; y @ /z", "git+x"),
    ],
)
def test_a_requirement_is_no_option_no_address_and_no_file(line: str) -> None:
    """Of a folder or an archive pip would run the code, as root."""
    with pytest.raises(ImageError, match="a name and its versions"):
        list(requirement_lines(line))


def test_the_metadata_says_nothing_of_the_moment() -> None:
    assert metadata_document(INPUTS, "v") == metadata_document(INPUTS, "v")
    assert '"creation_date": 1' in metadata_document(INPUTS, "v")
    assert '"architecture": "x86_64"' in metadata_document(INPUTS, "v")


def test_what_the_runtime_imports_is_required() -> None:
    """No module that a VI loads early comes from a distribution that images lack."""

    script = (
        "import sys; import packetcloud.services.vi as vi; vi.import_early();"
        "import packetcloud.services.control_link;"
        "import packetcloud.services.ids.hyperscan_scanner, packetcloud.services.ids.service;"
        "import packetcloud.services.secure_communication.service;"
        "import packetcloud.services.wan_optimizer.service;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", script]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    not_in_images = {"fastapi", "pydantic", "scapy", "click", "rich", "pylxd", "uvicorn", "psutil"}
    not_in_images |= {"httpx", "pyroute2", "re2", "prometheus_client", "requests"}
    assert loaded & not_in_images == set()
    assert {"numpy", "twisted", "nacl", "cryptography"} <= loaded


def test_required_versions_are_those_of_this_installation() -> None:
    lines = requirements.runtime_requirements()
    names = {re.split(r"[>=;]", line)[0].strip() for line in lines}
    assert {name.lower() for name in names} == set(requirements.VI_REQUIREMENTS)


def test_our_own_code_is_that_of_two_rooms() -> None:
    """No controller and no test goes into an image; the digest is of what goes in."""
    names = [name for name, _ in assembly._own_files()]
    assert {name.split("/")[0] for name in names} == set(OWN_ROOMS)
    assert "services/vi.py" in names
    assert "services/wan_optimizer/manifest.toml" in names
    assert not any("__pycache__" in name for name in names)
    assert assembly.own_code_digest() == assembly.own_code_digest()


def test_the_code_of_a_service(tmp_path: Path) -> None:
    """Hidden files, caches, tests and links out of the folder stay outside; size is capped."""
    for name in ("service.py", "data/words.txt", ".git/config", "tests/test.py", "__pycache__/x"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert [name for name, _ in assembly._service_files(tmp_path)] == [
        "data/words.txt",
        "service.py",
    ]
    before = assembly.service_code_digest(tmp_path)
    (tmp_path / "service.py").write_text("changed")
    assert assembly.service_code_digest(tmp_path) != before
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(assembly.MAX_SERVICE_BYTES - len("changed") - len("data/words.txt"))
    assembly.service_code_digest(tmp_path)
    with large.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ImageError, match="64 MiB of files beside the manifest; allowed: 64 MiB"):
        assembly.service_code_digest(tmp_path)


def _put(store: ImageStore, **changes: Any) -> None:
    with store.locked(lambda text: None) as work:
        (work / "image.tar").write_bytes(b"tar")
        facts = {**FACTS, **changes}
        store.put_image(f"inputs-{facts['version']}", facts, work / "image.tar")


def test_a_store_finds_images_by_version_name_and_inputs(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.images() == []
    _put(store)
    _put(store, version="v2", made_at=2.0)
    assert [image.version for image in store.images()] == ["v2", "v1"]
    assert store.get("packetcloud").version == "v2"
    assert store.get("v1").files().files == (tmp_path / "images/v1/image.tar",)
    assert store.get("v1").size_bytes == 3
    found = store.answer("inputs-v1")
    assert found is not None and found.requirements == (("numpy", "2.4"),)
    assert store.answer("other") is None
    store.remove("v1")
    assert store.answer("inputs-v1") is None
    with pytest.raises(ImageError, match=r"no image 'v1' in .*; images: packetcloud \(v2\)"):
        store.get("v1")


def test_the_same_image_twice_is_one(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    _put(store)
    _put(store, files_count=8)
    assert [image.files_count for image in store.images()] == [8]


def test_an_image_that_does_not_say_whose_code_it_has_is_built_again(tmp_path: Path) -> None:
    """An earlier version built it: its service would be told for ever to build it."""
    store = ImageStore(tmp_path)
    _put(store, name="count")
    assert store.answer("inputs-v1", "c0de") is None
    _put(store, name="count", service_code="c0de")
    assert store.answer("inputs-v1", "c0de") == store.get("v1")


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Its work was never in the store, and is gone when the next begins."""
    store = ImageStore(tmp_path)
    (tmp_path / "work" / "rootfs").mkdir(parents=True)
    (tmp_path / "work" / "rootfs" / "file").write_text("half")
    with store.locked(lambda text: None) as work:
        assert list(work.iterdir()) == []
        (work / "more").write_text("half")
        assert store.images() == []
    assert not work.exists()


def test_a_build_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    _put(store)

    def fail() -> None:
        with store.locked(lambda text: None) as work:
            (work / "image.tar").write_bytes(b"half")
            raise ImageError("pip failed")

    with pytest.raises(ImageError, match="pip failed"):
        fail()
    assert [image.version for image in store.images()] == ["v1"]
    assert not (tmp_path / "work").exists()


def test_the_second_of_two_builds_waits_for_the_first(tmp_path: Path) -> None:
    """It says so, and has the store to itself when its turn comes."""
    store = ImageStore(tmp_path)
    said = threading.Event()
    inside = threading.Event()

    def second() -> None:
        with store.locked(lambda text: said.set()):
            inside.set()

    with store.locked(lambda text: None):
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(30)
        assert not inside.is_set()
    thread.join(30)
    assert inside.is_set()
    with (tmp_path / "lock").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_build_without_root_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="built by root"):
        build_image(ImageStore(tmp_path), BuildRequest(), lambda progress: None)
    assert list(tmp_path.iterdir()) == []


def test_no_service_has_an_image_of_the_bundled_ones_name(tmp_path: Path) -> None:
    """All of them would run from it, with their keys."""
    (tmp_path / "manifest.toml").write_text(
        'manifest = 1\n[service]\nname = "packetcloud"\nversion = "1.0.0"\n'
        'entry_point = "probe:Probe"\n[behaviour]\nfail_policy = "closed"\n'
    )
    request = BuildRequest(manifest=tmp_path)
    with pytest.raises(ImageError, match=r"name = 'packetcloud': .*choose another"):
        build_image(ImageStore(tmp_path / "store"), request, lambda progress: None)
    assert not (tmp_path / "store").exists()
