"""The programs that we compare with, each run as its own authors would run it.

- `tools`       finding a program, its version, and when it listens
- `iperf3`      one TCP flow, CUBIC or BBR
- `relays`      socat and HAProxy between two TCP connections
- `aes_job`     the work that every service peer does: AES-128-CBC over one payload
- `http_server` the AES job behind HTTP POST, one process
- `nginx`       the reverse proxy before it
- `download`    curl, counted and compared
- `web_server`  nginx with files to fetch
- `socks`       a plain SOCKS5 relay
- `grpc_server` the AES job as a gRPC unary call
- `nftables`    maps in the kernel's packet filter, and packets that look names up in them
- `openvswitch` the classifier of a switch in user space
- `openflow`    what we say to it
- `load`        the client of HTTP and gRPC: closed loop at full rate, open loop at a set rate
"""
