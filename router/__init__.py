"""The router: takes custody of chunks, runs them through services, sends them on.

The core, which knows no socket, clock or loop:

- `core`         events in, calls on neighbours out: the order of the steps
- `door`         whether a chunk may come in, also for `explanation`
- `flow`         what is decided once per flow: services to visit and the way out
- `planner`      decides for a header that no flow is known for
- `rules`        which chunks see services that they did not ask for
- `late_rules`   the rules of a flow that look at each chunk
- `rule_counts`  what rules did, and shadow rules would have done
- `layout`       where things stand in one encoded header, so that it is not decoded again
- `dispatch`     chunks to VIs and verdicts back
- `origination`  chunks that begin here: emitted by services, and reports
- `emitted`      the chunks that a service makes
- `emission`     the same on their way to disk
- `service_table` which services there are, which VIs may join, how long to wait for one
- `service_pool` services, their VIs, their windows and their delay penalty
- `cloudlet_table` the services that the cloudlet controller lists: what an update makes of them
- `cloudlet_pool` one such service: its slots, and what waits for one that is held
- `cloudlet_dispatch` chunks to the VIs of such services
- `verdict_checks` what those VIs may say
- `conduct_account` what they did that they may not, and what they may still send
- `vi_traffic`   what went to them and came from them
- `inspection`   the sample of their chunks that is written down
- `recent_durations` durations of the last moments
- `forward`      the way out: hosts, routers, and waiting for those that are away
- `waiting`      lines of chunks for a next hop that is away, BUSY or full; on disk if need be
- `lines`        one next hop's lines
- `spool`        what of the chunks in custody is on disk
- `disk_jobs`    what is asked of the disk, and how a group of it is done
- `chunk_log`    records in segment files
- `chunk_record` what one of them looks like
- `restore`      chunks that an earlier process had taken
- `routes`       attached hosts, neighbour routers, the static name table
- `attachment`   one neighbour's session and flow cache
- `custody`      one chunk that this router answers for
- `custody_book` all of them, and the conservation sum
- `deadlines`    a timing wheel
- `histogram`    durations with quantiles in bounded memory
- `reports`      what sources are told, batched
- `explanation`  what would become of a chunk, and why
- `offline_explanation` the same of files, without a router
- `tap`          captures: copies of chunks for whoever asks
- `settings`     what the core is told to do
- `redial`       which neighbour routers to call, and when again
- `caps`         what neighbours can make grow, and where it stops
- `errors`       errors of this room

Around it:

- `config`       the TOML file; `sample.toml` is what `config sample` prints
- `shell`        between hop node and core: time, one timer, ends of turns
- `storage`      the folder of the spool
- `disk_worker`  the thread that writes
- `disk_service` both as a part of the daemon
- `rule_service` rules as a part of the daemon: the keeper beside it, documents, tables
- `table_service` the cloudlet's table as a part of the daemon: updates, disk, waiting
- `table_store`  its file
- `cloudlet_schemas` updates, answers and the file
- `cloudlet_api` the paths of the management API that are about it
- `cloudlet_view` the table in force and its services as answers
- `cloudlet_metrics` what is counted of it
- `inspection_files` that sample as captures, in bounded room
- `inspection_service` the same as a part of the daemon
- `hop_service`  the UDP port as a part of the daemon
- `management`   the HTTP port as a part of the daemon
- `daemon`       the process: service tree, signals, drain, reload
- `state`        a running router as the API reads it
- `capture_file` what a capture saw, as pcapng
- `capture_stream` the same as an answer of the management API
- `capture_client` asks a running router for it
- `view`         the core's state as answers
- `schemas`      the answers of the management API
- `api`          its paths
- `openapi`      its description, in openapi.json
- `metrics`      counters as Prometheus metrics
- `status`       asks a running router how it is

Source: design, sections 3 and 6; MobiArch'13 paper, section 3.3.
"""
