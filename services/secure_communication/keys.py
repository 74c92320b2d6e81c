"""The key file of the secure-communication service: keys with ids, so that they can be changed.

A new key goes to the decrypting side first, then to the encrypting one: the newest encrypts, any
decrypts by the id that stands in the payload's head. The file is JSON, mode 0600.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import write_private_file

KEY_FILE_FORMAT = "packetcloud-service-keys-1"
MASTER_KEY_BYTES = 32
MAX_KEYS_COUNT = 64
"""More than five years of monthly keys; a longer file is a mistake."""
RELOAD_INTERVAL_S = 1.0
_ID_DOMAIN = b"packetcloud service key id v1\x00"
_DERIVE_DOMAIN = b"packetcloud service key use v1\x00"

_log = logging.getLogger("packetcloud.service.keys")


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One master key. Suites use keys derived from it, so that no two suites share one."""

    master: bytes = field(repr=False)
    created: str = ""

    @property
    def key_id(self) -> int:
        """32 bits of a hash of the key: equal on both sides without anybody handing out numbers."""
        return int.from_bytes(hashlib.sha256(_ID_DOMAIN + self.master).digest()[:4], "big")

    def derive(self, use: str, length: int) -> bytes:
        """Return the key (at most 32 bytes) for one use: HKDF-Expand, RFC 5869 section 2.3."""
        info = _DERIVE_DOMAIN + use.encode() + b"\x01"
        return hmac.digest(self.master, info, "sha256")[:length]


def create_key_file(path: Path) -> ServiceKey:
    """Write a file with one new key; never overwrite one.

    Raises:
        ServiceConfigError: the file exists, or cannot be written.
    """
    if path.exists():
        raise ServiceConfigError(
            f"{path} exists already; add a key to it with: packetcloud service key rotate {path}"
        )
    key = _new_key()
    _save(path, [key])
    return key


def rotate_key_file(path: Path) -> ServiceKey:
    """Add a new key to the file; the oldest goes when it holds 64.

    Raises:
        ServiceConfigError: the file cannot be used or written.
    """
    key = _new_key()
    _save(path, [*load_key_file(path), key][-MAX_KEYS_COUNT:])
    return key


def load_key_file(path: Path) -> list[ServiceKey]:
    """Return the keys in the file, the newest last.

    Raises:
        ServiceConfigError: missing, open to others, or not a key file.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text()
    except FileNotFoundError:
        raise ServiceConfigError(
            f"no key file {path}; make one with: packetcloud service key create {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceConfigError(f"cannot read key file {path}: {error}") from error
    if mode & 0o077:
        raise ServiceConfigError(f"key file {path} is open to others (mode {mode:04o}); chmod 600")
    try:
        return _keys_in(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServiceConfigError(f"{path} is not a service key file: {error}") from error


class KeyRing:
    """The keys of one file, derived for one use, read again when the file changes.

    Raises:
        ServiceConfigError: the file cannot be used at the start. Later, a damaged file is logged
            and the keys read before stay in use.
    """

    def __init__(self, path: Path, use: str, length: int) -> None:
        self._path = path
        self._use = use
        self._length = length
        self._keys: dict[int, bytes] = {}
        self._next_look_s = 0.0
        self._version = self._version_of_file()
        self._load()

    @property
    def newest(self) -> tuple[int, bytes]:
        """Id and key to encrypt with."""
        return self._newest_id, self._keys[self._newest_id]

    def get(self, key_id: int) -> bytes | None:
        """Return the key of that id, None if this side does not have it."""
        return self._keys.get(key_id)

    def refresh(self, now: float) -> None:
        """Read the file again if it changed; looks once a second at most."""
        if now < self._next_look_s:
            return
        self._next_look_s = now + RELOAD_INTERVAL_S
        version = self._version_of_file()
        if version == self._version:
            return
        self._version = version
        try:
            self._load()
        except ServiceConfigError as error:
            _log.error("keys read before stay in use: %s", error)

    def _load(self) -> None:
        keys = load_key_file(self._path)
        self._keys = {key.key_id: key.derive(self._use, self._length) for key in keys}
        self._newest_id = keys[-1].key_id

    def _version_of_file(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0)
        return status.st_ino, status.st_mtime_ns


def _new_key() -> ServiceKey:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return ServiceKey(os.urandom(MASTER_KEY_BYTES), now)


def _keys_in(record: Any) -> list[ServiceKey]:
    if record["format"] != KEY_FILE_FORMAT:
        raise ValueError(f"format {record['format']!r}, expected {KEY_FILE_FORMAT}")
    keys = [ServiceKey(bytes.fromhex(item["key"]), item["created"]) for item in record["keys"]]
    if not 1 <= len(keys) <= MAX_KEYS_COUNT:
        raise ValueError(f"{len(keys)} keys, allowed 1..{MAX_KEYS_COUNT}")
    for key, item in zip(keys, record["keys"], strict=True):
        if len(key.master) != MASTER_KEY_BYTES or f"{key.key_id:08x}" != item["id"]:
            raise ValueError(f"key {item['id']} is damaged")
    return keys


def _save(path: Path, keys: list[ServiceKey]) -> None:
    record = {
        "format": KEY_FILE_FORMAT,
        "keys": [
            {"id": f"{key.key_id:08x}", "created": key.created, "key": key.master.hex()}
            for key in keys
        ],
    }
    try:
        write_private_file(path, json.dumps(record, indent=2).encode() + b"\n")
    except OSError as error:
        raise ServiceConfigError(f"cannot write {path}: {error.strerror}") from error
