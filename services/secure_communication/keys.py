"""The key file of the secure-communication service: keys with ids, so that they can be changed.

Any key in the file decrypts; the newest whose time has come encrypts. So a new key can be brought
to every decrypter before the first encrypter uses it. The file is JSON, mode 0600.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packetcloud.chunk.timestamps import parse_time, time_text
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.files import write_private_file

KEY_FILE_FORMAT = "packetcloud-service-keys-1"
TIMED_KEY_FILE_FORMAT = "packetcloud-service-keys-2"
"""With a time for a key: who does not know that would use it at once, and must not read it."""
MASTER_KEY_BYTES = 32
MAX_KEYS_COUNT = 64
"""More than five years of monthly keys; a longer file is a mistake."""
RETIRE_AFTER_S = 600.0
"""For so long chunks under a key that is not used any more may be on their way: hosts give theirs a
minute, routers hold them longer where a neighbour is away."""
_ID_DOMAIN = b"packetcloud service key id v1\x00"
_DERIVE_DOMAIN = b"packetcloud service key use v1\x00"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One master key. Suites use keys derived from it, so that no two suites share one."""

    master: bytes = field(repr=False)
    created: str = ""
    not_before_s: float | None = None
    """Seconds since 1970: nothing is encrypted with it earlier; None: at once."""

    @property
    def key_id(self) -> int:
        """32 bits of a hash of the key: equal on both sides without anybody handing out numbers."""
        return int.from_bytes(hashlib.sha256(_ID_DOMAIN + self.master).digest()[:4], "big")

    def derive(self, use: str, length: int) -> bytes:
        """Return the key (at most 32 bytes) for one use: HKDF-Expand, RFC 5869 section 2.3."""
        info = _DERIVE_DOMAIN + use.encode() + b"\x01"
        return hmac.digest(self.master, info, "sha256")[:length]

    def may_encrypt(self, wall_s: float) -> bool:
        """Tell whether its time has come."""
        return self.not_before_s is None or self.not_before_s <= wall_s

    @property
    def began_s(self) -> float:
        """When it was first to be used, as far as the file says."""
        if self.not_before_s is not None:
            return self.not_before_s
        try:
            return parse_time(self.created)
        except ValueError:
            return 0.0


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


def rotate_key_file(path: Path, in_s: float = 0.0) -> ServiceKey:
    """Add a new key to the file; the oldest goes when it holds 64.

    Args:
        in_s: so long from now on nothing is encrypted with it: time to bring the file everywhere.

    Raises:
        ServiceConfigError: the file cannot be used or written.
    """
    key = _new_key(in_s)
    _save(path, [*load_key_file(path), key][-MAX_KEYS_COUNT:])
    return key


def retire_key(path: Path, key_id: int, wall_s: float, *, at_once: bool = False) -> None:
    """Take a key out of the file: what bears it is dropped wherever the file goes.

    Args:
        at_once: also if chunks under it may be on their way; never the one that encrypts.

    Raises:
        ServiceConfigError: no such key; it is in use, will be, or was a short time ago; or the file
            cannot be used or written.
    """
    keys = load_key_file(path)
    word = f"{key_id:08x}"
    ids = [key.key_id for key in keys]
    if key_id not in ids:
        known = ", ".join(f"{one:08x}" for one in ids)
        raise ServiceConfigError(f"{path} has no key {word}; it has {known}")
    index, current = ids.index(key_id), key_in_use(keys, wall_s)
    if current is None or index >= keys.index(current):
        raise ServiceConfigError(
            f"key {word} is in use, or will be; retire one that newer ones took the place of"
        )
    ended_s = max(key.began_s for key in keys[index + 1 : keys.index(current) + 1])
    if not at_once and wall_s < ended_s + RETIRE_AFTER_S:
        raise ServiceConfigError(
            f"key {word} was in use until {time_text(int(ended_s))}: chunks under it may be on "
            f"their way until {time_text(int(ended_s + RETIRE_AFTER_S))}; wait, or lose them with "
            "--at-once"
        )
    _save(path, [key for key in keys if key.key_id != key_id])


def key_in_use(keys: list[ServiceKey], wall_s: float) -> ServiceKey | None:
    """Return the key to encrypt with: the newest whose time has come; None: there is none."""
    return next((key for key in reversed(keys) if key.may_encrypt(wall_s)), None)


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


def _new_key(in_s: float = 0.0) -> ServiceKey:
    now_s = time.time()
    not_before_s = float(int(now_s + in_s)) if in_s else None
    return ServiceKey(os.urandom(MASTER_KEY_BYTES), time_text(int(now_s)), not_before_s)


def _keys_in(record: Any) -> list[ServiceKey]:
    if record["format"] not in (KEY_FILE_FORMAT, TIMED_KEY_FILE_FORMAT):
        allowed = f"{KEY_FILE_FORMAT} or {TIMED_KEY_FILE_FORMAT}"
        raise ValueError(f"format {record['format']!r}, expected {allowed}")
    keys = [
        ServiceKey(
            bytes.fromhex(item["key"]),
            item["created"],
            parse_time(item["not_before"]) if "not_before" in item else None,
        )
        for item in record["keys"]
    ]
    if not 1 <= len(keys) <= MAX_KEYS_COUNT:
        raise ValueError(f"{len(keys)} keys, allowed 1..{MAX_KEYS_COUNT}")
    for key, item in zip(keys, record["keys"], strict=True):
        if len(key.master) != MASTER_KEY_BYTES or f"{key.key_id:08x}" != item["id"]:
            raise ValueError(f"key {item['id']} is damaged")
    return keys


def _save(path: Path, keys: list[ServiceKey]) -> None:
    is_timed = any(key.not_before_s is not None for key in keys)
    record = {
        "format": TIMED_KEY_FILE_FORMAT if is_timed else KEY_FILE_FORMAT,
        "keys": [_item(key) for key in keys],
    }
    try:
        write_private_file(path, json.dumps(record, indent=2).encode() + b"\n")
    except OSError as error:
        raise ServiceConfigError(f"cannot write {path}: {error.strerror}") from error


def _item(key: ServiceKey) -> dict[str, str]:
    item = {"id": f"{key.key_id:08x}", "created": key.created}
    if key.not_before_s is not None:
        item["not_before"] = time_text(key.not_before_s)
    return item | {"key": key.master.hex()}
