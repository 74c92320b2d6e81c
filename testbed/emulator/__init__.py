"""A link with rate, delay, queue and faults, between two namespaces, for real sockets.

- `shape`     what one direction of a link does to packets
- `faults`    which packets a seeded chance picks, alone and in runs
- `channel`   one direction on virtual time: queue, serialisation, propagation, faults
- `packets`   a bit flipped so that it reaches the application
- `honesty`   whether the emulator kept its own schedule
- `tun`       TUN devices
- `process`   `python -m packetcloud.testbed.emulator.process`: both directions of one link
- `netem`     the same link made by the kernel, where it has what that takes
- `link`      such a link in a lab: which of both, start, change, report

`shape`, `faults`, `channel`, `packets` and `honesty` do no I/O and read no clock.
Source: docs/how-to/emulate-a-link.md.
"""
