"""Trying PacketCloud out and measuring it: what this machine can do, topologies, benchmarks.

- `machine`         facts about this machine, found out by trying
- `namespace_probe` the part of that which needs a process of its own
- `doctor`          what those facts mean for PacketCloud: what is missing, its cost, the way out

Imports every room. Source: docs/architecture.md.
"""
