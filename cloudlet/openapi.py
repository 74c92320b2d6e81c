"""The OpenAPI description of the controller's API, as the file openapi.json beside this module.

`python -m packetcloud.cloudlet.openapi` writes it again after a change; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry

from packetcloud.cloudlet.api import make_app
from packetcloud.cloudlet.controller import Controller, Launches

OPENAPI_FILE = Path(__file__).with_name("openapi.json")


def openapi_text() -> str:
    """Return what must stand in `OPENAPI_FILE`."""
    # The description needs no controller behind it.
    app = make_app(cast(Controller, None), cast(Launches, None), CollectorRegistry(), "")
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(openapi_text(), encoding="utf-8")
