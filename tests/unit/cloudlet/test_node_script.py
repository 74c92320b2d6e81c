"""What `node prepare` prints: of which node, and which mistakes it names."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from packetcloud.cloudlet.config import CloudletConfig
from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.lxd.project import PROJECT_CONFIG
from packetcloud.cloudlet.node_script import script_for

CONFIG = """\
[cloudlet]
name = "c1"
state = "state"
[network]
tunnel_address = "192.0.2.1"
[[node]]
name = "n1"
socket = "s"
[[node]]
name = "n2"
url = "https://192.0.2.2:8444"
server_certificate = "n2.crt"
client_certificate = "client.crt"
client_key = "client.key"
tunnel_address = "192.0.2.2"
[[node]]
name = "n3"
url = "https://192.0.2.3:8443"
server_certificate = "n3.crt"
client_certificate = "client.crt"
client_key = "client.key"
"""


def _config(folder: Path, text: str = CONFIG) -> CloudletConfig:
    (folder / "c1.toml").write_text(text)
    return CloudletConfig.load(folder / "c1.toml")


def _certificate() -> bytes:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "c1")])
    begin = datetime.datetime(2024, 1, 1)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
    )
    return built.sign(key, None).public_bytes(Encoding.PEM)


def test_it_is_a_program_for_sh(tmp_path: Path) -> None:
    """With the node's own end of the tunnels, the pool, the port and the trust."""
    (tmp_path / "client.crt").write_bytes(_certificate())
    config = _config(tmp_path)
    whole = script_for(config, "n2")
    check = script_for(config, "n2", only_check=True)
    network = script_for(config, "n2", with_lxd=False)
    for script in (whole, check, network):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        assert "\ntunnel pcdata0-vx 4794 192.0.2.2 192.0.2.1 4794 1430\n" in script
        assert "\nbridge pccontrol0 1500 pccontrol0-vx\n" in script
    assert "only_check=no\n" in whole and "only_check=yes\n" in check
    assert "\nlisten 8444\n" in whole and "\nlisten 8444\n" not in network
    assert all(f"\n{key} {value}\n" in whole for key, value in PROJECT_CONFIG.items())
    assert (tmp_path / "client.crt").read_text() in whole


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n9", r"no \[\[node\]\] named 'n9'; named: n1, n2, n3"),
        ("n1", "has a socket: it is on the controller's machine"),
        ("n2", r"client_certificate: .*client\.crt: No such file.*openssl req"),
        ("n3", "does not say how its bridges reach this machine; allowed: tunnel_address"),
    ],
)
def test_what_it_cannot_be_made_for(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(CloudletConfigError, match=words):
        script_for(_config(tmp_path), name)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "client.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    with pytest.raises(CloudletConfigError, match="no certificate in PEM"):
        script_for(_config(tmp_path), "n2")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('tunnel_address = "192.0.2.1"\n', "", "tunnel_address is missing"),
        ('"192.0.2.2"\n', '"192.0.2.2"\ndata_device = "e"\n', "allowed: tunnel_address, or"),
        ('"192.0.2.2"\n', '"2001:db8::2"\n', "two addresses of the same kind"),
        ('socket = "s"\n', 'socket = "s"\ntunnel_address = "192.0.2.9"\n', "on this machine"),
        ("[network]\n", '[network]\ndata_device = "e"\n', "data_device and control_device"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in CONFIG
    with pytest.raises(CloudletConfigError, match=words):
        _config(tmp_path, CONFIG.replace(old, new))
