"""The OpenAPI description of the management API, as the file openapi.json beside this module.

`python -m packetcloud.router.openapi` writes it again after a change; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from packetcloud.router.api import RouterState, make_app

OPENAPI_FILE = Path(__file__).with_name("openapi.json")


def openapi_text() -> str:
    """Return what must stand in `OPENAPI_FILE`."""
    app = make_app(cast(RouterState, None))  # the description needs no router behind it
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(openapi_text(), encoding="utf-8")
