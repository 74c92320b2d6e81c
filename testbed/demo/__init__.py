"""The demonstration: a real file through a router and services, on one machine, without root.

- `payload`    the file to send: one that is given, or half compressible data made here
- `scenario`   what the file passes, and the processes of one scenario
- `result`     what a scenario gave, and whether anything was lost, doubled or altered
- `show`       the scenarios one after the other, and the report

Source: docs/reference/bench.md, "demo".
"""
