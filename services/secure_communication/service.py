"""The NetworkService: one direction, one suite, one key file."""

from __future__ import annotations

import time

from packetcloud.chunk.header import REPORT_TYPES, ChunkHeader, PayloadType
from packetcloud.services.parameters import Parameters
from packetcloud.services.sdk import (
    ChunkContext,
    NetworkService,
    ServiceChunk,
    ServiceContext,
    Verdict,
)
from packetcloud.services.secure_communication.freshness import (
    TRAILER_BYTES,
    StaleSealError,
    Trailer,
    check_fresh,
)
from packetcloud.services.secure_communication.key_ring import KeyRing
from packetcloud.services.secure_communication.sealing import (
    SEALED_EXTRA_BYTES,
    SUITE_NUMBER,
    UNTIMED_TRAILER_BYTES,
    UNTIMED_VERSION,
    VERSION,
    SealingKey,
    bound_to,
)
from packetcloud.services.secure_communication.suites import (
    NOT_ENCRYPTED,
    OLDER_VERSION,
    DamagedPayloadError,
    OlderGcm,
    decode_head,
    find_cbc,
)

OTHER_SUITE = "encrypted by another suite"
NO_KEY_YET = "no key is in use yet"
FALSELY_MARKED = "marked as encrypted, and is not"
_SEALED_KINDS = ([VERSION, SUITE_NUMBER], [UNTIMED_VERSION, SUITE_NUMBER])
OTHER_KIND = "a delivery report that is marked as none, or the other way round"
_SEALED_TYPES = frozenset({PayloadType.SEALED, PayloadType.SEALED_REPORT})


class SecureCommunication(NetworkService):
    """Encrypts or decrypts every payload; what it cannot decrypt it drops with a reason."""

    def start(self, context: ServiceContext) -> None:
        parameters = context.parameters
        direction: _Sealed | _Cbc
        if parameters.text("suite") == "aes-128-cbc":
            context.log.warning("aes-128-cbc does not detect tampering; aes-256-gcm does")
            direction = _Cbc(parameters)
        else:
            direction = _Sealed(parameters)
        encrypts = parameters.text("direction") == "encrypt"
        self._work = direction.encrypt if encrypts else direction.decrypt

    def process(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        try:
            return self._work(chunk, context)
        except DamagedPayloadError as error:
            return Verdict.drop(str(error))
        except StaleSealError as error:
            return Verdict.drop(str(error), again=error.again)


class _Sealed:
    """AES-256-GCM: payloads are sealed, their chunks are of the payload type SEALED meanwhile.

    Reports are of SEALED_REPORT: a router lets no service make a report of anything else.
    """

    def __init__(self, parameters: Parameters) -> None:
        path = parameters.path("key_file")
        self._keys = KeyRing(path, SealingKey.of, time.monotonic(), wall_clock_s())
        self._forwards = parameters.text("unencrypted") == "forward"
        self._takes_untimed = parameters.text("format_2") == "decrypt"
        self._tolerances_ms = (
            1000 * parameters.integer("tolerance_s"),
            1000 * parameters.integer("links_s"),
        )
        self._older: KeyRing[bytes] | None = None
        if parameters.text("format_1") == "decrypt":
            older = OlderGcm
            self._older = KeyRing(
                path,
                lambda key: key.derive(older.name, older.key_bytes),
                time.monotonic(),
                wall_clock_s(),
            )

    def encrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        header, now, wall_s = chunk.header, time.monotonic(), wall_clock_s()
        self._keys.refresh(now, wall_s)
        if header.payload_type in _SEALED_TYPES:
            if _kind_of(chunk.payload) not in _SEALED_KINDS:
                return Verdict.drop(FALSELY_MARKED)
            *_, used_id = decode_head(chunk.payload)
            if self._keys.get(used_id, now, wall_s) is not None:
                return Verdict.forward()  # twice under the same keys would be once too often
        if self._keys.in_use is None:
            return key_missing(NO_KEY_YET)
        key_id, key = self._keys.in_use
        trailer = Trailer(header.payload_type, int(wall_s * 1000), header.lifetime_ms)
        output = context.output_buffer(len(chunk.payload) + SEALED_EXTRA_BYTES)
        length = key.seal(key_id, chunk.payload, trailer.to_bytes(), bound_to(header), output)
        is_report = header.payload_type in REPORT_TYPES
        sealed = PayloadType.SEALED_REPORT if is_report else PayloadType.SEALED
        return Verdict.update(output[:length], sealed)

    def decrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        if chunk.header.payload_type not in _SEALED_TYPES:
            return self._unencrypted(chunk, context)
        payload, now, wall_s = chunk.payload, time.monotonic(), wall_clock_s()
        *kind, key_id = decode_head(payload)
        # Never what the payload names: that would let an attacker choose a weaker one.
        if kind == [UNTIMED_VERSION, SUITE_NUMBER] and self._takes_untimed:
            trailer_bytes = UNTIMED_TRAILER_BYTES
        elif kind == [VERSION, SUITE_NUMBER]:
            trailer_bytes = TRAILER_BYTES
        else:
            return Verdict.drop(OTHER_SUITE)
        self._keys.refresh(now, wall_s)
        key = self._keys.get(key_id, now, wall_s)
        if key is None:
            return key_missing(f"unknown key: {key_id:08x}")
        output = context.output_buffer(len(payload))
        length, data = key.open(payload, trailer_bytes, bound_to(chunk.header), output)
        # Its first byte is the payload type in both.
        if (data[0] in REPORT_TYPES) != (chunk.header.payload_type in REPORT_TYPES):
            return Verdict.drop(OTHER_KIND)
        if trailer_bytes == UNTIMED_TRAILER_BYTES:
            return Verdict.update(output[:length], data[0])
        trailer = Trailer.from_bytes(data)
        check_fresh(trailer, chunk.header.lifetime_ms, int(wall_s * 1000), *self._tolerances_ms)
        return Verdict.update(output[:length], trailer.payload_type)

    def _unencrypted(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        if self._older is not None and _kind_of(chunk.payload) == [
            OLDER_VERSION,
            OlderGcm.number,
        ]:
            return self._decrypt_older(self._older, chunk, context)
        return Verdict.forward() if self._forwards else Verdict.drop(NOT_ENCRYPTED)

    @staticmethod
    def _decrypt_older(keys: KeyRing[bytes], chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        now, wall_s = time.monotonic(), wall_clock_s()
        *_, key_id = decode_head(chunk.payload)
        keys.refresh(now, wall_s)
        key = keys.get(key_id, now, wall_s)
        if key is None:
            return key_missing(f"unknown key: {key_id:08x}")
        output = context.output_buffer(len(chunk.payload))
        bound = _older_bound(chunk.header)
        return Verdict.update(output[: OlderGcm().decrypt(key, chunk.payload, bound, output)])


class _Cbc:
    """AES-128-CBC, as the paper measures it: the type stays, nothing is bound or checked."""

    def __init__(self, parameters: Parameters) -> None:
        self._suite = suite = find_cbc(parameters.text("library"))
        self._keys = KeyRing(
            parameters.path("key_file"),
            lambda key: key.derive(suite.name, suite.key_bytes),
            time.monotonic(),
            wall_clock_s(),
        )

    def encrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        self._keys.refresh(time.monotonic(), wall_clock_s())
        if self._keys.in_use is None:
            return key_missing(NO_KEY_YET)
        key_id, key = self._keys.in_use
        output = context.output_buffer(self._suite.encrypted_bytes(len(chunk.payload)))
        bound = _older_bound(chunk.header)
        return Verdict.update(
            output[: self._suite.encrypt(key_id, key, chunk.payload, bound, output)]
        )

    def decrypt(self, chunk: ServiceChunk, context: ChunkContext) -> Verdict:
        payload, now, wall_s = chunk.payload, time.monotonic(), wall_clock_s()
        version, suite, key_id = decode_head(payload)
        if (version, suite) != (OLDER_VERSION, self._suite.number):
            return Verdict.drop(OTHER_SUITE)
        self._keys.refresh(now, wall_s)
        key = self._keys.get(key_id, now, wall_s)
        if key is None:
            return key_missing(f"unknown key: {key_id:08x}")
        output = context.output_buffer(len(payload))
        bound = _older_bound(chunk.header)
        return Verdict.update(output[: self._suite.decrypt(key, payload, bound, output)])


def key_missing(reason: str) -> Verdict:
    """Drop a chunk for now: the key may be on its way, and its host sends it again by itself."""
    return Verdict.drop(reason, again=True)


def wall_clock_s() -> float:
    """Return seconds since 1970, by which keys come into use and seals grow old."""
    return time.time()


def _kind_of(payload: memoryview) -> list[int]:
    """Return version and suite of an encrypted payload; of any other nothing."""
    try:
        *kind, _ = decode_head(payload)
    except DamagedPayloadError:
        return []
    return kind


def _older_bound(header: ChunkHeader) -> bytes:
    return header.source.value + header.chunk_id.to_bytes()
