"""The cloudlet co-located with a router: compute nodes, VIs, placement, scaling, migration.

No module is here yet: services run under the process back-end of the services room.
docs/architecture.md, "Rooms", says what belongs here and what it may import.
"""
