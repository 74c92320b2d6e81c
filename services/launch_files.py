"""Files that a service is launched with, such as keys: sent by the controller, kept in memory.

They come over the control link with the launch, and again when they have changed. In the VI each
is an anonymous file of its process: nothing on the container's disk, nothing that another program
there could open. They are made anew with each launch, also of a twin; what changes later takes the
place of what was there, whole, under the same path. Source: docs/protocol/control-link.md.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from packetcloud.chunk.errors import ProtocolError

MAX_FILES_COUNT = 8
"""A parameter each; services have one or two that are files."""
MAX_FILES_BYTES = 128 << 10
"""All of one launch together. A key file of 64 keys has 10 KB, a chain of certificates 20 KB; and
with what else a launch says they fit one frame, written as text."""
MEMORY_FOLDER = "/proc/self/fd/"
"""Where the paths of these files begin."""
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
"""Nobody changes them, the service included."""


def encode_files(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return what a launch says of them: content in base64 by the name of the parameter."""
    return {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}


def keep_in_memory(files: object) -> dict[str, str]:
    """Make the files of a launch; return by parameter the path that opens each.

    Raises:
        ProtocolError: not what `encode_files` makes.
    """
    return {
        name: f"{MEMORY_FOLDER}{_in_memory(name, content)}"
        for name, content in _contents_of(files).items()
    }


def paths_in_memory(parameters: Mapping[str, object]) -> dict[str, str]:
    """Return those of a launch's parameters that are paths of files kept in memory."""
    return {
        name: value
        for name, value in parameters.items()
        if isinstance(value, str) and value.startswith(MEMORY_FOLDER)
    }


def replace_in_memory(paths: Mapping[str, str], files: object) -> list[str]:
    """Put other contents where the paths lead; return the names of those that changed.

    Whoever opens a path sees the old content or the new, whole. Files that the launch did not have
    are left out: its service was not told a path for them.

    Raises:
        ProtocolError: not what `encode_files` makes; nothing is changed.
    """
    changed = []
    for name, content in _contents_of(files).items():
        if name in paths and Path(paths[name]).read_bytes() != content:
            descriptor = _in_memory(name, content)
            os.dup2(descriptor, int(paths[name].removeprefix(MEMORY_FOLDER)), inheritable=False)
            os.close(descriptor)
            changed.append(name)
    return changed


def _contents_of(files: object) -> dict[str, bytes]:
    if not isinstance(files, dict) or len(files) > MAX_FILES_COUNT:
        raise ProtocolError(f"files of a launch: allowed: {MAX_FILES_COUNT} at most, by parameter")
    return {name: _content(name, text) for name, text in files.items()}


def _content(name: str, text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError("not a text")
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ProtocolError(f"file {name} of the launch: {error}") from None


def _in_memory(name: str, content: bytes) -> int:
    """Return the descriptor of a new file with this content, which nobody can change."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create(f"packetcloud-{name}"[:64], flags)
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    os.fchmod(descriptor, 0o400)  # services refuse keys that are open to others
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor
