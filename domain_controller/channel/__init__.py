"""The channel between cloudlets and this controller: a WebSocket that the cloudlet opens.

- `frames`    what goes over it: JSON with a schema, bounded
- `schema`    the schema as it is published
- `port`      what the channel needs of the state
- `kept`      that, from the database: each of it one transaction, fenced by the owner's epoch
- `session`   one cloudlet's channel: frames in, frames out
- `hub`       all channels of this controller: who has something to be told
- `endpoint`  the WebSocket

Source: docs/decisions/0015-domain-controller.md; docs/protocol/channel.md.
"""
