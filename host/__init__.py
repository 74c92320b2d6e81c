"""What an end host runs: the endpoint that sends and receives chunks, and file transfer over it.

- `errors`          every error this room raises
- `results`         how a send ended, as its caller is told
- `endpoint`        `Endpoint`: open, attach, send, receive, close
- `blocking`        the same for scripts, with a reactor in its own thread
- `file_transfer`   files of any size over chunks, checked and resumable
- `endpoint_core`   the endpoint without I/O, made of:
  - `outstanding`     sends until their end; `report_timer` says when to try again
  - `duplicates`      what arrived before; `window_store` keeps it on disk
  - `reports`         delivery reports to send, in batches
  - `chunk_ids`       ids, unique without any state on disk
  - `header_template` headers encoded once per kind of send
- `received`        a chunk for the application; `stream` hands them out one at a time
- `router_link`     the session with the router, found again when lost
- `promise`         awaitable by asyncio and by Twisted coroutines
- `reactor`         what we need of a reactor, and a private one

Imports `chunk` only. Source: docs/reference/host.md.
"""
