"""A deterministic network in one process: whole routers, hosts and services on virtual time.

The code of the daemons runs as it is; what is simulated is the world around it. One seed decides
everything. Layers, each on the one before:

- `virtual_time` the heap of events
- `disk`         a disk that forgets on a power cut what was not synced
- `machine`      a computer: clocks, ports, a process that can be killed or stopped
- `journal`      what senders, receivers and custodians write down
- `trace`        a hash over all that happened, and the words of it
- `network`      links: loss, bursts, duplicates, reordering, corruption, delay, rate, MTU, cuts
- `hop_node`     the real hop core on a simulated port
- `payload`      payloads that say which operation they belong to
- `witness`      writes down what is said between a hop node and the layer above
- `disk_worker`  the router's disk worker without its thread
- `application`  what an application on a host sends, and how fast it takes what arrives
- `program`      what a machine runs, started again after each end
- `services`     what the services do to a chunk, and what its digest says of them
- `router_program`, `host_program`, `service_program`  the code of the daemons
- `plan`         topology, links, load and faults of one run
- `draw`         the parts of a plan, from one stream of random numbers
- `scenario`     which parts belong together
- `world`        builds the network of a plan, and makes its faults happen
- `watch`        caps and sums, looked at while a run goes
- `checker`      judges the journals by the promises
- `guard`        the real clock and real randomness are out of bounds
- `ciphers`      no nonce twice, no replay accepted
- `run`          one seed
- `campaign`     many seeds, in several processes
- `variant`      a mistake that is made on purpose, and the hunt for it
- `hop_variants`, `router_variants`, `host_variants`  the mistakes
- `museum`       all of them, which the judges must catch

Source: docs/reference/simulate.md.
"""
