"""Network services: the SDK, the runtime that runs one service in a VI, the bundled services.

- `errors`         every error this room raises; who is wrong decides the class
- `caps`           what routers, and the service itself, can make grow, and where it stops

What an author uses
- `sdk`            NetworkService, ServiceChunk, Verdict, the contexts
- `testing`        a harness for an author's pytest: a service without any network
- `manifest`       what a service says about itself, in TOML
- `parameters`     typed values from the manifest and `--set`

What runs a service
- `launch`         everything a child needs to know, as one line of JSON; how it ended
- `loading`        from an entry point to a NetworkService
- `addresses`      HOST:PORT as operators write it
- `plan`           from manifest and wishes to a launch, checked once
- `event_loop`     asyncio with Twisted's reactor on it
- `hosting`        the reactor around one service, until a signal ends it
- `buffers`        output buffers that are used again
- `tasks`          core: tasks in, verdicts out, limits and deadlines
- `attachment`     core: being attached to a router, and getting there again
- `backoff`        growing delays, shared by attachment and supervisor
- `execution`      where `process` runs: on the reactor's thread, in a worker, as a coroutine
- `runtime`        shell: one service on one hop node
- `child`          the program that runs inside a VI of the process back-end

What runs in a container besides
- `vi`             the program: addresses, no privileges, a launch from the controller
- `vi_settings`    what it reads from its environment
- `launch_files`   files that come with it, such as keys, kept in memory
- `control_link`   reports to the controller, its wishes, state in and out
- `control_frames` the frames of that link
- `state_transfer` a state in pieces, checked at its end

What keeps it running
- `isolation`      the interface, and the process back-end with its resource limits
- `supervisor`     core: restart what dies, quarantine what keeps dying
- `supervision`    shell: the supervisor on a reactor, with its status file
- `files`          files that only their owner may read; what tells a file that changed
- `state_dir`      where running services leave their status for `service list`

What the command needs besides
- `catalogue`      the bundled services, and finding one by name or file
- `benchmark`      `service benchmark`: chunks per second of a VI of each type
- `benchmark_child` the process that it measures
- `trial`          `service test`: run a service on files, without a network
- `replay`         `chunk replay`: run a service on the chunks of a capture
- `scaffold`       `service new`: a service to start from

The bundled services: `ids`, `secure_communication`, `translator`, `wan_optimizer`.
Imports only `packetcloud.chunk`.
"""
