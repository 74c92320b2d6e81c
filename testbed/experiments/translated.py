"""The third scenario: A downloads from B's web server through the translator at the cloudlet C.

TCP goes from B to C, chunks from C over R to A, where curl asks `packetcloud host proxy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packetcloud.chunk.identity import create_identity_file
from packetcloud.testbed.bench.ours import SLACK_S
from packetcloud.testbed.bench.path import router_on_centre
from packetcloud.testbed.bench.rounds import Timing
from packetcloud.testbed.bench.trial import Trial, Window, make_trial
from packetcloud.testbed.daemons import ServiceEntry, start_service, wait_attached
from packetcloud.testbed.experiments.four_nodes import FourNodes
from packetcloud.testbed.meter import Meter
from packetcloud.testbed.peers.download import PERIOD_BYTES
from packetcloud.testbed.peers.tools import find_tool, wait_listening
from packetcloud.testbed.peers.web_server import start_web_server
from packetcloud.testbed.processes import Children, packetcloud_command, python_command
from packetcloud.testbed.traffic.pattern import make_payload

SERVICE = "translator"
FILE = "file"
FILE_MIB = 128
"""More than passes in a run: TCP alone would need four minutes for it."""


@dataclass(frozen=True, slots=True)
class TranslatedDownload:
    """One download; the payload counts that curl gets."""

    scene: FourNodes
    name: str

    def run(self, timing: Timing) -> Trial:
        scene, centre = self.scene, self.scene.centre
        find_tool("curl")
        with Children() as children:
            keys = {name: children.directory / f"{name}.key" for name in (SERVICE, "host")}
            sid = create_identity_file(keys[SERVICE]).guid.hex
            create_identity_file(keys["host"])
            wire = [f"{scene.address(*ends)}/32" for ends in (("c", centre), (centre, "c"))]
            entries = [ServiceEntry(sid, SERVICE)]
            router = router_on_centre(children, scene, entries, private_links=wire)
            port = router.address[1]
            web_address = scene.address("b", centre), scene.port()
            files = children.directory / "www"
            lay_file(files)
            web = start_web_server(children, scene.place("b"), web_address, files)
            service = start_service(
                children,
                SERVICE,
                SERVICE,
                (scene.address(centre, "c"), port),
                keys[SERVICE],
                {"allow": f"{web_address[0]}/32:{web_address[1]}"},
                scene.place("c"),
                wire,
            )
            wait_attached(router, service, sid)
            proxy_port = scene.port()
            command = packetcloud_command(
                *("host", "proxy", "--router", f"{scene.address(centre, 'a')}:{port}"),
                *("--key", keys["host"], "--translator", sid),
                *("--listen", f"127.0.0.1:{proxy_port}"),
            )
            proxy = children.start("proxy", command, scene.place("a"))
            wait_listening(proxy, proxy_port)
            command = python_command(
                "packetcloud.testbed.peers.download",
                f"http://{web_address[0]}:{web_address[1]}/{FILE}",
                *("--proxy", f"127.0.0.1:{proxy_port}"),
                *("--warmup", timing.warmup, "--seconds", timing.seconds),
            )
            curl = children.start("curl", command, scene.place("a"))
            with Meter([curl, proxy, router.child, service, web]) as meter:
                event = curl.wait_event("window", timing.warmup + timing.seconds + SLACK_S)
            window = Window(event["begin_s"], event["end_s"], event["payload_bytes"])
            return make_trial(window, meter)


def lay_file(folder: Path, periods: int = FILE_MIB) -> None:
    """Write the file that is fetched: the pattern that `peers.download` knows, over and over."""
    folder.mkdir()
    pattern = make_payload(PERIOD_BYTES)
    with (folder / FILE).open("wb") as file:
        for _ in range(periods):
            file.write(pattern)
