"""The demonstration: a real file through a router and services, on one machine.

Without root services are child processes; as root they may be containers.

- `payload`    the file to send: one that is given, or half compressible data made here
- `scenario`   what the file passes, and the processes of one scenario
- `containers` its services in containers, on a private LXD server
- `result`     what a scenario gave, and whether anything was lost, doubled or altered
- `show`       the scenarios one after the other, and the report

Source: docs/reference/bench.md, "demo".
"""
