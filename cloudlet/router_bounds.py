"""How much the router's table takes; a contract test compares with the router's own constants.

An update with more is refused as a whole, and with it every other service: the config is refused
before that can happen. Source: docs/reference/cloudlet-table.md.
"""

from __future__ import annotations

MAX_SERVICES_COUNT = 256
MAX_SLOTS_COUNT = 256
"""Slots of one service: its most VIs."""
MAX_DESTINATIONS_COUNT = 1024
"""Of one service."""
MAX_ALL_DESTINATIONS_COUNT = 16_384
"""Of all services: an update holds 1 MiB."""
MIN_DEADLINE_MS = 50
MAX_NA = 0xFFFF_FFFF
