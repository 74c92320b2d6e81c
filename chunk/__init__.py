"""What every other room speaks: names, keys, the chunk format and the hop protocol.

- `errors`      every error this room raises; who is wrong decides the class
- `names`       GUID, SID, NA, ChunkId and the self-certifying hash behind them
- `identity`    Ed25519 keys and the files they live in
- `header`      the chunk header: fields, extensions, encode and decode
- `reasons`     why a chunk was not delivered: one number and one word each
- `messages`    what else a hop carries: service tasks, verdicts, delivery reports
- `hop`         the hop protocol: sans-I/O core and its UDP shell
- `scapy_layers` the same formats as scapy layers, for captures

Imports nothing of ours. Source: docs/protocol/chunk.md, docs/protocol/hop.md.
"""
