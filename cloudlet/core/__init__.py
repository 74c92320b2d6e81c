"""The cloudlet controller's decisions: events in, commands out; no socket, thread or clock.

- `values`     what a cloudlet has and wants: resources, services, settings
- `instances`  VIs: what the controller knows and keeps of each
- `events`     what the shell tells the core
- `commands`   what the core tells the shell to do
- `inventory`  compute nodes: what is there, reserved, free, lost
- `placement`  which node gets a VI
- `life`       one VI from its creation to its end: restarts, back-off, quarantine
- `migration`  from one VI to its twin, with one owner at any time
- `table`      the router's table: what it should be, and what the router has of it
- `staffing`   which VIs there should be, and where
- `conduct`    what becomes of a VI that does what it must not
- `wishes`     what operators ask for
- `saved`      what is kept over a restart
- `rows`       the same as rows for a database
- `scaling`    how many VIs a service should have
- `core`       the events' way to all of these

Source: docs/decisions/0013-cloudlet.md.
"""
