"""The cloudlet's config file: what is read, and the settings made from it.

Source: docs/reference/cloudlet-config.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from packetcloud.chunk.errors import PacketCloudError, ProtocolError
from packetcloud.chunk.identity import Identity, load_identity_file
from packetcloud.chunk.names import GUID
from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.core.placement import POLICIES
from packetcloud.cloudlet.core.values import (
    CloudletSettings,
    ConductPolicy,
    Resources,
    RestartPolicy,
    ScalingPolicy,
    ServiceWish,
)
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan, Transport
from packetcloud.cloudlet.images.store import DEFAULT_FOLDER
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.lxd.address import HttpsServer, LxdAddress, UnixSocket
from packetcloud.cloudlet.policy import CONTROL_MTU, DATA_MTU, NodeSite
from packetcloud.cloudlet.toml_files import TomlTable, read_toml
from packetcloud.cloudlet.vi_types import ViTypeCatalogue, load_catalogue
from packetcloud.services.addresses import parse_address
from packetcloud.services.catalogue import find_service
from packetcloud.services.launch import LaunchSpec
from packetcloud.services.manifest import Manifest
from packetcloud.services.plan import plan_launch

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,20}$")]
_Device = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
_Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
_HOST = 1
"""Number of this machine's own address in each network."""
_MIB = 1 << 20


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


class NodeTable(TomlTable):
    """`[[node]]`: an LXD server or cluster."""

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

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        over_https = (self.url, self.server_certificate, self.client_certificate, self.client_key)
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


class ServiceTable(TomlTable):
    """`[[service]]`: a service and its bounds."""

    manifest: str
    """A bundled service's name, or a file."""
    key: Path
    image: Annotated[tuple[Path, ...], Field(max_length=2)] = ()
    """Files of its image, instead of the newest that was built for it: one tarball, or metadata and
    root file system."""
    vi_type: str = "small"
    replicas_min: Annotated[int, Field(ge=0, le=1024, strict=True)] = 1
    replicas_max: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    grace_s: Annotated[float, Field(ge=0, le=86400)] = 10.0
    rules_from: Literal["isp", "anyone"] = "isp"
    owner: _Name | None = None
    """The tenant; absent: the ISP itself."""
    settings: Annotated[dict[str, str | int | float | bool], Field(default_factory=dict)]
    max_output_ratio: Annotated[float, Field(ge=0, le=1000)] | None = None
    allowed_destinations: list[str | int] | None = None
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
    node: Annotated[tuple[NodeTable, ...], Field(min_length=1, max_length=64)]
    service: Annotated[tuple[ServiceTable, ...], Field(max_length=1024)] = ()


@dataclass(frozen=True, slots=True)
class DeclaredService:
    """A service of the file with everything that was read for it."""

    table: ServiceTable
    manifest: Manifest
    identity: Identity
    spec: LaunchSpec
    manifest_path: Path

    @property
    def name(self) -> str:
        return self.manifest.service.name


@dataclass(frozen=True, slots=True)
class CloudletConfig:
    """A checked config file, and the files that it names."""

    path: Path
    file: CloudletFile
    catalogue: ViTypeCatalogue
    services: tuple[DeclaredService, ...]
    network: NetworkPlan
    token: str | None = field(default=None, repr=False)
    """For the router's table."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `path` and what it names; relative paths are relative to its folder.

        Raises:
            CloudletConfigError: names file, table and key, and says what is allowed.
        """
        file = read_toml(path, CloudletFile)
        folder = path.absolute().parent
        catalogue = load_catalogue(_within(folder, file.cloudlet.catalogue))
        try:
            network = _network_plan(file)
            parse_address(file.cloudlet.api_listen, "[cloudlet] api_listen")
            token = _token(_within(folder, file.router.token_file))
            services = tuple(_declared(folder, file, table, network) for table in file.service)
        except PacketCloudError as error:
            raise CloudletConfigError(f"{path}: {error}") from None
        problems = [
            *(_twice("services named", [one.name for one in services])),
            *(_twice("services with SID", [one.identity.sid.hex for one in services])),
        ]
        for one in services:
            if one.table.vi_type not in catalogue.types:
                known = ", ".join(catalogue.types)
                problems.append(
                    f"[[service]] {one.name}: vi_type = {one.table.vi_type!r}; types: {known}"
                )
        if problems:
            raise CloudletConfigError(f"{path}: {problems[0]}")
        return cls(path, file, catalogue, services, network, token)

    @property
    def state_folder(self) -> Path:
        return self.path.absolute().parent / self.file.cloudlet.state

    @property
    def images_folder(self) -> Path:
        return self.path.absolute().parent / self.file.cloudlet.images

    def image_files(self, service: DeclaredService) -> tuple[Path, ...]:
        """Return the files of a service's image; none: the file does not name them."""
        folder = self.path.absolute().parent
        return tuple(folder / one for one in service.table.image)

    def address_of(self, node: NodeTable) -> LxdAddress:
        """Return where an LXD server is.

        Raises:
            CloudletConfigError: a file that it needs is not there.
        """
        folder = self.path.absolute().parent
        if node.socket is not None:
            return UnixSocket(folder / node.socket)
        assert node.url is not None, "the model allows no other"
        files = [node.server_certificate, node.client_certificate, node.client_key]
        server, certificate, key = (folder / one for one in files if one is not None)
        address = HttpsServer(node.url, server, certificate, key)
        address.check()
        return address

    def site_of(self, node: NodeTable) -> NodeSite:
        network = self.file.network
        return NodeSite(
            node.pool, network.data_bridge, network.control_bridge, has_disk_quota=node.disk_quota
        )

    def settings(self, nodes: tuple[str, ...]) -> CloudletSettings:
        """Return what the core needs to know, with the nodes that were found."""
        table = self.file.cloudlet
        subnets = (self.network.data.subnet, self.network.control.subnet)
        stop = min(subnet.numbers().stop for subnet in subnets)
        return CloudletSettings(
            name=table.name,
            nodes=nodes,
            vi_types={name: resources_of(one.limits) for name, one in self.catalogue.types.items()},
            services=MappingProxyType({one.name: _wish(one) for one in self.services}),
            addresses=range(subnets[0].numbers().start, stop),
            isp_share=table.isp_share,
            migration_limit_s=table.migration_limit_s,
            hold_limit_s=table.hold_limit_s,
            node_lost_s=table.node_lost_s,
        )


def sample_config() -> str:
    """Return a commented config with every key."""
    return files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def resources_of(limits: Limits) -> Resources:
    """Return what a VI with these limits takes of its node."""
    return Resources(limits.vcpu, limits.memory_mib * _MIB, limits.disk_mib * _MIB)


def _network_plan(file: CloudletFile) -> NetworkPlan:
    table = file.network
    try:
        data = Subnet(table.data_ipv4, table.data_ipv6)
        control = Subnet(table.control_ipv4, table.control_ipv6)
    except CloudletConfigError as error:
        raise CloudletConfigError(f"[network] {error}") from None
    if data.ipv4.overlaps(control.ipv4) or data.ipv6.overlaps(control.ipv6):
        raise CloudletConfigError(
            "[network] data_ipv4, data_ipv6 and control_ipv4, control_ipv6 overlap; allowed: two "
            "networks of each"
        )
    if table.data_bridge == table.control_bridge:
        raise CloudletConfigError(
            f"[network] control_bridge = {table.control_bridge!r}: it is data_bridge as well; "
            "allowed: a bridge each"
        )
    return NetworkPlan(
        BridgePlan(
            table.data_bridge,
            data,
            DATA_MTU,
            Transport.UDP,
            data.ipv4[_HOST],
            data.ipv6[_HOST],
            file.router.port,
        ),
        BridgePlan(
            table.control_bridge,
            control,
            CONTROL_MTU,
            Transport.TCP,
            control.ipv4[_HOST],
            control.ipv6[_HOST],
            file.cloudlet.control_port,
        ),
        table.filter_table,
    )


def _declared(
    folder: Path, file: CloudletFile, table: ServiceTable, network: NetworkPlan
) -> DeclaredService:
    name = table.manifest
    if (folder / name).exists():
        name = str(folder / name)
    try:
        found = find_service(name)
        key = folder / table.key
        identity = load_identity_file(key)
        plan = plan_launch(
            found,
            {key: _text(value) for key, value in table.settings.items()},
            router=f"{network.data.peer_ipv4}:{network.data.peer_port}",
            key_file=key,
            router_guid=file.router.guid,
            private_links=(str(network.data.subnet.ipv4), str(network.data.subnet.ipv6)),
        )
    except PacketCloudError as error:
        raise CloudletConfigError(f"[[service]] {table.manifest}: {error}") from None
    except OSError as error:
        raise CloudletConfigError(
            f"[[service]] {table.manifest}: {error.filename}: {error.strerror}"
        ) from None
    try:
        for one in table.allowed_destinations or ():
            if isinstance(one, str):
                GUID.from_hex(one)
    except ProtocolError as error:
        raise CloudletConfigError(
            f"[[service]] {table.manifest}: allowed_destinations: {error}; allowed: GUIDs of 40 "
            "hexadecimal digits, and NAs as numbers"
        ) from None
    return DeclaredService(table, found.manifest, identity, plan.spec, found.path)


def _wish(one: DeclaredService) -> ServiceWish:
    table, manifest = one.table, one.manifest
    behaviour, supervision = manifest.behaviour, manifest.supervision
    entry: dict[str, object] = {
        "name": one.name,
        "priority": table.priority,
        "fail_policy": behaviour.fail_policy,
        "deadline_ms": behaviour.deadline_ms,
        "grace_s": table.grace_s,
        "rules_from": table.rules_from,
    }
    if table.max_output_ratio is not None:
        entry["max_output_ratio"] = table.max_output_ratio
    if table.allowed_destinations is not None:
        entry["allowed_destinations"] = table.allowed_destinations
    return ServiceWish(
        name=one.name,
        sid=one.identity.sid.hex,
        vi_type=table.vi_type,
        replicas_min=table.replicas_min,
        replicas_max=table.replicas_max,
        owner=table.owner,
        has_state=behaviour.state == "export",
        router_entry=MappingProxyType(entry),
        restart=RestartPolicy(**supervision.model_dump()),
        scaling=ScalingPolicy(**table.scaling.model_dump()),
        conduct=ConductPolicy(**table.conduct.model_dump()),
        hang_s=max(10.0, 2 * behaviour.deadline_ms / 1000),
    )


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "it is not ASCII"
        raise CloudletConfigError(
            f"[router] token_file: {path}: {text}; allowed: the file that the router's "
            "[cloudlet] token_file names, or a copy"
        ) from None


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _within(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path


def _twice(what: str, names: list[str]) -> list[str]:
    counts = Counter(names).most_common(1)
    return [f"two {what} {name}" for name, count in counts if count > 1]


assert set(POLICIES) == {"least-loaded", "spread", "packed"}, "CloudletTable.placement names them"
