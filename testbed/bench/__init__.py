"""The benchmarks behind `packetcloud bench`.

- `trial`    one timed run of one contender
- `rounds`   interleaved repeats, medians, ratios
- `report`   what every benchmark's JSON starts with
- `plot`     the PNG
- `scene`    where a benchmark runs: namespaces in a link mode, or loopback
- `hop`, `path`, `service`, `chunks`  the four benchmarks

Source: docs/reference/bench.md.
"""
