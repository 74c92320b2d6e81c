"""Our own senders and receivers: one process each, measured like the peers' processes.

- `pattern`   the payload that both ends know
- `window`    which arrivals count
- `priority`  how far hosts give way to router and VIs
- `schedule`  when the next body is due: a full window, or a set rate
- `ticks`     how far each end is, every so often
- `node`      the hop node of such a process, its events and its end
- `source`    what sender and caller share: chunks that differ in their ids alone
- `sender`    `python -m packetcloud.testbed.traffic.sender`
- `caller`    `python -m packetcloud.testbed.traffic.caller`: chunks by order, one or many
- `connector` `python -m packetcloud.testbed.traffic.connector`: handshakes, one after the other
- `receiver`  `python -m packetcloud.testbed.traffic.receiver`
- `witness`   `python -m packetcloud.testbed.traffic.witness`: hosts with journals
- `trees`     two versions of a source tree
- `rule_traffic` which of many rules traffic meets
- `rule_patterns` payload patterns, payloads, and expressions that hurt
- `rule_documents` signed documents of many rules
- `rule_writer` `python -m packetcloud.testbed.traffic.rule_writer`: the table of many rules
"""
