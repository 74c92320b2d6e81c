"""chunk-v1.json is what the code encodes, and what it decodes and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import decode_header
from packetcloud.chunk.identity import Identity, verify
from packetcloud.chunk.messages import (
    Outcome,
    TaskHeader,
    VerdictCode,
    VerdictHeader,
    decode_reports,
    encode_reports,
)
from tests.vectors import chunk_v1
from tests.vectors.fields import (
    header_fields,
    header_from_fields,
    report_fields,
    report_from_fields,
    task_fields,
    verdict_fields,
    verdict_from_fields,
)

each = chunk_v1.FILE.each


def test_the_file_is_what_the_code_encodes() -> None:
    """The format never changes by accident: see `python -m tests.vectors.chunk_v1`."""
    assert chunk_v1.build() == chunk_v1.FILE.load()


@each("headers")
def test_headers(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, the fields encode to the bytes."""
    data = bytes.fromhex(vector["bytes"])
    assert header_fields(decode_header(data)) == vector["fields"]
    assert header_from_fields(vector["fields"]).to_bytes() == data


@each("tasks")
def test_tasks(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, the fields encode to the bytes."""
    data = bytes.fromhex(vector["bytes"])
    assert task_fields(TaskHeader.from_bytes(data)) == vector["fields"]
    assert TaskHeader(**vector["fields"]).to_bytes() == data


@each("verdicts")
def test_verdicts(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, the fields encode to the bytes."""
    data = bytes.fromhex(vector["bytes"])
    assert verdict_fields(VerdictHeader.from_bytes(data)) == vector["fields"]
    assert verdict_from_fields(vector["fields"]).to_bytes() == data


@each("reports")
def test_reports(vector: dict[str, Any]) -> None:
    """Bytes decode to the fields, the fields encode to the bytes."""
    data = bytes.fromhex(vector["bytes"])
    assert [report_fields(entry) for entry in decode_reports(data)] == vector["fields"]
    assert encode_reports([report_from_fields(entry) for entry in vector["fields"]]) == data


@each("names")
def test_names(vector: dict[str, Any]) -> None:
    """A seed gives this key, this name and this signature, on every platform."""
    identity = Identity(bytes.fromhex(vector["seed"]))
    assert identity.public_key.hex() == vector["public_key"]
    assert identity.guid.hex == vector["guid"]
    domain, message = vector["domain"].encode(), bytes.fromhex(vector["message"])
    assert identity.sign(domain, message).hex() == vector["signature"]
    assert verify(identity.public_key, domain, message, bytes.fromhex(vector["signature"]))


@each("invalid")
def test_invalid(vector: dict[str, Any]) -> None:
    """These bytes are refused, and with this reason."""
    with pytest.raises(ProtocolError) as raised:
        chunk_v1.DECODERS[vector["kind"]](bytes.fromhex(vector["bytes"]))
    assert raised.value.reason == vector["reason"]


def test_each_verdict_and_outcome_has_a_vector() -> None:
    """A new code does not get in without a vector."""
    vectors = chunk_v1.FILE.load()
    assert {vector["fields"]["code"] for vector in vectors["verdicts"]} == set(VerdictCode)
    outcomes = {entry["outcome"] for vector in vectors["reports"] for entry in vector["fields"]}
    assert outcomes == set(Outcome)
