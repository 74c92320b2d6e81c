"""Topologies, peers, benchmarks and the demonstration.

- `capabilities`    what this machine can do, found out by trying
- `namespace_probe` the part of that which needs a process of its own
- `doctor`          what that means for PacketCloud: what is missing, its cost, the way out
"""
