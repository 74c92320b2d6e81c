"""What every other room speaks: names, keys, the chunk format and the hop protocol.

- `errors`      every error this room raises; who is wrong decides the class
- `names`       GUID, SID, NA, ChunkId and the self-certifying hash behind them
- `disk`        what durable state needs of a disk, and the real one
- `runtime_folder`      where programs of one user find each other
- `identity`    Ed25519 keys and the files they live in
- `timestamps`  points in time as documents write them
- `toml_files`  config files checked against models, each mistake one readable sentence
- `http_api`    what servers and clients of HTTP APIs agree on: idle connections, trust
- `grants`      whoever owns a name lets another key speak for it
- `revocations` whoever granted takes it back
- `grant_chains` whether the holder of a key may speak for a name, and why not
- `header`      the chunk header: fields, extensions, encode and decode
- `reasons`     why a chunk was not delivered: one number and one word each
- `messages`    what else a hop carries: service tasks, verdicts, delivery reports
- `caps`        what a remote byte can make grow: how a room says where it stops
- `flow_labels` labels for the flows of the hop
- `hop`         the hop protocol: sans-I/O core and its UDP shell
- `streams`     TCP connections in chunks: sans-I/O core and the shell of a socket

To look into captures; nothing above imports these:

- `capture`     the packets of a pcap or pcapng file
- `pcapng`      writes such a file
- `open_frames` a body as the packets that would carry it in the open
- `captured`    the chunks of a capture, put together
- `dissect`     what one hop datagram says, field by field
- `pcap`        the hop datagrams of a capture, and what each belongs to
- `scapy_layers` the chunk formats as scapy layers
- `scapy_hop`   the hop datagrams as scapy layers
- `scapy_frames` the frames of its CONTROL datagrams

Imports nothing of ours. Source: docs/protocol/chunk.md, docs/protocol/hop.md.
"""
