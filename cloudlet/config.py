"""The cloudlet's config file: what is read, and the settings made from it.

Source: docs/reference/cloudlet-config.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType
from typing import Self

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.chunk.toml_files import TomlFiles
from packetcloud.cloudlet.addresses import Subnet
from packetcloud.cloudlet.config_tables import CloudletFile, NetworkTable, NodeTable
from packetcloud.cloudlet.containers import ImageFiles
from packetcloud.cloudlet.core.values import (
    CloudletSettings,
    Resources,
)
from packetcloud.cloudlet.declared_services import DeclaredService, declare, wish_of
from packetcloud.cloudlet.domain_link.settings import DomainSettings
from packetcloud.cloudlet.egress_config import with_egress
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.far_network import far_end, with_ports, with_tunnels
from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan, Transport
from packetcloud.cloudlet.limits import Limits
from packetcloud.cloudlet.lxd.address import HttpsServer, LxdAddress, UnixSocket
from packetcloud.cloudlet.policy import CONTROL_MTU, DATA_MTU, NodeSite
from packetcloud.cloudlet.router_bounds import (
    MIN_DEADLINE_MS,
)
from packetcloud.cloudlet.tunnels import TunnelWish
from packetcloud.cloudlet.vi_types import ViTypeCatalogue, load_catalogue
from packetcloud.services.addresses import parse_address

_FILES = TomlFiles(CloudletConfigError, "packetcloud cloudlet sample")
_HOST = 1
"""Number of this machine's own address in each network."""
_LOOPBACK = "127.0.0.1"
"""Where child processes find router and controller: they have no network of their own."""
_MIB = 1 << 20


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
    domain: DomainSettings | None = None
    """The domain controller; None: nobody sells this cloudlet's places."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `path` and what it names; relative paths are relative to its folder.

        Raises:
            CloudletConfigError: names file, table and key, and says what is allowed.
        """
        file = _FILES.read(path, CloudletFile)
        folder = path.absolute().parent
        catalogue = load_catalogue(_within(folder, file.cloudlet.catalogue))
        try:
            network = _network_plan(file)
            parse_address(file.cloudlet.api_listen, "[cloudlet] api_listen")
            token = _token(_within(folder, file.router.token_file))
            domain = (
                DomainSettings.of(file.domain, folder, file.cloudlet.name)
                if file.domain is not None
                else None
            )
            services = tuple(declare(folder, file, table, network) for table in file.service)
            network = with_egress(file, network, (one.egress for one in services))
        except PacketCloudError as error:
            raise CloudletConfigError(f"{path}: {error}") from None
        problems = [
            *(_too_short(one) for one in services if one.deadline_ms < MIN_DEADLINE_MS),
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
        return cls(path, file, catalogue, services, network, token, domain)

    @property
    def state_folder(self) -> Path:
        return self.path.absolute().parent / self.file.cloudlet.state

    @property
    def router_host(self) -> str:
        """Where VIs find the router."""
        return _LOOPBACK if self.file.has_processes else str(self.network.data.peer_ipv4)

    @property
    def control_host(self) -> str:
        """Where VIs find the controller."""
        return _LOOPBACK if self.file.has_processes else str(self.network.control.peer_ipv4)

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

    def far_network(self, node: NodeTable) -> NetworkPlan | None:
        """Return the network of a node on another machine; None: it is not said how that is
        joined with this one."""
        table = self.file.network
        if node.tunnel_address is not None:
            assert table.tunnel_address is not None, "the model sees to it"
            wish = _tunnel_wish(table, node.tunnel_address, (table.tunnel_address,))
            return far_end(self.network, wish)
        if node.data_device is not None and node.control_device is not None:
            return far_end(self.network, (node.data_device, node.control_device))
        return None

    def site_of(self, node: NodeTable) -> NodeSite:
        network = self.file.network
        return NodeSite(
            node.pool,
            network.data_bridge,
            network.control_bridge,
            has_disk_quota=node.disk_quota and node.isolation == "lxd",
            io_per_s=node.io_per_s,
            egress_bridge=(
                self.network.egress.name
                if self.network.egress is not None and node.socket is not None
                else None
            ),
            is_here=node.socket is not None,
        )

    def settings(
        self,
        nodes: tuple[str, ...],
        images: Mapping[str, ImageFiles],
        egress_nodes: frozenset[str] | None = None,
    ) -> CloudletSettings:
        """Return what the core needs to know, with the nodes and images that were found.

        Args:
            images: by the name of the service.
            egress_nodes: those from which VIs reach the IP network; None: all.
        """
        table = self.file.cloudlet
        subnets = [self.network.data.subnet, self.network.control.subnet]
        if self.network.egress is not None:
            subnets.append(self.network.egress.subnet)
        stop = min(subnet.numbers().stop for subnet in subnets)
        return CloudletSettings(
            name=table.name,
            nodes=nodes,
            vi_types={
                name: resources_of(one.limits, one.io_per_s)
                for name, one in self.catalogue.types.items()
            },
            reads_mib_s={
                name: one.limits.disk_read_mib_s for name, one in self.catalogue.types.items()
            },
            services=MappingProxyType(
                {
                    one.name: wish_of(one, images.get(one.name), egress_nodes)
                    for one in self.services
                }
            ),
            addresses=range(subnets[0].numbers().start, stop),
            isp_share=table.isp_share,
            migration_limit_s=table.migration_limit_s,
            hold_limit_s=table.hold_limit_s,
            boot_cpus=table.boot_vcpu,
            boot_read_mib_s=table.boot_read_mib_s,
            node_lost_s=table.node_lost_s,
            name_at_domain=self.domain.name if self.domain is not None else "",
        )


def sample_config() -> str:
    """Return a commented config with every key."""
    return files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def resources_of(limits: Limits, io_per_s: int = 0) -> Resources:
    """Return what a VI with these limits takes of its node."""
    return Resources(limits.vcpu, limits.memory_mib * _MIB, limits.disk_mib * _MIB, io_per_s)


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
    plan = NetworkPlan(
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
    remotes = tuple(one.tunnel_address for one in file.node if one.tunnel_address is not None)
    if remotes:
        assert table.tunnel_address is not None, "the model sees to it"
        plan = with_tunnels(plan, _tunnel_wish(table, table.tunnel_address, remotes))
    return with_ports(plan, table.data_device, table.control_device)


def _tunnel_wish(
    table: NetworkTable,
    local: IPv4Address | IPv6Address,
    remotes: tuple[IPv4Address | IPv6Address, ...],
) -> TunnelWish:
    return TunnelWish(local, remotes, table.tunnel_port, table.tunnel_number, table.tunnel_mtu)


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


def _within(folder: Path, path: Path | None) -> Path | None:
    return None if path is None else folder / path


def _too_short(service: DeclaredService) -> str:
    return (
        f"[[service]] {service.name}: {service.manifest_path}: [behaviour] deadline_ms = "
        f"{service.deadline_ms}; a router allows {MIN_DEADLINE_MS} to 3600000"
    )


def _twice(what: str, names: list[str]) -> list[str]:
    counts = Counter(names).most_common(1)
    return [f"two {what} {name}" for name, count in counts if count > 1]
