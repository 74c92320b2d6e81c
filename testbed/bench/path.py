"""`packetcloud bench path`: A -> R -> B against the kernel's forwarding and TCP relays on R.

Source: docs/reference/bench.md, "path".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from packetcloud.testbed.bench.flows import TcpFlow
from packetcloud.testbed.bench.modes import Plan, Records, measure_modes
from packetcloud.testbed.bench.ours import SEALED, Ends, Load
from packetcloud.testbed.bench.report import Document, begin_document
from packetcloud.testbed.bench.rounds import Contender, Progress, Timing, best, ratio
from packetcloud.testbed.bench.scene import LOOPBACK_ADDRESS, Scene, path_scene
from packetcloud.testbed.bench.trial import Trial, make_trial
from packetcloud.testbed.daemons import (
    Command,
    Router,
    RouterPlan,
    RulesEntry,
    ServiceEntry,
    start_router,
)
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers.relays import (
    DEFAULT_HAPROXY,
    TUNED_HAPROXY,
    start_haproxy,
    start_socat,
)
from packetcloud.testbed.processes import Children, packetcloud_command
from packetcloud.testbed.traffic.node import ANYWHERE

ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class OurPath:
    """Two hosts attached to one real router daemon; chunks of 1 MiB from A to B."""

    scene: Scene
    load: Load = field(default_factory=Load)
    name: str = "ours"
    rules: RulesEntry | None = None
    """Rules that were installed before."""

    def run(self, timing: Timing) -> Trial:
        with Children() as children:
            private_links = ANYWHERE if self.load.is_open else ()
            router = router_on_centre(
                children, self.scene, private_links=private_links, rules=self.rules
            )
            ends = attach_ends(children, self.scene, router, self.load, timing)
            assert ends.sender is not None and ends.receiver is not None
            with Meter([ends.sender, router.child, ends.receiver]) as meter:
                window, chunks = ends.wait_window()
            sent, received = ends.finish()
            check_conservation(sent, received, router)
            rss = [rss_bytes for _, rss_bytes in meter.rss_series(router.child.name)]
            more = {"payloads_scanned": _payloads_scanned(router)} if self.rules else {}
            return make_trial(
                window,
                meter,
                chunks=chunks,
                router_rss_max_bytes=max(rss),
                sender=sent,
                receiver=received,
                **more,
            )


def _payloads_scanned(router: Router) -> int:
    """Return how many payloads a router with rules has looked at for patterns."""
    text = router.get("/metrics").decode()
    found = re.search(r"^packetcloud_router_payloads_scanned_total (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ChildError("the router's metrics do not say how many payloads were scanned")
    return int(float(found[1]))


def bench_path(
    modes: Sequence[LinkMode | None], timing: Timing, memory_gb: float, progress: Progress
) -> Document:
    """Measure in each mode (None: loopback), then the router's memory over `memory_gb`."""
    document = begin_document("path", timing, modes[0] is None, ("iperf3", "socat", "haproxy"))
    document["chunk_bytes"] = Load().payload_bytes
    document["haproxy_configurations"] = {
        name: [tuning.label for tuning in tunings] for name, tunings in _HAPROXY.items()
    }
    plan = Plan(path_scene, _contenders, _figures)
    document["modes"], document["failures"] = measure_modes(plan, modes, timing, progress)
    document["memory"] = None
    if memory_gb > 0:
        from packetcloud.testbed.bench.memory import measure_router_memory

        mode = LinkMode.WIRE if LinkMode.WIRE in modes else modes[0]
        with path_scene(mode) as scene:
            progress(f"{scene.name}: router memory over {memory_gb:g} GB")
            try:
                document["memory"] = measure_router_memory(scene, memory_gb)
            except ChildError as error:
                document["failures"].append(f"memory: {error}")
    return document


def router_on_centre(
    children: Children,
    scene: Scene,
    services: Sequence[ServiceEntry] = (),
    command: Command = packetcloud_command,
    private_links: Sequence[str] = (),
    rules: RulesEntry | None = None,
) -> Router:
    """Start the router on the scene's centre, listening on every link."""
    host = LOOPBACK_ADDRESS if scene.is_loopback else ANY_ADDRESS
    plan = RouterPlan(
        (host, scene.port()), (LOOPBACK_ADDRESS, 0), services, {}, private_links, rules
    )
    return start_router(children, plan, scene.place(scene.centre), command)


def attach_ends(
    children: Children,
    scene: Scene,
    router: Router,
    load: Load,
    timing: Timing,
    source: str = "a",
    sink: str = "b",
) -> Ends:
    """Attach a receiver at one leaf and a sender at another; the sender starts at once."""
    ends = Ends(children, load, timing)
    port = router.address[1]
    at_sink = f"{scene.address(scene.centre, sink)}:{port}"
    ends.start_receiver(scene.place(sink), "--connect", at_sink, "--expect", router.guid)
    at_source = scene.address(scene.centre, source), port
    ends.start_sender(scene.place(source), at_source, router.guid)
    return ends


def check_conservation(sent: Document, received: Document, router: Router) -> None:
    """What the router took, it delivered: neither lost nor doubled.

    Raises:
        ChildError: the two counts differ.
    """
    taken = sent["settled"].get("accepted", 0)
    if taken != received["bodies"] or sent["refusals"]:
        info = router.get_json("/info")
        raise ChildError(
            f"the router took {taken} chunks, {received['bodies']} arrived; "
            f"settled {sent['settled']}, refused {sent['refusals']}; "
            f"the router's sums {info['conservation']}, its hop {info['hop']}, "
            f"the receiver's {received['hop']}"
        )


_HAPROXY = {"haproxy": DEFAULT_HAPROXY, "haproxy_tuned": TUNED_HAPROXY}


def _contenders(scene: Scene) -> list[Contender]:
    contenders: list[Contender] = [
        OurPath(scene, Load(is_open=True)),
        OurPath(scene, name=SEALED),
    ]
    if not scene.is_loopback:
        contenders.append(TcpFlow("ip_forwarding", scene))
    contenders.append(TcpFlow("socat", scene, relay=start_socat))
    for name, tunings in _HAPROXY.items():
        for tuning in tunings:
            relay = partial(start_haproxy, tuning=tuning)
            contenders.append(TcpFlow(f"{name} ({tuning.label})", scene, relay=relay))
    return contenders


def _figures(records: Records) -> Document:
    ours, sealed = (records[name].goodput_gbps for name in ("ours", SEALED))
    peers = {
        name: records[name].goodput_gbps if name in records else None
        for name in ("ip_forwarding", "socat")
    }
    for name, tunings in _HAPROXY.items():
        # Each family is as fast as the best of its configurations.
        found = [records[f"{name} ({tuning.label})"] for tuning in tunings]
        peers[name] = best(*(record.goodput_gbps for record in found))
    return {
        "goodput_gbps": ours,
        "sealed_gbps": sealed,
        "sealed_over_open": ratio(sealed, ours),
        **{f"{name}_gbps": value for name, value in peers.items()},
        **{f"ratio_{name}": ratio(ours, value) for name, value in peers.items()},
    }
