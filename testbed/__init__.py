"""Topologies, peers, benchmarks and the demonstration.

- `capabilities`    what this machine can do, found out by trying
- `namespace_probe` the part of that which needs a process of its own
- `doctor`          what that means for PacketCloud: what is missing, its cost, the way out
- `errors`          what goes wrong here, and what the user does about it
- `namespaces`      network namespaces, addresses and routes; nothing stays behind
- `kernel`          moving threads between namespaces
- `links`           veth pairs and the three link modes
- `in_namespace`    the launcher that runs one command inside a namespace
- `processes`       child processes: start, read their events, stop
- `meter`           CPU and memory of those over time
- `daemons`         our own daemons, as an experiment runs them
- `ownership`       whose a thing of an experiment is, also after its maker was killed
- `lxd_daemon`      private LXD servers, and clusters of them
- `lxd_remains`     what these leave behind, and its removal
- `fake_lxd`        a compute node in memory that fails on demand
- `tiny_image`      a container image of this machine's own shell
- `instrumented`    a module as a program with a meter beside it
- `sampled`         where a program spends its CPU time
- `lagged`          when a program's event loop is late
- `machine`         what the figures were measured on
- `peers`           the programs we compare with
- `traffic`         our own senders and receivers, one process each
- `simulation`      a deterministic network on virtual time, and its judge
- `emulator`        links with rate, delay and faults, for real sockets
- `bench`           the benchmarks
- `attack`          who attacks a node in them, and the node
- `demo`            the demonstration on one machine, without root
"""
