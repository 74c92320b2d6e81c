"""Who attacks a hop node, and the node that is attacked; each a process of its own.

- `target`         takes bodies and says how it stands; defences can be switched off, for control
- `packets`        IPv4 and UDP by hand, so that the source can be anybody
- `stranger`       guesses session ids, floods with HELLOs, sends in another's name
- `neighbour`      makes a handshake like any neighbour and then keeps to nothing
- `go`             how they wait for their time
- `capture`        counts what a place is sent by a node, whoever asked for it

Source: docs/reference/bench.md, "attack"; docs/security.md.
"""
