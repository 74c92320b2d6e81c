"""Identities: an Ed25519 key pair, the name it owns, and the file it lives in.

A key file is JSON, mode 0600, written in one step (temporary file, fsync, rename). Every signature
carries a domain word, so that one made for an association can never pass as another kind (T-03).
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import nacl.exceptions
import nacl.signing

from packetcloud.chunk.errors import IdentityError
from packetcloud.chunk.names import GUID, SID, SUITE_ED25519_SHA256

KEY_FILE_FORMAT = "packetcloud-identity-1"
SIGNATURE_BYTES = 64
_DOMAIN_PREFIX = b"packetcloud signature v1\x00"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key pair. `seed` (32 bytes) is the secret; the rest follows from it."""

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a new identity from the system's random source."""
        return cls(bytes(nacl.signing.SigningKey.generate()))

    @property
    def public_key(self) -> bytes:
        return bytes(nacl.signing.SigningKey(self.seed).verify_key)

    @property
    def guid(self) -> GUID:
        return GUID.from_public_key(self.public_key)

    @property
    def sid(self) -> SID:
        """The same name, as the SID of the service that holds this key."""
        return SID.from_public_key(self.public_key)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of `message` for the purpose named by `domain`."""
        return nacl.signing.SigningKey(self.seed).sign(_signed_bytes(domain, message)).signature


def verify(public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes) was made by `public_key` for `domain`."""
    if len(public_key) != 32 or len(signature) != SIGNATURE_BYTES:
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(record, stream, indent=2)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)
    except FileExistsError:
        raise IdentityError(f"{path} exists already; choose another file or remove it") from None
    except OSError as error:
        raise IdentityError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return identity


def load_identity_file(path: Path) -> Identity:
    """Read the identity in `path`.

    Raises:
        IdentityError: missing, readable by others, not a key file, or the key does not own the GUID
            that the file states.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text()
    except FileNotFoundError:
        raise IdentityError(
            f"no key file {path}; make one with: packetcloud identity create {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"cannot read key file {path}: {error}") from error
    if mode & 0o077:
        raise IdentityError(f"key file {path} is open to others (mode {mode:04o}); chmod 600 it")
    try:
        record = json.loads(text)
        if record["format"] != KEY_FILE_FORMAT:
            raise IdentityError(f"{path}: format {record['format']!r}, expected {KEY_FILE_FORMAT}")
        identity = Identity(bytes.fromhex(record["seed"]))
        if len(identity.seed) != 32 or identity.guid.hex != record["guid"]:
            raise IdentityError(f"{path}: the key does not own the GUID in the file; it is damaged")
    except (KeyError, TypeError, ValueError) as error:
        raise IdentityError(f"{path} is not an identity file: {error}") from error
    return identity


def _signed_bytes(domain: bytes, message: bytes) -> bytes:
    return _DOMAIN_PREFIX + len(domain).to_bytes(1, "big") + domain + message
