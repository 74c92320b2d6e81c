"""The domain controller's config file: what is read, and the settings made from it.

Source: docs/reference/domain-config.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from packetcloud.chunk.names import GUID
from packetcloud.chunk.toml_files import TomlFiles, TomlTable
from packetcloud.domain_controller.errors import DomainConfigError

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
AUTHORITY_PATTERN = r"^([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?$"
MAX_OPERATORS_COUNT = 64
MAX_AUTHORITIES_COUNT = 16
MAX_PASSWORD_BYTES = 4096
DEFAULT_LISTEN = "127.0.0.1:4800"
_FILES = TomlFiles(DomainConfigError, "packetcloud domain sample")
_DEFAULT_PORTS = {False: 80, True: 443}

_Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class DomainTable(TomlTable):
    """`[domain]`: the domain and what it keeps."""

    name: _Name
    """Proofs of SIDs name it."""
    database: str = "domain-state/domain.sqlite3"
    """A file for SQLite, or a URL of PostgreSQL."""
    password_file: Path | None = None
    """The password of PostgreSQL's user, where the URL has none."""
    price_lists: Annotated[tuple[Path, ...], Field(max_length=256)] = ()


class ApiTable(TomlTable):
    """`[api]`: where requests come in."""

    listen: str = DEFAULT_LISTEN
    names: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=AUTHORITY_PATTERN)], ...],
        Field(max_length=MAX_AUTHORITIES_COUNT),
    ] = ()
    """`host:port`, or `host`, as clients write it in their URLs."""
    certificate: Path | None = None
    key: Path | None = None
    plain_http: Literal["loopback", "anywhere"] = "loopback"
    """`anywhere`: something before it does TLS."""
    metrics_listen: str = "127.0.0.1:4801"
    max_requests: Annotated[int, Field(ge=16, le=65536, strict=True)] = 2048
    max_event_streams: Annotated[int, Field(ge=1, le=4096, strict=True)] = 256

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("allowed: both certificate and key, or neither")
        return self


class ChannelTable(TomlTable):
    """`[channel]`: cloudlets' channels."""

    max_cloudlets: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 2048
    report_every_ms: Annotated[int, Field(ge=100, le=30_000, strict=True)] = 5000
    """A cloudlet whose report is older than 30 s gets nothing new."""


class OperatorTable(TomlTable):
    """`[[operator]]`: somebody of the ISP's, or who audits it."""

    name: _Name
    role: Literal["isp", "auditor"] = "isp"
    public_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """As `packetcloud identity show` prints it."""


class DomainFile(TomlTable):
    """A whole file."""

    domain: DomainTable
    api: ApiTable = ApiTable()
    channel: ChannelTable = ChannelTable()
    operator: Annotated[
        tuple[OperatorTable, ...], Field(min_length=1, max_length=MAX_OPERATORS_COUNT)
    ]


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """A checked config file."""

    path: Path
    file: DomainFile
    listen: tuple[str, int]
    metrics_listen: tuple[str, int]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `path`; relative paths are relative to its folder.

        Raises:
            DomainConfigError: names file, table and key, and says what is allowed.
        """
        file = _FILES.read(path, DomainFile)
        try:
            listen = split_address(file.api.listen, "[api] listen")
            metrics = split_address(file.api.metrics_listen, "[api] metrics_listen")
            _check_plain_http(file.api, listen[0])
            _check_operators(file.operator)
        except DomainConfigError as error:
            raise DomainConfigError(f"{path}: {error}") from None
        config = cls(path, file, listen, metrics)
        for key, one in (("certificate", file.api.certificate), ("key", file.api.key)):
            if one is not None and not config.within(one).is_file():
                raise DomainConfigError(
                    f"{path}: [api] {key} = {str(one)!r}: there is no such file; allowed: a file "
                    "in PEM"
                )
        return config

    def within(self, path: Path) -> Path:
        """Return a path of the file as one that can be opened."""
        return self.path.absolute().parent / path

    @property
    def has_tls(self) -> bool:
        return self.file.api.certificate is not None

    @property
    def database_url(self) -> str:
        """The database as SQLAlchemy names it, without the password of a file."""
        text = self.file.domain.database
        if "://" in text:
            return text
        return f"sqlite:///{self.within(Path(text))}"

    @property
    def shown_database(self) -> str:
        """The database for people: without a password."""
        scheme, separator, rest = self.database_url.partition("://")
        user, at, place = rest.rpartition("@")
        return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}"

    def password(self) -> str | None:
        """Return what `password_file` holds.

        Raises:
            DomainConfigError: it cannot be read.
        """
        if self.file.domain.password_file is None:
            return None
        path = self.within(self.file.domain.password_file)
        try:
            with path.open(encoding="utf-8") as stream:
                return stream.read(MAX_PASSWORD_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise DomainConfigError(
                f"{self.path}: [domain] password_file: {path}: {reason}; allowed: a file that "
                "holds the password alone"
            ) from None

    def authorities(self, port: int) -> frozenset[str]:
        """Return what requests may name as their authority.

        Args:
            port: that it listens on, also where the file says 0.
        """
        default = _DEFAULT_PORTS[self.has_tls]
        named = self.file.api.names or _own_names(self.listen[0], port)
        # A client leaves the scheme's own port out of what it signs (RFC 9421, section 2.2.3).
        return frozenset(name.removesuffix(f":{default}") for name in named)


def sample_config() -> str:
    """Return a commented config with every key."""
    return files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def split_address(text: str, where: str) -> tuple[str, int]:
    """Split ADDRESS:PORT, an IPv6 address in brackets.

    Raises:
        DomainConfigError: names `where`.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
        if (address.version == 6) == (bare == host):
            raise ValueError
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise ValueError
    except ValueError:
        raise DomainConfigError(
            f"{where} = {text!r}: allowed: an address of this machine and a port, like "
            "127.0.0.1:4800 or [::1]:4800"
        ) from None
    return bare, int(port)


def _check_plain_http(api: ApiTable, host: str) -> None:
    is_plain = api.certificate is None and api.plain_http == "loopback"
    if is_plain and not ip_address(host).is_loopback:
        raise DomainConfigError(
            f"[api] listen = {api.listen!r}: plain HTTP is for loopback; allowed: certificate and "
            'key for TLS, or plain_http = "anywhere" where something before it does TLS'
        )


def _check_operators(operators: Iterable[OperatorTable]) -> None:
    guids = Counter(GUID.from_public_key(bytes.fromhex(one.public_key)).hex for one in operators)
    for what, counts in (("name", Counter(one.name for one in operators)), ("public_key", guids)):
        text, count = counts.most_common(1)[0]
        if count > 1:
            raise DomainConfigError(f"[[operator]] {what}: {text} stands there twice")
    if not any(one.role == "isp" for one in operators):
        raise DomainConfigError('[[operator]]: none has role = "isp"; allowed: at least one')


def _own_names(host: str, port: int) -> tuple[str, ...]:
    address = ip_address(host)
    shown = f"[{host}]" if address.version == 6 else host
    if address.is_loopback:
        return (f"{shown}:{port}", f"localhost:{port}")
    return (f"{shown}:{port}",)
