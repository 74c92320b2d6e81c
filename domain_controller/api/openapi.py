"""The OpenAPI description of the API, as the file docs/reference/domain-api.json.

`python -m packetcloud.domain_controller.api.openapi FILE` writes it again after a change; a test
compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

from packetcloud.domain_controller.api.app import make_app
from packetcloud.domain_controller.api.port import DomainState


def openapi_text() -> str:
    """Return what must stand in the file."""
    # The description needs no state behind it.
    made = make_app(
        cast(DomainState, _Nothing()),
        domain="",
        version="",
        authorities=(),
        clock_ms=lambda: 0,
        max_requests=1,
        max_streams=1,
    )
    return json.dumps(made.app.openapi(), indent=2, sort_keys=True) + "\n"


class _Nothing:
    def __getattr__(self, name: str) -> object:
        return None


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(openapi_text(), encoding="utf-8")
