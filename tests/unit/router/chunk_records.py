"""Chunks as the tests of the spool's files write them."""

from __future__ import annotations

import random

from packetcloud.chunk.header import ChunkHeader
from packetcloud.chunk.names import GUID, ChunkId
from packetcloud.router.chunk_log import ChunkLog
from packetcloud.router.chunk_record import Record
from packetcloud.router.disk_jobs import (
    Put,
)
from tests.unit.router.forgetful_storage import ForgetfulStorage

RESERVE_BYTES = 4096
SID_NAME = b"s" * 20


def chunk(number: int, size: int = 500) -> bytes:
    payload = random.Random(number).randbytes(size)
    header = ChunkHeader(
        source=GUID(b"a" * 20),
        destination=GUID(b"b" * 20),
        chunk_id=ChunkId(number),
        payload_bytes=len(payload),
    )
    return header.to_bytes() + payload


def record(number: int) -> Record:
    return Record(number, 1000 + number, 9000 + number, number % 2 == 1, (SID_NAME,) * (number % 3))


def opened(storage: ForgetfulStorage) -> tuple[ChunkLog, list[int]]:
    log = ChunkLog(storage, RESERVE_BYTES)
    return log, [found.record.number for found in log.open()]


def put(number: int, size: int = 100, *, must_last: bool = True) -> Put:
    data = chunk(number, size)
    return Put(record(number), (data,), len(data), must_last)
