"""Which cipher a session uses, and who decides.

Each side offers what it is willing to use, inside what it signs; the server chooses. A session is
open, that is neither sealed nor checked, only where both sides say that the link is private.

Source: docs/protocol/hop.md, "Suites"; docs/decisions/0009.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cryptography.hazmat.primitives.ciphers import (
    AEADDecryptionContext,
    AEADEncryptionContext,
    Cipher,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

KEY_BYTES = 32
NONCE_BYTES = 12


class Suite(IntEnum):
    """How the datagrams of a session are protected."""

    OPEN = 1
    AES_256_GCM = 2
    CHACHA20_POLY1305 = 3

    @property
    def bit(self) -> int:
        return 1 << self


KNOWN_SUITES = sum(suite.bit for suite in Suite)
_PREFERENCE = (Suite.OPEN, Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)

Aead = AESGCM | ChaCha20Poly1305
Network = IPv4Network | IPv6Network


def make_aead(suite: Suite, key: bytes) -> Aead:
    """Return the cipher of a sealed suite under `key` (32 bytes)."""
    return AESGCM(key) if suite is Suite.AES_256_GCM else ChaCha20Poly1305(key)


class GcmStreams:
    """Seals and opens in pieces, to the same bytes as the cipher of `make_aead` in one.

    Args:
        key: 32 bytes, for AES-256-GCM.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AES(key)

    def sealing(self, nonce: bytes, associated: bytes) -> AEADEncryptionContext:
        """Begin to seal: `update_into` each piece, `finalize`, then take `tag`."""
        stream = Cipher(self._cipher, GCM(nonce)).encryptor()
        stream.authenticate_additional_data(associated)
        return stream

    def opening(self, nonce: bytes, associated: bytes) -> AEADDecryptionContext:
        """Begin to open: nothing of it is known to be true before `finalize_with_tag` returns."""
        stream = Cipher(self._cipher, GCM(nonce)).decryptor()
        stream.authenticate_additional_data(associated)
        return stream


def make_streams(suite: Suite, key: bytes) -> GcmStreams | None:
    """Return what takes a body in pieces; None where the library has no such cipher."""
    return GcmStreams(key) if suite is Suite.AES_256_GCM else None


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that the texts name. Raises: ValueError."""
    return tuple(ip_network(text) for text in texts)


def offered_suites(host: str, private_links: Iterable[Network], has_fast_aes: bool) -> int:
    """Return the mask of what to offer to a neighbour at `host`.

    ChaCha20 is always offered, so two nodes always have a suite in common; AES only where the CPU
    has it, as it is several times slower without.
    """
    mask = Suite.CHACHA20_POLY1305.bit
    if has_fast_aes:
        mask |= Suite.AES_256_GCM.bit
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if any((mapped or address) in network for network in private_links):
        mask |= Suite.OPEN.bit
    return mask


def choose_suite(ours: int, theirs: int) -> Suite | None:
    """Return the suite that both sides offer and that costs least; None: there is none."""
    common = ours & theirs
    return next((suite for suite in _PREFERENCE if common & suite.bit), None)
