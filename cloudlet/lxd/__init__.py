"""Compute nodes that are LXD servers, or members of an LXD cluster. Nothing else knows of LXD.

- `address`      where a server is, and how both sides prove who they are
- `connection`   pylxd in threads of its own; every failure becomes one of our errors
- `operations`   work of the server that takes time: waited for, with a deadline
- `project`      the project that is ours alone, with LXD's restrictions on
- `replies`      from LXD's JSON to frozen values
- `protections`  which protections of kernel and LXD are in force
- `node`         the adapter of one node
- `discovery`    all nodes of one server or cluster

Calls block in worker threads, never on the event loop.
"""
