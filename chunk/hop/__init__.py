"""The hop protocol: reliable transfer of whole bodies between two neighbours, over UDP.

What other rooms program against:

- `api`         Body, Neighbour, HopReceiver, HopConfig, Role, Settlement
- `udp`         HopNode, the Twisted shell; HopConnectError
- `clock`       the monotonic clock that every timer runs on

Inside, from the bottom up; none of it does I/O or reads a clock:

- `suites`      which cipher a session uses, and who decides
- `datagrams`   types, layouts and sizes of datagrams
- `frames`      frames of CONTROL datagrams
- `greetings`   messages of the handshake
- `wire`        the three above in one place
- `header_check`, `keys`, `replay`      checks of DATA headers, keys from an exchange, counters
- `envelope`    CONTROL and BUNDLE datagrams: numbered, sealed, opened
- `body_seal`   whole bodies: sealed and opened
- `buffers`     row buffers, bodies, the pool
- `rtt`         round-trip time and the timers that follow
- `path_model`  how fast the path delivers, how long it takes, what it loses anyway
- `cubic`       the window beside who fills queues
- `background`  the window of what can wait
- `congestion`  how much may be in flight, and the pace
- `train_headers`       headers of a train: what is one run, whose it is
- `incoming`    one transfer that is not whole yet, and its opening as it comes
- `incoming_transfers`  all of a neighbour's: where they land, which give way
- `lane`        where bodies lie in memory that a neighbour shares
- `repair`      what a bad link altered in a body, and how it is found
- `flow_credit` what each flow of a neighbour holds here
- `neighbour_credit`    what the neighbour and all its flows hold here
- `outcomes`    transfers that are settled, refused, or whole and undecided
- `acks`        what came since the last ACK, and what the next one says
- `custody`     which transfers are admitted, and what becomes of each
- `flow_queues` bodies that wait to be sent, flow by flow
- `parking`     flows that the neighbour has no room for
- `receiver`    segments in, whole bodies up
- `outgoing`    one body on its way: sent, arrived, lost
- `layout`      how a burst is laid
- `flight`      bursts on their way: passed, late, lost
- `open_transfers`      numbers, credit, what the neighbour has not settled
- `departures`  what leaves next
- `stride_change`       datagrams of another size
- `sender`      bodies in, bursts out, settlements up
- `path_mtu`    how large a datagram the path takes
- `stride_negotiation`  the size of full datagrams, agreed on each way
- `liveness`    whether a neighbour lives
- `silence`     one question at a time while it says nothing
- `rekey`       new keys inside a session
- `address_proof`       whether a neighbour is where its datagrams come from now
- `vigil`       when a node stays awake for what is about to come
- `agreement`   what a handshake ends with, and a session begins with
- `session`     one sender, one receiver, and what goes on between them
- `address_rate`        how often one address may begin a handshake
- `stamps`      which handshakes are newer than which
- `handshake`   HELLO, WELCOME, CONFIRM
- `timers`      what is due when: one deadline for each session or handshake
- `replies`     single datagrams that wait for the socket
- `resets`      word to neighbours of an earlier life
- `door`        strangers and what they get; handshakes under way
- `landing`     where the next train is received
- `core`        all sessions of one node
- `flood`       how many strangers' datagrams are looked at when there are too many
- `caps`        what a neighbour can make grow, and where it stops

- `batch`       many datagrams per system call where the kernel does not join them
- `intake`      what the socket received, to the core in the largest pieces there are
- `outlet`      how datagrams leave
- `shield`      has the kernel shed strangers' datagrams in a flood
- `lane_place`, `lane_memory`, `lane_door`      where a router shares memory, how, and with whom
- `stamp_file`  where stamps outlive the process
- `offload`     what the kernel does for UDP, found out by trying

Source: docs/protocol/hop.md.
"""
