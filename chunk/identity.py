"""Identities: an Ed25519 key pair, the name it owns, and the file it lives in.

A key file is JSON, mode 0600, written in one step (temporary file, fsync, link). Every signature
carries a domain word, so that one made for an association can never pass as another kind (T-03).
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import nacl.exceptions
import nacl.signing

from packetcloud.chunk.errors import IdentityError, LocalMisuseError
from packetcloud.chunk.names import GUID, PUBLIC_KEY_BYTES, SID, SUITE_ED25519_SHA256

KEY_FILE_FORMAT = "packetcloud-identity-1"
SIGNATURE_BYTES = 64
SEED_BYTES = 32
MAX_KEY_FILE_BYTES = 4096
"""A key file has about 300 bytes; more is some other file."""
_DOMAIN_PREFIX = b"packetcloud signature v1\x00"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key pair. `seed` (32 bytes) is the secret; the rest follows from it.

    Raises:
        LocalMisuseError: the seed has not 32 bytes.
    """

    seed: bytes = field(repr=False)
    public_key: bytes = field(init=False, compare=False)
    _key: nacl.signing.SigningKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise LocalMisuseError(f"a seed has {SEED_BYTES} bytes, not {len(self.seed)}")
        key = nacl.signing.SigningKey(self.seed)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public_key", bytes(key.verify_key))

    @classmethod
    def generate(cls) -> Self:
        """Make a new identity from the system's random source."""
        return cls(bytes(nacl.signing.SigningKey.generate()))

    @property
    def guid(self) -> GUID:
        return GUID.from_public_key(self.public_key)

    @property
    def sid(self) -> SID:
        """The same name, as the SID of the service that holds this key."""
        return SID.from_public_key(self.public_key)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of `message` for the purpose named by `domain`."""
        return self._key.sign(_signed_bytes(domain, message)).signature


def verify(public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes) was made by `public_key` for `domain`."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        nacl.signing.VerifyKey(public_key).verify(_signed_bytes(domain, message), signature)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True


def create_identity_file(path: Path) -> Identity:
    """Generate an identity and write it to `path`, mode 0600; never overwrite one.

    Raises:
        IdentityError: the file exists already, or its folder cannot be written.
    """
    identity = Identity.generate()
    record = {
        "format": KEY_FILE_FORMAT,
        "suite": SUITE_ED25519_SHA256,
        "seed": identity.seed.hex(),
        "public_key": identity.public_key.hex(),
        "guid": identity.guid.hex,
    }
    try:
        _write_new_file(path, json.dumps(record, indent=2) + "\n")
    except FileExistsError:
        raise IdentityError(f"{path} exists already; choose another file or remove it") from None
    except OSError as error:
        raise IdentityError(f"cannot write {path}: {error.strerror}") from error
    return identity


def load_identity_file(path: Path) -> Identity:
    """Read the identity in `path`.

    Raises:
        IdentityError: missing, not a plain file, open to others, not a key file, or the key does
            not own the GUID and the public key that the file states.
    """
    text = _read_private_file(path)
    try:
        record = json.loads(text)
        found = record["format"]
        if found != KEY_FILE_FORMAT:
            raise IdentityError(f"{path}: format {found!r}, expected {KEY_FILE_FORMAT!r}")
        if record["suite"] != SUITE_ED25519_SHA256:
            raise IdentityError(f"{path}: suite {record['suite']!r}, known: {SUITE_ED25519_SHA256}")
        identity = Identity(bytes.fromhex(record["seed"]))
        stated = (record["guid"], record["public_key"])
    except KeyError as error:
        raise IdentityError(f"{path} is not an identity file: {error} is missing") from None
    except (LocalMisuseError, TypeError, ValueError, RecursionError) as error:
        raise IdentityError(f"{path} is not an identity file: {error}") from None
    if stated != (identity.guid.hex, identity.public_key.hex()):
        raise IdentityError(
            f"{path} is damaged: its key does not own the GUID in the file; restore a copy of it"
        )
    return identity


def _write_new_file(path: Path, text: str) -> None:
    """Write a file that is there whole, mode 0600, or not at all; an existing one stays.

    A link instead of a rename, because a rename would replace a file made meanwhile.
    """
    folder = path.parent
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=folder)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
    finally:
        Path(temporary).unlink()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_private_file(path: Path) -> str:
    """Read a small text file that only its owner may read.

    The mode is asked of the open file, so nobody can exchange it in between; O_NONBLOCK, because
    opening a pipe would wait for its other end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IdentityError(
            f"no key file {path}; make one with: packetcloud identity create {path}"
        ) from None
    except OSError as error:
        raise IdentityError(f"cannot read key file {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(f"{path} is not a plain file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise IdentityError(
                f"key file {path} is open to others (mode {mode:04o}); "
                f"close it with: chmod 600 {path}"
            )
        data = os.read(descriptor, MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"cannot read key file {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_KEY_FILE_BYTES:
        raise IdentityError(f"{path} is not an identity file: over {MAX_KEY_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise IdentityError(f"{path} is not an identity file: not text") from None


def _signed_bytes(domain: bytes, message: bytes) -> bytes:
    if len(domain) > 0xFF:
        raise LocalMisuseError(f"a signature domain of {len(domain)} bytes, at most 255")
    return _DOMAIN_PREFIX + len(domain).to_bytes(1, "big") + domain + message
