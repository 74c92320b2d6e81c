"""The program that makes another machine a node of a cloudlet: sh, to be run there as root.

It makes what is missing, may be run again at any time, and needs nothing of ours on that machine.
Source: docs/how-to/add-a-node.md.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.config_tables import NodeTable
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.filters import BridgePlan, NetworkPlan, table_script
from packetcloud.cloudlet.lxd.project import PROJECT, PROJECT_CONFIG

_DEFAULT_PORT = 8443


@dataclass(frozen=True, slots=True)
class LxdWish:
    """What the LXD server of a node needs to have."""

    pool: str
    port: int
    """Where it listens, if it does not listen anywhere."""
    certificate: str
    """The controller's, as PEM: the server trusts it."""
    certificate_name: str


def node_script(
    node: str, network: NetworkPlan, lxd: LxdWish | None, *, only_check: bool = False
) -> str:
    """Return the program.

    Args:
        lxd: None: its LXD is somebody else's to prepare.
        only_check: nothing is changed; exit code 1 if something is missing.
    """
    parts = [
        "#!/bin/sh",
        f"# Makes this machine node {node} of a cloudlet, or says what is missing. Run it as root,",
        "# again after each start of the machine, and whenever the cloudlet's file changed.",
        f"only_check={'yes' if only_check else 'no'}",
        f"needs_lxc={'' if lxd is None else 'lxc'}",
        files(__package__).joinpath("node_script.sh").read_text(encoding="utf-8"),
        _with_input(f"filters {network.table}", table_script(network)),
        *(line for bridge in (network.data, network.control) for line in _bridge(bridge)),
    ]
    if lxd is not None:
        settings = "\n".join(f"{key} {value}" for key, value in PROJECT_CONFIG.items())
        parts += [
            f"pool {shlex.quote(lxd.pool)}",
            _with_input(f"project {PROJECT}", settings),
            f"listen {lxd.port}",
            _with_input(
                f"trust {_fingerprint(lxd.certificate)} {shlex.quote(lxd.certificate_name)}",
                lxd.certificate,
            ),
            "certificate",
        ]
    return "\n".join([*parts, "exit $missing", ""])


def script_for(
    config: CloudletConfig, name: str, *, with_lxd: bool = True, only_check: bool = False
) -> str:
    """Return the program for a node that a config declares.

    Raises:
        CloudletConfigError: there is no such node, or its table does not say enough.
    """
    table = next((one for one in config.file.node if one.name == name), None)
    if table is None:
        names = ", ".join(one.name for one in config.file.node if one.name) or "none"
        raise CloudletConfigError(f"{config.path}: no [[node]] named {name!r}; named: {names}")
    if table.socket is not None:
        raise CloudletConfigError(
            f"{config.path}: [[node]] {name} has a socket: it is on the controller's machine, "
            "where `packetcloud cloudlet run` prepares everything"
        )
    network = config.far_network(table)
    if network is None:
        raise CloudletConfigError(
            f"{config.path}: [[node]] {name} does not say how its bridges reach this machine; "
            "allowed: tunnel_address, or data_device and control_device"
        )
    lxd = _lxd_wish(config, table) if with_lxd else None
    return node_script(name, network, lxd, only_check=only_check)


def _lxd_wish(config: CloudletConfig, table: NodeTable) -> LxdWish:
    assert table.url is not None and table.client_certificate is not None, "the model says so"
    path = config.path.absolute().parent / table.client_certificate
    try:
        text = path.read_text(encoding="ascii")
        _fingerprint(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no certificate in PEM"
        raise CloudletConfigError(
            f"{config.path}: [[node]] {table.name} client_certificate: {path}: {why}; make one: "
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -days 3650 "
            "-subj /CN=cloudlet -keyout client.key -out client.crt"
        ) from None
    port = urlsplit(table.url).port or _DEFAULT_PORT
    return LxdWish(table.pool, port, text, f"packetcloud-{config.file.cloudlet.name}")


def _bridge(plan: BridgePlan) -> list[str]:
    assert plan.uplink is not None, "router and controller are on another machine"
    lines = []
    if (tunnel := plan.tunnel) is not None:
        (remote,) = tunnel.remotes
        words = (tunnel.device, tunnel.number, tunnel.local, remote, tunnel.port, tunnel.mtu)
        lines.append(f"tunnel {' '.join(map(str, words))}")
    return [*lines, f"bridge {plan.name} {plan.mtu} {plan.uplink}"]


def _with_input(command: str, text: str) -> str:
    return f"{command} <<'PACKETCLOUD'\n{text.rstrip()}\nPACKETCLOUD"


def _fingerprint(certificate: str) -> str:
    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(SHA256()).hex()
