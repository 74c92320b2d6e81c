"""The stream protocol: TCP connections of a host, carried in chunks to a translator and back.

The core, without I/O:

- `wire`      messages and frames as bytes
- `inbox`     one direction of a stream, as received
- `outbox`    one direction of a stream, kept until it is acknowledged
- `table`     the streams of a session, the same at both ends
- `events`    what happens to them
- `caps`      what the other end can make grow, and where it stops
- `ports`     the ports of a translator that a host wants
- `caller`    the host's end of a session: it asks
- `answerer`  the translator's end: it answers

Its shells:

- `tcp_end`      one TCP socket as the end of a stream
- `tcp_listener` one listening socket

Source: docs/protocol/stream.md; docs/decisions/0016.
"""
