"""The core's frozen values as the texts that rows keep.

A class may get fields with defaults: what an older version wrote is read, and lacks them. A field
that is unknown is an error: it was written by a newer version, which the schema's version should
have refused.
"""

from __future__ import annotations

import json
from typing import TypeVar

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.domain_controller.core.documents import from_document, to_document
from packetcloud.domain_controller.state.errors import StateError

T = TypeVar("T")


def dump(value: object) -> str:
    """Return a value of the core as JSON text; the same value has the same text."""
    return json.dumps(to_document(value), separators=(",", ":"))


def load(kind: type[T], text: str) -> T:
    """Return the value that a text was dumped from.

    Raises:
        StateError: the text is not of this class; the database is damaged or another version's.
    """
    try:
        return from_document(kind, json.loads(text))
    except (ValueError, PacketCloudError) as error:
        raise StateError(f"a stored {kind.__name__} cannot be read: {error}") from error
