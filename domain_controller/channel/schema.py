"""The schema of the channel's frames, as it is published: beside docs/protocol/channel.md."""

from __future__ import annotations

import json
from pathlib import Path

from packetcloud.domain_controller.channel.frames import DOWN, UP

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "protocol" / "channel.schema.json"


def schema_text() -> str:
    """Return what must stand in `SCHEMA_FILE`."""
    _, document = UP.json_schemas(
        [("up", "validation", UP), ("down", "validation", DOWN)],
        title="Frames of the channel between a cloudlet and its domain controller",
    )
    both = UP.json_schema(), DOWN.json_schema()
    document["$defs"] = document.get("$defs", {}) | {
        "up": {key: value for key, value in both[0].items() if key != "$defs"},
        "down": {key: value for key, value in both[1].items() if key != "$defs"},
    }
    document["oneOf"] = [{"$ref": "#/$defs/up"}, {"$ref": "#/$defs/down"}]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
