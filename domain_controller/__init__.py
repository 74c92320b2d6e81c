"""The domain controller: registry, reservations, ledger, ownership proofs, REST API.

- `core`            what it decides: places, prices, the life of a reservation, usage, bills; no I/O
- `state`           keeps it, in SQLite or PostgreSQL
- `api`             requests and answers
- `channel`         with cloudlets, which open it
- `errors`          what can go wrong
- `sid_proof`       the proof of a SID by its own key
- `rule_documents`  signed documents of rules and their proof
- `config`          the config file
- `enrolment`       what it says goes into the state when the controller starts
- `housekeeping`    deadlines, and forgetting what is old
- `daemon`          all of it as a process
- `metrics`         for Prometheus
- `client`          asks a domain controller
- `usage_signatures` whether usage records are signed by their cloudlet
- `bundles`         a bill with all that it is made of, computed again

Source: docs/decisions/0015-domain-controller.md.
"""
