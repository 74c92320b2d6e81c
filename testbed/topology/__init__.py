"""Topologies: a network from ten lines of TOML, of namespaces, emulated links and real daemons.

- `units`        quantities as people write them
- `tables`       what each table of a topology's file may say
- `model`        the file as a whole: what goes together, and its links
- `graph`        addresses, IP routes, neighbours: who reaches whom
- `plan`         what has to be made, in order
- `router_files` config files and rule documents of what is made
- `service_files` the manifests that a topology names
- `build`        makes what a plan says
- `containers`   images and LXD servers, for services in containers
- `cloudlets`    what cloudlet controllers say
- `facts`        what is said of a topology that is up
- `leftovers`    processes in the namespaces of a topology, and their end
- `registry`     which topologies are up on this machine, and sweeping dead ones
- `rootless`     networks without root, in a user namespace
- `keeper`       `python -m packetcloud.testbed.topology.keeper`: keeps one topology up
- `control`      `packetcloud testbed up|down|list|exec`
- `faults`       when what goes wrong
- `traffic`      one load: its processes, and what they say
- `measure`      one turn of loads and faults
- `experiment`   the load of a topology as an experiment
- `samples`      the examples that come with PacketCloud

`units`, `tables`, `model`, `graph`, `plan`, `router_files` and `faults` do no I/O, but for
reading the file.
Source: docs/reference/topology.md.
"""
