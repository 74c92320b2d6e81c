"""The caps of the cloudlet controller: what VIs can make grow, and where it stops.

Source: docs/protocol/control-link.md, "Caps", which is checked against this list.
"""

from __future__ import annotations

from packetcloud.chunk.caps import Cap, Room
from packetcloud.cloudlet.callers import MAX_CALLS_PER_S_COUNT, MAX_STRANGERS_OF_ONE_COUNT
from packetcloud.cloudlet.links import (
    MAX_BEHIND_BYTES,
    MAX_LOGGED_COUNT,
    MAX_REPORTS_PER_S_COUNT,
    MAX_STATES_BYTES,
    MAX_STATUS_VALUES_COUNT,
    MAX_STRANGERS_COUNT,
)

_REFUSED = 'packetcloud_cloudlet_control_links_refused_total{{reason="{}"}}'

CAPS = (
    Cap(
        "control links that have not said who they are",
        MAX_STRANGERS_COUNT,
        "connections",
        "every VI of a cloudlet may call at once after its controller was away",
        "closed; the VI calls again",
        _REFUSED.format("strangers"),
        ("links:ControlServer._strangers",),
    ),
    Cap(
        "such control links of one address",
        MAX_STRANGERS_OF_ONE_COUNT,
        "connections",
        "a VI calls once at a time, and must not keep others out",
        "closed; the VI calls again",
        _REFUSED.format("strangers"),
    ),
    Cap(
        "calls of one address within a second",
        MAX_CALLS_PER_S_COUNT,
        "calls",
        "an orderly VI waits between two; each costs the controller as much as a hundred reports",
        "not listened to before the second is over",
        "packetcloud_cloudlet_calls_held_up_total",
    ),
    Cap(
        "states on their way",
        MAX_STATES_BYTES,
        "bytes",
        "four of the largest; they lie in memory",
        "closed, and the migration is undone",
        _REFUSED.format("protocol"),
        ("links:ControlServer._states", "links:ControlServer._announced"),
    ),
    Cap(
        "what a VI has not read",
        MAX_BEHIND_BYTES,
        "bytes",
        "a launch is some KiB; a state waits for its reader instead",
        "closed; the VI calls again",
        _REFUSED.format("behind"),
    ),
    Cap(
        "reports of a VI within a second",
        MAX_REPORTS_PER_S_COUNT,
        "reports",
        "an orderly VI sends two; each costs the controller its time",
        "not read before the second is over",
        "packetcloud_cloudlet_reports_held_up_total",
    ),
    Cap(
        "lines in the log about closed links within a minute",
        MAX_LOGGED_COUNT,
        "lines",
        "who calls again at once, and wrongly, would fill the disk; sixty say what is going on",
        "counted, not logged",
        "packetcloud_cloudlet_control_links_unlogged_total",
    ),
    Cap(
        "keys and values of a status",
        MAX_STATUS_VALUES_COUNT,
        "values",
        "the runtime sends some sixty; the last status of each VI is kept",
        "closed; the VI calls again",
        _REFUSED.format("protocol"),
        ("core.instances:Vi.status", "links:Link.status"),
    ),
)

_CONFIG = "what the operator's config says"
_VIS = "one for each VI; how many there are is the operator's to say"

ROOM = Room(
    "cloudlet",
    "packetcloud.cloudlet",
    CAPS,
    {
        "callers:Callers._addresses": "one for each VI; addresses are filtered",
        "container_checks": "one for each container that a node lists",
        "containers": "what the controller wishes",
        "controller:Controller._nodes": _CONFIG,
        "controller:Controller.sites": _CONFIG,
        "controller:Controller._stocking": _CONFIG,
        "controller:Controller._tasks": "one or two for each VI and node",
        "controller:Controller.egress": _VIS,
        "controller:Controller.egress_totals": "one for each service",
        "controller:Controller.facts": _CONFIG,
        "controller:Controller.listening": _CONFIG,
        "controller:Controller.results": "the last 256",
        "core.conduct:Conduct.measures": "one for each service and measure",
        "core.events:ViAtRouter.violations": "its keys are kinds of violations",
        "core.instances:Vi.violations": "its keys are kinds of violations",
        "core.instances:Vi.counted": "its keys are kinds of violations",
        "core.instances:Vi.crashes": "as many as make a quarantine",
        "core.instances:Vi.offences": "one for each look at the router within a window",
        "core.inventory": _CONFIG,
        "core.metering:Metering._vis": "one for each reservation that the controller keeps",
        "core.placement": "one question",
        "core.reserved:Reservations.dropped": "its keys are a few reasons",
        "core.rule_sets": "one for each set of rules that is kept: 1024, of 64 MiB together",
        "core.saved": _VIS,
        "core.scaling": _CONFIG,
        "core.staffing": _CONFIG,
        "core.stages": "the few stages of one launch",
        "core.table": _VIS,
        "core.traffic:Traffic._looks": _VIS,
        "core.values": _CONFIG,
        "daemon:CloudletDaemon._changing": "one for each signal, and each ends within seconds",
        "declared_services": _CONFIG,
        "egress": _CONFIG,
        "egress_counts": "one for each address of VIs",
        "egress_filters": _VIS,
        "domain_link.link:DomainLink._outgoing": "1024 frames of ours; more are counted, not kept",
        "launches": _CONFIG,
        "links:ControlServer._links": _VIS,
        "links:ControlServer._tasks": "one for each state on its way",
        "links:ControlServer.refused": "its keys are five reasons",
        "lxd.node": "what an operator's own LXD says",
        "network": "our own tables as nft lists them",
        "process_node:ProcessNode._children": _VIS,
        "process_node:ProcessNode._vis": _VIS,
        "schemas": "one answer",
        "service_files": _CONFIG,
        "store": "the rows of its database",
        "surroundings": "the newest of one router's answers",
    },
)
