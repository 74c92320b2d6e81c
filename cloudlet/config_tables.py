"""The tables of the cloudlet's config file: what each may say, and what goes together.

Source: docs/reference/cloudlet-config.md.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from packetcloud.chunk.toml_files import TomlTable
from packetcloud.cloudlet.core.placement import POLICIES
from packetcloud.cloudlet.domain_link.settings import DomainTable
from packetcloud.cloudlet.egress import MAX_LISTEN_COUNT, MAX_PLACES_COUNT, MAX_RESOLVERS_COUNT
from packetcloud.cloudlet.images.store import DEFAULT_FOLDER
from packetcloud.cloudlet.limits import MAX_IO_PER_S
from packetcloud.cloudlet.policy import DATA_MTU
from packetcloud.cloudlet.router_bounds import (
    MAX_ALL_DESTINATIONS_COUNT,
    MAX_DESTINATIONS_COUNT,
    MAX_NA,
    MAX_SERVICES_COUNT,
    MAX_SLOTS_COUNT,
)
from packetcloud.router.cloudlet_schemas import InspectionItem, Ratio, VerdictWord
from packetcloud.services.launch_files import MAX_FILES_COUNT

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,20}$")]
_ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_Device = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
_Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
_OwnPort = Annotated[int, Field(ge=1024, le=65535, strict=True)]
_ClosedNetwork = IPv4Network | IPv6Network
MAX_STANDBYS_COUNT = 64
"""Each keeps some 100 MiB of a node."""


class CloudletTable(TomlTable):
    """`[cloudlet]`: the controller itself."""

    name: _Name
    state: Path
    """Folder of its database."""
    api_listen: str = "127.0.0.1:4780"
    control_port: _Port = 4790
    isp_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    placement: Literal["least-loaded", "spread", "packed"] = "least-loaded"
    catalogue: Path | None = None
    images: Path = DEFAULT_FOLDER
    """Where `packetcloud image build` puts images."""
    node_lost_s: Annotated[float, Field(ge=2, le=3600)] = 10.0
    migration_limit_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    hold_limit_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    boot_vcpu: Annotated[float, Field(ge=0, le=64)] = 1.0
    """What a VI may have of its node's processors until it is ready, where nobody reserved them."""
    boot_read_mib_s: Annotated[int, Field(ge=1, le=1 << 16, strict=True)] = 1000


class RouterTable(TomlTable):
    """`[router]`: the router that this cloudlet belongs to."""

    url: str = "http://127.0.0.1:4701"
    port: _Port = 4700
    """Where it listens for VIs, on this machine's address of the data network."""
    guid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Of the router; VIs attach to no other. Absent: whichever answers there."""
    token_file: Path | None = None
    """What the router wants to see of who writes its table, where its API is not on loopback."""


class NetworkTable(TomlTable):
    """`[network]`: the two bridges."""

    data_bridge: _Device = "pcdata0"
    control_bridge: _Device = "pccontrol0"
    data_ipv4: IPv4Network = IPv4Network("10.210.0.0/20")
    data_ipv6: IPv6Network = IPv6Network("fd5a:7c1e:210::/64")
    control_ipv4: IPv4Network = IPv4Network("10.211.0.0/20")
    control_ipv6: IPv6Network = IPv6Network("fd5a:7c1e:211::/64")
    filter_table: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")] = (
        "packetcloud"
    )
    data_device: _Device | None = None
    """Of this machine, behind which nodes on other machines have their data bridge."""
    control_device: _Device | None = None
    """And their control bridge."""
    tunnel_address: IPv4Address | IPv6Address | None = None
    """This machine's, for tunnels to nodes on other machines."""
    tunnel_port: _Port = 4794
    tunnel_number: Annotated[int, Field(ge=1, le=(1 << 24) - 2, strict=True)] = 4794
    """VXLAN network identifier of the data bridges; the control bridges have the next one."""
    tunnel_mtu: Annotated[int, Field(ge=1280, le=DATA_MTU, strict=True)] = 1430
    """What the machines' network takes in one piece, less VXLAN's 70 bytes."""
    egress_device: _Device | None = None
    """Of this machine, by which VIs with an `egress` of their service reach the IP network."""
    egress_bridge: _Device = "pcegress0"
    egress_ipv4: IPv4Network = IPv4Network("10.212.0.0/20")
    egress_ipv6: IPv6Network = IPv6Network("fd5a:7c1e:212::/64")
    egress_never: Annotated[tuple[_ClosedNetwork, ...], Field(max_length=MAX_PLACES_COUNT)] = ()
    """Networks that no VI reaches, besides those that are closed anyway."""
    egress_forward_ipv6: bool = False
    """Whether this machine may become a router of IPv6, which the kernel makes of it as a whole."""

    @model_validator(mode="after")
    def _both_devices(self) -> Self:
        if (self.data_device is None) != (self.control_device is None):
            raise ValueError("allowed: data_device and control_device, or none of them")
        return self


class NodeTable(TomlTable):
    """`[[node]]`: an LXD server or cluster, or child processes of this machine."""

    isolation: Literal["lxd", "process"] = "lxd"
    """`process`: VIs are child processes, for trying things out: no boundary."""
    name: _Name | None = None
    """Of a server of its own; the members of a cluster have the names that they have there."""
    socket: Path | None = None
    url: str | None = None
    server_certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    pool: str = "default"
    disk_quota: bool = True
    """Whether the pool holds a root to its size; LXD's `dir` cannot."""
    io_per_s: Annotated[int, Field(ge=0, le=MAX_IO_PER_S, strict=True)] = 0
    """Reads and writes of its disk that VIs may reserve together; LXD does not measure that."""
    tunnel_address: IPv4Address | IPv6Address | None = None
    """Of its machine, where that is another: its end of the tunnels."""
    data_device: _Device | None = None
    """Of its machine, behind which the controller's has its data bridge."""
    control_device: _Device | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        devices = (self.data_device, self.control_device)
        if any(devices) and (not all(devices) or self.tunnel_address is not None):
            raise ValueError(
                "allowed: tunnel_address, or data_device and control_device, or none of them"
            )
        if self.socket is not None and (any(devices) or self.tunnel_address is not None):
            raise ValueError("a node with a socket is on this machine: no tunnel, no devices")
        return self

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        over_https = (self.url, self.server_certificate, self.client_certificate, self.client_key)
        if self.isolation == "process":
            if self.model_fields_set - {"isolation", "name", "io_per_s"}:
                raise ValueError('isolation = "process" allows no other key than name and io_per_s')
            return self
        if self.socket is None and not all(over_https):
            raise ValueError(
                "allowed: socket, or url with server_certificate, client_certificate and client_key"
            )
        if self.socket is not None and any(over_https):
            raise ValueError("allowed: either socket or url, not both")
        return self


class ScalingTable(TomlTable):
    """`scaling` of a service: when it gets one VI more, or gives one up."""

    up_wait_s: Annotated[float, Field(gt=0, le=600)] = 0.5
    up_penalty_s: Annotated[float, Field(gt=0, le=600)] | None = None
    up_after_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    down_busy_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    down_after_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    pause_s: Annotated[float, Field(ge=0, le=3600)] = 10.0


class ConductTable(TomlTable):
    """`conduct` of a service: what its VIs may do before they are restricted, and stopped."""

    restrict_violations: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 10
    stop_violations: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 100
    window_s: Annotated[float, Field(gt=0, le=86400)] = 60.0
    restrict_s: Annotated[float, Field(gt=0, le=86400)] = 600.0
    max_restrictions: Annotated[int, Field(ge=0, le=1000, strict=True)] = 3


class EgressTable(TomlTable):
    """`egress` of a service: what its VIs may do in the IP network; left out, nothing."""

    allow: Annotated[tuple[str, ...], Field(max_length=MAX_PLACES_COUNT)] = ()
    """`NETWORK:PORTS`, TCP."""
    dangerously_allow_internal: Annotated[tuple[str, ...], Field(max_length=MAX_PLACES_COUNT)] = ()
    """The same of networks that are closed otherwise: private ones, and this machine."""
    resolvers: Annotated[
        tuple[IPv4Address | IPv6Address, ...], Field(max_length=MAX_RESOLVERS_COUNT)
    ] = ()
    """Whom its VIs ask for names; none: they know no names."""
    connections: Annotated[int, Field(ge=1, le=65536, strict=True)] = 256
    """Of a VI at once."""
    connections_per_s: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 50
    mib_per_s: Annotated[int, Field(ge=1, le=4000, strict=True)] | None = None
    """Bytes of a VI, each way; None: as the machine can."""
    denied_per_violation: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 100
    """So many denied tries are a violation; 0: they are none."""


class ServiceTable(TomlTable):
    """`[[service]]`: a service and its bounds."""

    manifest: str
    """A bundled service's name, or a file."""
    key: Path
    name: _ServiceName | None = None
    """Of the service here; absent: the manifest's. Two of one manifest need different ones."""
    image: Annotated[tuple[Path, ...], Field(max_length=2)] = ()
    """Files of its image, instead of the newest that was built of its code: one tarball, or
    metadata and root file system."""
    vi_type: str = "small"
    replicas_min: Annotated[int, Field(ge=0, le=MAX_SLOTS_COUNT, strict=True)] = 1
    replicas_max: Annotated[int, Field(ge=1, le=MAX_SLOTS_COUNT, strict=True)] = 1
    standbys: Annotated[int, Field(ge=0, le=MAX_STANDBYS_COUNT, strict=True)] = 0
    """VIs that wait for a launch."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    grace_s: Annotated[float, Field(ge=0, le=86400)] = 10.0
    max_attempts: Annotated[int, Field(ge=1, le=1000, strict=True)] = 5
    """VIs that may fail over one chunk."""
    rules_from: Literal["isp", "anyone"] = "isp"
    owner: _TenantName | None = None
    """The tenant; absent: the ISP itself."""
    settings: Annotated[dict[str, str | int | float | bool], Field(default_factory=dict)]
    files: Annotated[dict[str, Path], Field(default_factory=dict, max_length=MAX_FILES_COUNT)]
    """Files for parameters of type path: its VIs get their content over the control link."""
    max_output_ratio: Annotated[float, Field(ge=0, le=1000)] | None = None
    allowed_destinations: (
        Annotated[
            list[str | Annotated[int, Field(ge=1, le=MAX_NA, strict=True)]],
            Field(max_length=MAX_DESTINATIONS_COUNT),
        ]
        | None
    ) = None
    output_bytes_ratio: Ratio | None = None
    """Bytes that a VI may send for each that it gets, over time; None: any."""
    output_chunks_ratio: Ratio | None = None
    verdicts: Annotated[tuple[VerdictWord, ...], Field(min_length=1)] | None = None
    """Instead of those that its manifest declares."""
    inspect: InspectionItem | None = None
    """None: nobody looks."""
    egress: EgressTable = EgressTable()
    listen: Annotated[dict[str, _OwnPort], Field(default_factory=dict, max_length=MAX_LISTEN_COUNT)]
    """TCP port of a VI by port of its node."""
    scaling: ScalingTable = ScalingTable()
    conduct: ConductTable = ConductTable()

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.replicas_min > self.replicas_max:
            raise ValueError(
                f"replicas_min = {self.replicas_min} is more than replicas_max = "
                f"{self.replicas_max}"
            )
        return self


class CloudletFile(TomlTable):
    """A whole file."""

    cloudlet: CloudletTable
    router: RouterTable = RouterTable()
    network: NetworkTable = NetworkTable()
    domain: DomainTable | None = None
    node: Annotated[tuple[NodeTable, ...], Field(min_length=1, max_length=64)]
    service: Annotated[tuple[ServiceTable, ...], Field(max_length=MAX_SERVICES_COUNT)] = ()

    @property
    def has_processes(self) -> bool:
        """Tell whether VIs are child processes instead of containers."""
        return self.node[0].isolation == "process"

    @model_validator(mode="after")
    def _one_isolation(self) -> Self:
        if len(self.node) > 1 and any(one.isolation == "process" for one in self.node):
            raise ValueError(
                'a [[node]] has isolation = "process"; allowed: no other [[node]] beside it'
            )
        return self

    @model_validator(mode="after")
    def _tunnels_have_two_ends(self) -> Self:
        if self.network.tunnel_address is None and any(one.tunnel_address for one in self.node):
            raise ValueError("a [[node]] has tunnel_address; [network] tunnel_address is missing")
        return self

    @model_validator(mode="after")
    def _fits_into_an_update(self) -> Self:
        count = sum(len(one.allowed_destinations or ()) for one in self.service)
        if count > MAX_ALL_DESTINATIONS_COUNT:
            raise ValueError(
                f"{count} allowed_destinations of all services; allowed together: "
                f"{MAX_ALL_DESTINATIONS_COUNT}"
            )
        return self


assert set(POLICIES) == {"least-loaded", "spread", "packed"}, "CloudletTable.placement names them"
