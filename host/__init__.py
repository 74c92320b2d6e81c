"""What an end host runs: the endpoint that sends and receives chunks, and file transfer over it.

For applications:
- `endpoint`        `Endpoint`: open, attach, send, receive, close
- `blocking`        the same for scripts, with a reactor in its own thread
- `file_transfer`   `FileTransfers`: files of any size over chunks, checked and resumable
- `received`        a chunk for the application
- `stream`          `async for` over received chunks
- `results`         how a send ended, as its caller is told
- `caps`            what those who send to a host can make grow, and where it stops
- `errors`          every error this room raises
- `promise`         awaitable by asyncio and by Twisted coroutines

The endpoint without I/O:
- `endpoint_core`   sends, duplicates and reports of one GUID put together
- `outstanding`     every send until its end
- `send_window`     which of them may be outstanding, shared by flows
- `send`            one chunk on its way: its states, and what is to be done for it
- `report_timer`    when to try again
- `duplicates`      what arrived before
- `reports`         delivery reports to send, in batches
- `chunk_ids`       ids, unique without any state on disk
- `header_template` headers encoded once per kind of send

Files without I/O:
- `file_format`     the messages of a transfer
- `file_sender`     sending one file
- `incoming`        receiving one file
- `file_names`      names that are safe to store under
- `ranges`          sets of byte ranges

Disk, network and programs:
- `delivery`        arrived chunks to the callbacks of the application
- `router_link`     the session with the router, found again when it is lost
- `surroundings`    randomness and disk, so that simulated ones can stand in
- `window_store`    the duplicate window on disk
- `source_file`     the file that is sent
- `part_file`       the file on its way in, and its journal
- `inbox_folder`    the folder that files are received into
- `outgoing_file`   the shell of `file_sender`
- `file_answers`    what `file_receiver` answers, and what became of it
- `file_receiver`   the shell of `incoming`
- `reactor`         what we need of a reactor, and a private one
- `session`         one coroutine on a reactor, stopped cleanly by Ctrl-C
- `programs`        what `packetcloud host send|receive|ping` do

To the IP network and from it, through a translator:
- `proxy`           one port for SOCKS and HTTP clients
- `proxy_socks`     what SOCKS clients say
- `proxy_http`      where HTTP requests go, and what goes along
- `proxy_exchange`  plain HTTP requests of one client
- `expose`          a TCP service of this host, reached from outside
- `proxy_link`      the streams of a host: between endpoint and `chunk.streams`
- `meeting_place`   where programs of one key find each other
- `shared_session`  several programs of one key over the session of the first
- `proxy_programs`  what `packetcloud host proxy|expose` do

Imports `chunk` only. Source: docs/reference/host.md.
"""
