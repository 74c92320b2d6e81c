"""Topologies without anything being made: files, graphs, plans, faults."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from packetcloud.chunk.identity import create_identity_file
from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.images.recipe import ImageError
from packetcloud.cloudlet.schemas import ProtectionInfo
from packetcloud.router.config import parse_config
from packetcloud.services.secure_communication.keys import create_key_file
from packetcloud.testbed.errors import TopologyError
from packetcloud.testbed.topology import containers, experiment, tables
from packetcloud.testbed.topology.build import Network
from packetcloud.testbed.topology.containers import Containers, lacking_for_containers
from packetcloud.testbed.topology.faults import lasting, schedule
from packetcloud.testbed.topology.graph import Graph, Route, make_graph
from packetcloud.testbed.topology.leftovers import KEEPER_VARIABLE, Marked
from packetcloud.testbed.topology.model import Topology
from packetcloud.testbed.topology.plan import Step, StepKind, make_plan, steps_left
from packetcloud.testbed.topology.rootless import user_namespace_of
from packetcloud.testbed.topology.router_files import (
    LxdNode,
    ServiceFiles,
    controller_text,
    router_text,
)
from packetcloud.testbed.topology.samples import (
    example_names,
    example_text,
    find_topology,
    sample_text,
)
from packetcloud.testbed.topology.service_files import check_services

BASE = 'hosts = ["a", "b"]\nrouters = ["r"]\n'
LINK = '[[link]]\nnodes = ["a", "r", "b"]\n'
SERVICE = '[[service]]\nname = "s"\nat = "r"\nmanifest = "wan-optimizer"\n'
WEB = BASE + 'ip = ["web"]\n' + LINK + '[[link]]\nnodes = ["r", "web"]\n'
CONTAINED = SERVICE + 'settings = { direction = "compress" }\nisolation = "lxd"\n'
LOAD = '[[load]]\nsource = "a"\ndestination = "b"\n'
GUID = "ab" * 20


@pytest.fixture
def load(tmp_path: Path):  # type: ignore[no-untyped-def]  # a function from text to topology
    def read(text: str) -> Topology:
        path = tmp_path / "net.toml"
        path.write_text(text)
        return Topology.load(path)

    return read


def _graph(load, text: str) -> Graph:  # type: ignore[no-untyped-def]
    return make_graph(load(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "[lnik]\n", "lnik: unknown table; allowed: hosts, routers"),
        (
            BASE + LINK + 'rtae = "1mbit"\n',
            "[[link]] number 1 rtae: unknown key; allowed: rate, delay",
        ),
        (
            BASE + LINK + 'rate = "fast"\n',
            "[[link]] number 1 rate = 'fast': expected bits per second",
        ),
        (
            BASE + LINK + 'delay = "15"\n',
            "[[link]] number 1 delay = '15': expected a time like 15ms",
        ),
        (BASE + LINK + 'loss = "120%"\n', "expected a share of packets like 2% or 0.02"),
        (BASE + LINK + "queue = 5\n", "[[link]] number 1: a queue needs rate"),
        (BASE + LINK + 'jitter = "2ms"\n', "[[link]] number 1: jitter is larger than delay"),
        (BASE + '[[link]]\nnodes = ["a", "x"]\n', "nodes = 'x': no such node; allowed: a, b, r"),
        (BASE + '[[link]]\nnodes = ["a", "a"]\n', "'a' joined with itself"),
        (BASE + LINK + LINK, "names must differ"),
        (BASE + LINK + "back = { speed = 1 }\n", "speed: unknown key"),
        ('hosts = ["a", "a"]\nrouters = ["r"]\n', "'a' stands there 2 times"),
        ('hosts = ["Alice"]\nrouters = ["r"]\n', "hosts"),
        ('hosts = ["a"]\n', "routers: missing"),
        (BASE + LINK + SERVICE.replace('"r"', '"a"'), "at = 'a': no such router; allowed: r"),
        (BASE + LINK + SERVICE.replace('"s"', '"a"'), "a node has that name"),
        (
            BASE + LINK + SERVICE + 'vi_type = "nano"\n',
            "[[service]] s: vi_type: only with a controller; allowed: isolation = ",
        ),
        (
            BASE
            + LINK
            + SERVICE
            + 'isolation = "lxd"\n'
            + SERVICE.replace('"s"', '"t"')
            + 'isolation = "controller"\n',
            "[[service]] s: isolation = 'lxd', and t at the same router r has 'controller'; "
            "allowed: one of both",
        ),
        (
            WEB + SERVICE + 'egress = ["web:80"]\n',
            "[[service]] s: egress: child processes reach what their router does",
        ),
        (
            BASE + LINK + SERVICE + 'isolation = "lxd"\negress = ["web:80"]\n',
            "[[service]] s: egress = 'web': no such IP node; allowed: none yet",
        ),
        (
            WEB + SERVICE + 'isolation = "lxd"\negress = ["198.18.1.1:80"]\n',
            "expected a node and its TCP ports like web:80,443",
        ),
        (BASE + LINK + SERVICE + 'isolation = "jail"\n', "'process', 'controller' or 'lxd'"),
        (
            BASE + LINK + '[[rule]]\nservice = "s"\n',
            "service = 's': no such service; allowed: none yet",
        ),
        (BASE + LINK + LOAD + 'via = ["s"]\n', "via = 's': no such service"),
        (BASE + LINK + LOAD + 'congestion = "bbr"\n', 'congestion: only with kind = "tcp"'),
        (BASE + LINK + LOAD + 'kind = "tcp"\nrate = 2\n', 'rate: only with kind = "chunks"'),
        (BASE + LINK + LOAD + LOAD, "a is an end of 2 loads of chunks in turn 1; allowed: one"),
        (
            BASE + LINK + '[[load]]\nsource = "a"\ndestination = "r"\n',
            "no such host; allowed: a, b",
        ),
        (
            BASE + LINK + '[[fault]]\nafter = "1s"\n',
            "allowed: link with down, loss, delay or rate; or kill",
        ),
        (
            BASE + LINK + '[[fault]]\nafter = "1s"\nkill = "b"\n',
            "no such router or service; allowed: r",
        ),
        (
            BASE + LINK + '[[fault]]\nafter = "1s"\nlink = ["a", "b"]\ndown = true\n',
            "no such link; allowed: a-r, b-r",
        ),
        (
            BASE + LINK + '[[fault]]\nafter = "1s"\nlink = ["a", "r"]\n',
            "either down = true, or loss, delay and rate",
        ),
        (
            BASE
            + LINK
            + 'delay = "9ms"\njitter = "5ms"\n'
            + '[[fault]]\nafter = 1\nlink = ["a", "r"]\ndelay = "1ms"\n',
            "[[fault]] number 1: jitter is larger than delay",
        ),
        (
            '[run]\nemulator = "netem"\n' + LINK + 'delay = "9ms"\njitter = "5ms"\n',
            "",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(load, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    """File, table, key, value and what is allowed stand in one line."""
    if not said:
        text, said = BASE + text, "netem has no jitter; say [run] emulator"
    with pytest.raises(TopologyError) as caught:
        load(text)
    assert said in str(caught.value)
    assert "net.toml: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + '[[link]]\nnodes = ["a", "r"]\n', "host b reaches no router"),
        ('routers = ["r", "q"]\n', "router r reaches no q"),
        (
            BASE + 'ip = ["c"]\n' + LINK + CONTAINED + 'egress = ["c:80"]\n',
            "no links lead from c to r",
        ),
        (
            WEB.replace('["web"]', '["web", "c"]')
            + '[[link]]\nnodes = ["r", "c"]\n'
            + CONTAINED
            + 'egress = ["web:80", "c:80"]\n',
            "containers at r would leave it towards c and web; allowed: nodes that lie behind one",
        ),
        (
            'hosts = ["a"]\nip = ["c"]\nrouters = ["r"]\n[[link]]\nnodes = ["a", "r"]\n'
            '[[load]]\nsource = "a"\ndestination = "c"\nkind = "tcp"\n',
            "no links lead from a to c",
        ),
    ],
)
def test_what_is_not_joined_is_named(load, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    """A network in pieces is refused before anything is made."""
    with pytest.raises(TopologyError, match=said):
        _graph(load, text)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (SERVICE.replace("wan-optimizer", "no-such"), "no service"),
        (SERVICE + 'settings = { direction = "up" }\n', "direction"),
        (SERVICE.replace("wan-optimizer", "ids") + 'secret = "x"\n', "key_file"),
        (CONTAINED + 'vi_type = "huge"\n', "vi_type = 'huge'; allowed: nano, small"),
        (CONTAINED + 'files = { key_file = "none.key" }\n', "files: key_file: no file"),
        (CONTAINED + 'files = { peer = "net.toml" }\n', "files: peer is no parameter of type path"),
        (
            CONTAINED + 'files = { direction = "net.toml" }\n',
            "direction stands in files and in settings",
        ),
        (
            CONTAINED + 'secret = "x"\nfiles = { key_file = "net.toml" }\n',
            "key_file is set already",
        ),
    ],
)
def test_a_service_is_checked_before_it_is_started(load, service: str, said: str) -> None:  # type: ignore[no-untyped-def]
    """The manifest is there and has the parameters that the file sets."""
    with pytest.raises(TopologyError, match=said):
        check_services(load(BASE + LINK + service))


@pytest.mark.parametrize("name", example_names())
def test_examples_are_right(name: str) -> None:
    """Every example is read, joined, has services that can be started, and a load."""
    topology = Topology.load(find_topology(name))
    make_graph(topology)
    check_services(topology)
    assert topology.file.load
    assert len([line for line in example_text(name).splitlines() if line]) < 60


def test_the_sample_is_right_and_has_every_key(load) -> None:  # type: ignore[no-untyped-def]
    """What stands in it is taken, and no key of any table is left out."""
    check_services(load(sample_text()))
    uncommented = {
        line.lstrip("# ").split("=")[0].strip()
        for line in sample_text().splitlines()
        if "=" in line
    }
    all_tables = (
        *(tables.RunTable, tables.LinkTable, tables.ServiceTable, tables.RuleTable),
        *(tables.LoadTable, tables.FaultTable),
    )
    for table in all_tables:
        assert set(table.model_fields) <= uncommented, table.__name__


def test_defaults_in_the_sample_are_the_models() -> None:
    """A line that is commented out says the default."""
    text = "\n".join(
        line.lstrip("# ") for line in sample_text().splitlines() if line.startswith("# ")
    )
    said = dict(line.split("#")[0].split(" = ") for line in text.splitlines() if " = " in line)
    shape = tables.ShapeTable()
    for key in (
        "jitter",
        "loss",
        "loss_burst",
        "duplication",
        "reordering",
        "corruption",
        "largest",
    ):
        assert tomllib.loads(f"value = {said[key]}")["value"] == getattr(shape, key), key
    assert tomllib.loads(f"value = {said['queue']}")["value"] == tables.DEFAULT_QUEUE_PACKETS


def test_a_node_that_is_neither_file_nor_example_is_named() -> None:
    """The message lists the examples."""
    with pytest.raises(TopologyError, match=r"examples: .*four-nodes"):
        find_topology("no-such")


def test_back_says_what_differs(load) -> None:  # type: ignore[no-untyped-def]
    """The other direction has the same shape but for what `back` says, zero included."""
    text = (
        LINK + 'rate = "10mbit"\ndelay = "5ms"\nloss = "1%"\nback = { rate = "2mbit", loss = 0 }\n'
    )
    first, second = load(BASE + text).links
    assert (first.left, first.right, second.left, second.right) == ("a", "r", "r", "b")
    assert (first.to_right.rate_bps, first.to_right.loss) == (10e6, 0.01)
    assert (first.to_left.rate_bps, first.to_left.loss, first.to_left.delay_s) == (2e6, 0.0, 0.005)
    assert first.is_emulated


def test_a_link_without_a_shape_is_plain_unless_a_fault_needs_it(load) -> None:  # type: ignore[no-untyped-def]
    """Only an emulated link can be changed."""
    fault = '[[fault]]\nafter = "1s"\nlink = ["b", "r"]\ndown = true\n'
    assert [one.is_emulated for one in load(BASE + LINK).links] == [False, False]
    assert [one.is_emulated for one in load(BASE + LINK + fault).links] == [False, True]


LINE = (
    'hosts = ["a", "b"]\nrouters = ["r1", "r2", "r3"]\nip = ["c"]\n'
    '[[link]]\nnodes = ["a", "r1", "c", "r2", "r3", "b"]\n'
)


def test_ip_routes_lead_everywhere(load) -> None:  # type: ignore[no-untyped-def]
    """Every network that is not a node's own has a gateway beside it, on the shortest way."""
    graph = _graph(load, LINE)
    assert graph.routes("a") == [Route(f"198.18.{n}.0/24", "198.18.1.2") for n in (2, 3, 4, 5)]
    assert graph.routes("c") == [
        Route("198.18.1.0/24", "198.18.2.1"),
        Route("198.18.4.0/24", "198.18.3.2"),
        Route("198.18.5.0/24", "198.18.3.2"),
    ]
    assert graph.address_of("b", "a") == "198.18.5.2"


def test_hosts_pass_nothing_on(load) -> None:  # type: ignore[no-untyped-def]
    """A way through a host is none, however short."""
    text = (
        'hosts = ["a", "b"]\nrouters = ["r", "q"]\n'
        '[[link]]\nnodes = ["r", "a", "q"]\n[[link]]\nnodes = ["r", "b"]\n'
    )
    with pytest.raises(TopologyError, match="router r reaches no q"):
        _graph(load, text)


def test_routers_know_each_other_past_ip_nodes(load) -> None:  # type: ignore[no-untyped-def]
    """Neighbours, what lies behind them, and that of each pair exactly one calls."""
    graph = _graph(load, LINE)
    (beside_1,) = graph.neighbours("r1")
    assert (beside_1.node, beside_1.na, beside_1.routes) == ("r2", 2, (3,))
    assert beside_1.address is None
    first, second = graph.neighbours("r2")
    assert {first.node, second.node} == {"r1", "r3"}
    called = {one.node: one.address for one in (first, second)}
    assert called == {"r1": "198.18.2.1", "r3": None}
    assert graph.router_of("b") == "r3"


def test_configs_of_routers_are_taken_by_routers(load) -> None:  # type: ignore[no-untyped-def]
    """What is written is what the router's own check takes, with all names."""
    graph = _graph(load, LINE + SERVICE.replace('"r"', '"r2"') + '[[rule]]\nservice = "s"\n')
    guids = {
        name: f"{number:040x}" for number, name in enumerate((*graph.topology.file.nodes, "s"), 1)
    }
    for router in graph.nas:
        text = router_text(graph, router, Path("/keys"), guids, "cd" * 32)
        config = parse_config(text, router)
        assert {one.na for one in config.name} == {1, 2, 3}
        assert (config.rules is not None) is (router == "r2")
        assert [one.name for one in config.service] == (["s"] if router == "r2" else [])


def test_a_plan_is_in_order_and_replaying_it_converges(load) -> None:  # type: ignore[no-untyped-def]
    """Each step needs earlier ones only; whatever is there is not made again, in any order."""
    graph = _graph(load, LINE + SERVICE.replace('"r"', '"r2"') + '[[rule]]\nservice = "s"\n')
    plan = make_plan(graph)
    assert len(set(plan)) == len(plan)
    kinds = [step.kind for step in plan]
    assert kinds == sorted(kinds, key=list(StepKind).index)
    assert steps_left(plan, ()) == plan
    for cut in range(len(plan)):
        assert steps_left(plan, plan[:cut]) == plan[cut:]
    assert steps_left(plan, plan[::-1]) == ()


def test_a_controller_takes_the_place_of_single_services(load) -> None:  # type: ignore[no-untyped-def]
    """Services that it starts are no steps of their own."""
    plan = make_plan(_graph(load, BASE + LINK + SERVICE + 'isolation = "controller"\n'))
    made = {(step.kind, step.name) for step in plan}
    assert (StepKind.CONTROLLER, "r") in made
    assert not [one for one in made if one[0] is StepKind.SERVICE]


def test_containers_need_an_image_and_a_server(load) -> None:  # type: ignore[no-untyped-def]
    """The image comes before anything is made, the server between router and controller."""
    plan = make_plan(_graph(load, BASE + LINK + CONTAINED))
    kinds = [step.kind for step in plan]
    assert plan[0] == Step(StepKind.IMAGE, "s")
    assert kinds.index(StepKind.ROUTER) < kinds.index(StepKind.LXD)
    assert kinds.index(StepKind.LXD) < kinds.index(StepKind.CONTROLLER)
    assert StepKind.SERVICE not in kinds
    assert kinds == sorted(kinds, key=list(StepKind).index)


def test_a_config_for_containers_is_taken_by_the_controller(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Server, image, type, files and the way to the IP network are what the topology says; the
    router lets VIs call from where the controller puts them."""
    more = 'vi_type = "nano"\nsecret = "x"\negress = ["web:80,8000-8099"]\nvis = 2\n'
    graph = _graph(load, WEB + CONTAINED + more)
    create_identity_file(tmp_path / "s.key")
    create_key_file(tmp_path / "secret.key")
    (table,) = graph.topology.file.service
    image = tmp_path / "image.tar"
    files = ServiceFiles(
        table, "wan-optimizer", tmp_path / "s.key", tmp_path / "secret.key", image=image
    )
    path = tmp_path / "r-cloudlet.toml"
    path.write_text(controller_text(graph, "r", [files], LxdNode(tmp_path / "socket", "pool")))
    config = CloudletConfig.load(path)
    (service,) = config.services
    (node,) = config.file.node
    assert (node.socket, node.pool) == (tmp_path / "socket", "pool")
    assert (service.table.vi_type, service.table.replicas_max) == ("nano", 2)
    assert config.image_files(service) == (image,)
    assert service.table.files == {"key_file": tmp_path / "secret.key"}
    assert config.network.egress is not None
    assert config.network.egress.device == "to-web"
    assert [str(one) for one in service.egress.internal] == ["198.18.3.2/32:80,8000-8099"]
    assert service.egress.allow == ()
    guids = {name: f"{number:040x}" for number, name in enumerate("abrs", 1)}
    router = parse_config(router_text(graph, "r", Path("/keys"), guids, "cd" * 32), "r")
    assert str(config.network.data.subnet.ipv4) in map(str, router.router.private_links)


def test_without_root_there_are_no_containers(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The reason is named, and what helps; a topology without containers lacks nothing."""
    monkeypatch.setattr(containers, "lacking_for_lxd", lambda: None)
    assert lacking_for_containers(load(BASE + LINK + CONTAINED)) is None
    monkeypatch.setattr(containers, "lacking_for_lxd", lambda: "a private LXD needs the command x")
    said = str(lacking_for_containers(load(BASE + LINK + CONTAINED)))
    assert said.startswith('net: [[service]] s: isolation = "lxd": a private LXD needs the command')
    monkeypatch.setattr(containers, "is_rootless_here", lambda: True)
    said = str(lacking_for_containers(load(BASE + LINK + CONTAINED)))
    assert "user namespace of one user" in said and "sudo" in said
    assert lacking_for_containers(load(BASE + LINK + SERVICE)) is None


def test_an_image_that_cannot_be_built_is_said_in_a_line(
    load,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Topology, service and what the build said; one that could is not built twice."""
    topology = load(BASE + LINK + CONTAINED)
    (table,) = topology.file.service

    def fail(*_: object) -> None:
        raise ImageError("no mirror\n  tried: x\n")

    monkeypatch.setattr(containers, "vi_image", fail)
    with pytest.raises(TopologyError) as caught:
        Containers(topology, None, lambda text: None).build_image(table)
    assert str(caught.value) == "net: [[service]] s: no image of it: no mirror | tried: x"


def test_images_are_found_from_every_folder(
    load,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A controller's config lies elsewhere than where `--images` was typed."""
    asked: list[Path | None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(containers, "vi_image", lambda tell, folder, own: asked.append(folder))
    topology = load(BASE + LINK + CONTAINED)
    made = Containers(topology, Path("images"), lambda text: None)
    made.build_image(topology.file.service[0])
    made.build_image(topology.file.service[0])
    assert asked == [tmp_path / "images"], "and built once"


def test_a_report_says_what_held_whom(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Containers and child processes of a router are told apart; what is not in force is named."""
    inside = ProtectionInfo(name="filters", is_active=True, cost="", remedy="")
    lacking = ProtectionInfo(name="AppArmor", is_active=False, cost="x", remedy="y")
    monkeypatch.setattr(experiment, "protections_at", lambda place: [inside, lacking])
    file = load(BASE + LINK + CONTAINED + SERVICE.replace('"s"', '"t"')).file
    network = SimpleNamespace(file=file, places={"r": None})
    processes, contained = experiment.protections_of(cast(Network, network))
    assert processes.startswith("Services that ran as child processes") and ": t. " in processes
    assert contained.endswith("at r: s. In force: filters. Not in force: AppArmor.")


def test_one_user_in_a_user_namespace_is_seen() -> None:
    """Where `become_root_here` was called, and only there; the keeper has one thread before, as the
    kernel wants it."""
    script = (
        "import sys; from pathlib import Path\n"
        "import packetcloud.testbed.topology.keeper\n"
        "from packetcloud.testbed.topology.rootless import become_root_here, is_rootless_here\n"
        "before = is_rootless_here(); become_root_here(Path(sys.argv[1]))\n"
        "print(before, is_rootless_here())"
    )
    command = [sys.executable, "-c", script, "/tmp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "cannot be made here" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_faults_overlap_and_end(load) -> None:  # type: ignore[no-untyped-def]
    """What holds at a moment is the link's shape with all faults that last, and then the shape."""
    faults = (
        '[[fault]]\nafter = 1\nlasts = 4\nlink = ["a", "r"]\nloss = "10%"\n'
        '[[fault]]\nafter = 2\nlasts = 1\nlink = ["r", "a"]\ndown = true\n'
        '[[fault]]\nafter = 2\nkill = "r"\n'
    )
    topology = load(BASE + LINK + 'rate = "10mbit"\n' + faults)
    events = schedule(topology.file.fault)
    assert [(event.at_s, event.begins) for event in events] == [
        (1.0, True),
        (2.0, True),
        (2.0, True),
        (3.0, False),
        (5.0, False),
    ]
    assert [str(event) for event in events][1:4] == [
        "r-a goes down",
        "r is killed",
        "r-a is well again",
    ]
    link = topology.links[0]
    losses = [
        link.harmed_by(lasting(events[: count + 1], frozenset("ar")))[0].loss
        for count in range(len(events))
    ]
    assert losses == [0.1, 1.0, 1.0, 0.1, 0.0]


def test_only_marked_processes_of_a_user_namespace_are_a_dead_keepers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its number may be another's by now: that one's processes do not bear the keeper's name."""
    own = user_namespace_of(os.getpid())
    assert own is not None
    command = [sys.executable, "-c", "print(flush=True); input()"]
    monkeypatch.setenv(KEEPER_VARIABLE, "1-2")
    # Its environment can be read once it runs, a moment after it was started.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert Marked(own, "1-2").holds(child.pid)
        assert not Marked(own, "1-3").holds(child.pid)
        assert not Marked(own + 1, "1-2").holds(child.pid)
    finally:
        child.communicate(b"\n", timeout=20)
    assert not Marked(own, "1-2").holds(child.pid)
