"""What a domain controller decides: values in, values out; no clock, file, socket or thread.

Time is an argument: integer milliseconds since 1970, UTC. Amounts are integers.

- `checks`      what a value may be, said once and readable
- `resources`   an amount of what VIs share; VI types
- `cloudlets`   cloudlets and what they report of their nodes
- `slots`       when: begin, end, repeats
- `wishes`      what a tenant asks for, and where it may be
- `principals`  who asks: roles, keys, services
- `money`       integers of a millionth of the currency's unit
- `prices`      price lists: meters, prices, tiers, digest
- `price_file`  the same as TOML
- `packing`     whether VIs can be laid on nodes
- `timeline`    how many of what at each time
- `calendar`    holds on a cloudlet: what fits, and when it would
- `quotes`      terms of an offer, and what they come to
- `reservations`  what is kept of a reservation, and what it holds
- `events`      what happens to it, and what follows: events and commands
- `life`        its states: events in, commands out
- `choice`      which cloudlets get it, and when it would fit
- `usage`       records of meters, chained by digests
- `ledger`      what they cost, as double entry
- `bills`       bills, and their check by whoever has the records
- `advice`      the cheapest VI type for a load
- `reconciliation`  what runs against what is reserved
- `installations`  what routers have of sets of rules
- `documents`   values as JSON and back

Source: docs/decisions/0015-domain-controller.md.
"""
