"""From unpacked packages to a tarball that LXD imports: our code, init, compiled modules."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from packetcloud.cloudlet.images.debian import run_tool
from packetcloud.cloudlet.images.recipe import (
    INIT,
    OWN_ROOMS,
    SERVICE_FOLDER,
    ImageError,
    Platform,
)

_OWN_SUFFIXES = (".json", ".py", ".toml", ".typed")
_EMPTY_FOLDERS = (
    "dev",
    "etc",
    "home",
    "opt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/local",
    "var",
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nservice:x:1000:1000::/:/bin/false\n",
    "etc/group": "root:x:0:\nservice:x:1000:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hostname": "vi\n",
}
_NOBODY = 65534
_AS_NOBODY = ["setpriv", "--no-new-privs", "chroot", f"--userspec={_NOBODY}:{_NOBODY}"]
_AS_NOBODY += [f"--groups={_NOBODY}"]
_BLOCK_BYTES = 1 << 20
MAX_SERVICE_BYTES = 64 << 20
"""An author's own code; models and data of this size belong in a package of their own."""


def site_packages(root: Path, platform: Platform) -> Path:
    """Return where modules lie that do not come from Debian."""
    return root / f"usr/local/lib/python{platform.python[0]}.{platform.python[1]}/dist-packages"


def lay_base_files(root: Path, platform: Platform) -> None:
    """Add what packages make when they are configured, and the init."""
    for name in _EMPTY_FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    init = root / "usr/sbin/init"
    init.unlink(missing_ok=True)
    init.write_text(INIT)
    init.chmod(0o755)
    python = root / "usr/bin/python3"
    python.unlink(missing_ok=True)
    python.symlink_to(f"python{platform.python[0]}.{platform.python[1]}")
    shell = root / "usr/bin/sh"
    if not shell.exists():
        shell.symlink_to("dash")
    site_packages(root, platform).mkdir(parents=True, exist_ok=True)


def lay_own_code(root: Path, platform: Platform) -> None:
    """Copy our rooms to where the image's Python finds them."""
    for name, source in _own_files():
        target = site_packages(root, platform) / "packetcloud" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def own_code_digest() -> str:
    """Return a digest over our files as they are now."""
    return _digest_of(_own_files())


def lay_service_code(root: Path, platform: Platform, folder: Path) -> None:
    """Copy an author's files, and put their folder on the path."""
    target = root / SERVICE_FOLDER.lstrip("/")
    for name, source in _service_files(folder):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, file)
    (site_packages(root, platform) / "packetcloud-service.pth").write_text(f"{SERVICE_FOLDER}\n")


def service_code_digest(folder: Path) -> str:
    """Return a digest over an author's files.

    Raises:
        ImageError: they are larger than code is.
    """
    total = sum(path.stat().st_size for _, path in _service_files(folder))
    if total > MAX_SERVICE_BYTES:
        raise ImageError(
            f"{folder}: {total >> 20} MiB of files beside the manifest; allowed: "
            f"{MAX_SERVICE_BYTES >> 20} MiB. Keep the service in a folder of its own"
        )
    return _digest_of(_service_files(folder))


def compile_modules(root: Path, platform: Platform) -> None:
    """Compile every module with the image's own Python, never to be compared with its source.

    Without `site`: what a service or its requirements have that says how Python begins, such as
    a wheel's `.pth`, would be run by us, as root.
    """
    version = f"{platform.python[0]}.{platform.python[1]}"
    for cache in sorted(root.rglob("__pycache__")):
        shutil.rmtree(cache)
    command = ["chroot", str(root), f"/usr/bin/python{version}", "-IS"]
    command += ["-m", "compileall", "-q"]
    command += ["--invalidation-mode", "unchecked-hash", f"/usr/lib/python{version}"]
    run_tool([*command, f"/usr/local/lib/python{version}", "/opt"])
    run_tool(["chroot", str(root), "/sbin/ldconfig", "-X"])


def try_out(root: Path, platform: Platform) -> None:
    """Import what a VI imports before it hears of its service, in the image's own root.

    As nobody: a requirement of a service may have put its own code into these modules.

    Raises:
        ImageError: a module or a library is missing; the text names it.
    """
    version = f"{platform.python[0]}.{platform.python[1]}"
    check = "import packetcloud.services.vi; packetcloud.services.vi.import_early()"
    enter = [*_AS_NOBODY, str(root)]
    run_tool([*enter, f"/usr/bin/python{version}", "-P", "-B", "-c", check])
    run_tool([*enter, "/bin/ip", "-V"])
    run_tool([*enter, "/usr/bin/tini", "--version"])


def pack(folder: Path, tarball: Path) -> str:
    """Pack `metadata.yaml` and `rootfs` of `folder` for LXD; return the fingerprint.

    Equal files make equal bytes: names sorted, no times, no names of owners.
    """
    command = ["tar", "--create", "--file", str(tarball), "--directory", str(folder)]
    command += ["--sort=name", "--mtime=@1", "--numeric-owner", "--owner=0", "--group=0"]
    run_tool([*command, "--format=gnu", "metadata.yaml", "rootfs"])
    digest = hashlib.sha256()
    with tarball.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def count_files(root: Path) -> int:
    """Return the number of files and folders, which is what a first start costs."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(root))


def _own_files() -> Iterator[tuple[str, Path]]:
    """Yield name and place of each file of our rooms that a VI may need, in order."""
    for room in OWN_ROOMS:
        spec = importlib.util.find_spec(f"packetcloud.{room}")
        if spec is None or not spec.submodule_search_locations:
            raise ImageError(f"packetcloud.{room} is not installed beside this package")
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*")):
            if path.suffix in _OWN_SUFFIXES and path.is_file():
                yield f"{room}/{path.relative_to(folder).as_posix()}", path


def _service_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield an author's files, without hidden ones, caches, tests and links out of the folder."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") or part in ("__pycache__", "tests") for part in parts)
        if not is_hidden and path.is_file() and not path.is_symlink():
            yield "/".join(parts), path


def _digest_of(files: Iterator[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        data = path.read_bytes()
        digest.update(f"{len(name)}:{name}{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()
