"""The domain controller: registry, reservations, ledger, ownership proofs, REST API.

No module is here yet: a router reads its names and services from its own configuration.
docs/architecture.md, "Rooms", says what belongs here and what it may import.
"""
