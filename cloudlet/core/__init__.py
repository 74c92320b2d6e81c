"""The cloudlet controller's decisions: events in, commands out; no socket, thread or clock.

- `values`     what a cloudlet has and wants: resources, services, settings
- `instances`  VIs: what the controller knows and keeps of each
- `events`     what the shell tells the core
- `commands`   what the core tells the shell to do
- `inventory`  compute nodes: what is there, reserved, free, lost
- `placement`  which node gets a VI
- `places`     nodes with room, addresses, instances: what a VI takes
- `allotment`  the limits of its container: more for its start, less while it waits
- `stages`     how far a launch is, and when it got there
- `states`     what may follow each state of a VI, and what its container needs there
- `life`       one VI from its creation to its end: restarts, back-off, quarantine
- `migration`  from one VI to its twin, with one owner at any time
- `table`      the router's table: what it should be, and what the router has of it
- `staffing`   which VIs there should be, and where
- `standbys`   VIs that wait for their launch
- `conduct`    what becomes of a VI that does what it must not
- `wishes`     what operators ask for
- `reserved`   what the domain controller has it hold and run
- `rule_sets`  sets of rules that the domain controller wants at the router
- `metering`   for how long its VIs ran, as records that are charged
- `traffic`    which chunks and bytes went to and from them, as such records
- `records`    what both write: usage records that wait for the domain controller
- `saved`      what is kept over a restart
- `rows`       the same as rows for a database
- `scaling`    how many VIs a service should have
- `core`       the events' way to all of these

Source: docs/decisions/0013-cloudlet.md.
"""
