"""The MF-IP protocol translator: TCP connections in the IP network for hosts of the MF network.

- `service`   the NetworkService: requests of hosts in, answers out
- `sessions`  core: who may have sessions and connections, how many, and what they may hold
- `hosted`    one host's session: its streams and the sockets at their other ends
- `egress`    core: which addresses and ports may be connected to
- `connector` from a name to a connected socket
- `listeners` ports at which the IP network reaches hosts
- `errors`    what cannot be configured, and what cannot be connected to

Source: docs/reference/translator.md; docs/protocol/stream.md.
"""
