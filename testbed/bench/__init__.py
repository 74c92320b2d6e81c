"""The benchmarks behind `packetcloud bench`.

- `hop`            one hop against one TCP flow
- `path`           A - R - B against IP forwarding and TCP relays
- `service`        R - VI - R against HTTP and gRPC
- `chunks`         small chunks through one router process
- `loss`           links that lose packets, against TCP
- `trial`          one timed run of one contender
- `rounds`         interleaved repeats, medians, ratios
- `modes`          the same in every link mode
- `scene`          where a run happens: namespaces in a link mode, or loopback
- `ours`           our sender and receiver in a run
- `flows`          one iperf3 flow, straight or through a relay
- `service_ours`   our contender in `service`
- `service_peers`  its peers
- `memory`         a router's memory while a lot passes through it
- `stages`         where a router's CPU time goes
- `attack`         strangers and a hostile neighbour against a node
- `fairness`       who gets how much of a bottleneck
- `shared`         several flows over one link at once
- `emulated`       scenes of emulated links; runs that the emulator vouches for
- `lossy`          contenders on bad links
- `handshakes`     50 of them over a link that loses and alters packets
- `changes`        a link that changes under a transfer
- `outages`        a file over a link that goes dark
- `rules`          many header rules and payload patterns
- `rule_lookups`   header rules by number, ours and the peers', interleaved
- `rule_questions` what a router asks of its rules, timed
- `rule_patterns`  payload inspection, and expressions that hurt
- `rule_install`   installing and withdrawing under a stream of chunks
- `rule_path`      throughput with rules against without
- `link_trial`     one sender over one emulated link, second by second
- `report`         what every report starts with
- `plot`           the PNG

Source: docs/reference/bench.md.
"""
