"""The config file of a router: TOML in, checked settings out.

Every mistake is one sentence that names file, table, key and what is allowed there.
Source: docs/reference/router-config.md.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from packetcloud.chunk.errors import ProtocolError
from packetcloud.chunk.header import DEFAULT_MAX_PAYLOAD_BYTES
from packetcloud.chunk.hop.api import HopConfig
from packetcloud.chunk.hop.lane_place import lane_folder
from packetcloud.chunk.hop.suites import parse_networks
from packetcloud.chunk.identity import Identity, load_identity_file
from packetcloud.chunk.names import GUID, NA, PUBLIC_KEY_BYTES, SID, SID_SEQUENCE, SID_ZERO
from packetcloud.router.errors import RouterConfigError
from packetcloud.router.settings import (
    MIB,
    FailPolicy,
    RouterNeighbour,
    RouterSettings,
    RuleSettings,
    RulesFrom,
    ServiceSettings,
    SpoolSettings,
)

MAX_CONFIG_BYTES = 16 << 20
"""100 000 names are 8 MiB; a larger file is a mistake."""
MIN_TOKEN_COUNT = 32
"""Characters of a token: more than anybody can try."""
BODY_HEADROOM_BYTES = 2048
"""Above the largest payload: the chunk header, a task header, and what services add."""
_RULES = RuleSettings()


def split_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT or [HOST]:PORT.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("allowed: HOST:PORT, for example 127.0.0.1:4700 or [::1]:4700")
    return host, int(port)


def _check_address(text: str) -> str:
    split_address(text)
    return text


def _check_network(text: str) -> str:
    parse_networks([text])
    return text


def _check_sid(text: str) -> str:
    if SID.from_hex(text) in (SID_ZERO, SID_SEQUENCE):
        raise ValueError("a reserved SID; allowed: the GUID of a service's key")
    return text


def _signer(text: str) -> GUID:
    """Return the GUID that a public key owns, or that is written out.

    Raises:
        ValueError: it is neither.
    """
    try:
        if len(text) == 2 * PUBLIC_KEY_BYTES:
            return GUID.from_public_key(bytes.fromhex(text))
        return GUID.from_hex(text)
    except (ValueError, ProtocolError):
        raise ValueError(
            "allowed: a public key (64 hexadecimal digits) or a GUID (40 hexadecimal digits), "
            "as packetcloud identity show prints them"
        ) from None


def _check_signer(text: str) -> str:
    _signer(text)
    return text


_Signer = Annotated[str, AfterValidator(_check_signer)]
_Address = Annotated[str, AfterValidator(_check_address)]
_Network = Annotated[str, AfterValidator(_check_network)]
NameText = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-fA-F]{40}$"), Field(description="40 hexadecimal digits")
]
SidText = Annotated[NameText, AfterValidator(_check_sid)]
_Na = Annotated[int, Field(ge=1, le=0xFFFF_FFFF, strict=True)]
Label = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Field(description="letters, digits, '.', '_' and '-', at most 63"),
]
_Bytes = Annotated[int, Field(ge=1, le=1 << 40, strict=True)]
_Seconds = Annotated[float, Field(ge=0.05, le=86_400)]
_Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]
_RuleCount = Annotated[int, Field(ge=0, le=100_000_000, strict=True)]
_PatternCount = Annotated[int, Field(ge=0, le=10_000, strict=True)]
_ScanCost = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RouterTable(_Table):
    """`[router]`: who it is, where it listens, what it may hold."""

    name: Label
    key_file: Path
    na: _Na
    listen: _Address = "0.0.0.0:4700"
    control_listen: _Address = "127.0.0.1:4701"
    max_payload_bytes: Annotated[int, Field(ge=1, le=63 * MIB, strict=True)] = (
        DEFAULT_MAX_PAYLOAD_BYTES
    )
    store_bytes: _Bytes = 256 * MIB
    credit_bytes: _Bytes = 24 * MIB
    private_links: tuple[_Network, ...] = ()
    stamp_file: Path | None = None
    max_neighbours: _Count = 1024
    idle_timeout_s: _Seconds = 15.0
    hold_limit_s: _Seconds = 120.0
    detached_hold_s: _Seconds = 30.0
    detached_hold_bytes: _Bytes = 16 * MIB
    vi_window_bytes: _Bytes = 8 * MIB
    vi_window_count: _Count = 512
    share_memory: Annotated[bool, Field(strict=True)] = True
    drain_limit_s: _Seconds = 10.0
    custody: Literal["memory", "durable"] = "memory"
    flow_credit_bytes: _Bytes = 16 * MIB


class SpoolTable(_Table):
    """`[spool]`: where chunks may lie on disk, and how many."""

    path: Path
    max_bytes: _Bytes = 1024 * MIB
    max_flow_bytes: _Bytes = 256 * MIB
    memory_bytes: _Bytes = 64 * MIB
    reserve_bytes: Annotated[int, Field(ge=0, le=1 << 30, strict=True)] = 1 * MIB


class RulesTable(_Table):
    """`[rules]`: where demultiplexing rules are kept, whose they may be, and how many."""

    path: Path
    isp_keys: tuple[_Signer, ...] = ()
    max_rules: _RuleCount = _RULES.max_rules
    max_third_party_rules: _RuleCount = _RULES.max_third_party_rules
    max_signer_rules: _RuleCount = _RULES.max_signer_rules
    max_patterns: _PatternCount = _RULES.max_patterns
    max_third_party_patterns: _PatternCount = _RULES.max_third_party_patterns
    max_signer_patterns: _PatternCount = _RULES.max_signer_patterns
    max_third_party_scan_ns: _ScanCost = _RULES.max_third_party_scan_ns
    max_signer_scan_ns: _ScanCost = _RULES.max_signer_scan_ns
    max_document_bytes: Annotated[int, Field(ge=1024, le=1 << 34, strict=True)] = (
        _RULES.max_document_bytes
    )

    def settings(self) -> RuleSettings:
        limits = self.model_dump(exclude={"path", "isp_keys"})
        return RuleSettings(frozenset(map(_signer, self.isp_keys)), **limits)


class CloudletFolder(_Table):
    """`[cloudlet]`: where the table of the cloudlet controller is kept, and who may write it."""

    path: Path
    token_file: Path | None = None
    inspection_mib: Annotated[int, Field(ge=1, le=1 << 20, strict=True)] = 256
    """Of all captures of VIs together, in the folder `inspection` below `path`."""


class HostsTable(_Table):
    """`[hosts]`: who may attach as a host."""

    accept: Literal["any", "listed"] = "any"
    listed: tuple[NameText, ...] = ()


class ServicesTable(_Table):
    """`[services]`: what becomes of services that no `[[service]]` names."""

    unlisted: Literal["refuse", "accept"] = "refuse"


class ServiceTable(_Table):
    """`[[service]]`: one service of this router's cloudlet."""

    sid: SidText
    name: Label
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)] = 0
    fail_policy: FailPolicy = FailPolicy.CLOSED
    deadline_ms: Annotated[int, Field(ge=50, le=3_600_000, strict=True)] = 10_000
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 10.0
    max_replicas: Annotated[int, Field(ge=1, le=1024, strict=True)] = 16
    max_attempts: Annotated[int, Field(ge=1, le=1000, strict=True)] = 5
    rules_from: RulesFrom = RulesFrom.ISP
    keeps_flows: Annotated[bool, Field(strict=True)] = False

    def settings(self) -> ServiceSettings:
        return ServiceSettings(**(self.model_dump() | {"sid": SID.from_hex(self.sid)}))


class NeighbourTable(_Table):
    """`[[neighbour]]`: another router."""

    guid: NameText
    na: _Na
    name: Label | None = None
    routes: tuple[_Na, ...] = ()
    address: _Address | None = None

    def settings(self) -> RouterNeighbour:
        guid = GUID.from_hex(self.guid)
        address = split_address(self.address) if self.address is not None else None
        routes = tuple(NA(na) for na in self.routes)
        return RouterNeighbour(guid, self.name or guid.short, NA(self.na), routes, address)


class NameTable(_Table):
    """`[[name]]`: where a host or a service is."""

    guid: NameText
    na: _Na


class ConfigFile(_Table):
    """The whole file."""

    router: RouterTable
    hosts: HostsTable = HostsTable()
    services: ServicesTable = ServicesTable()
    spool: SpoolTable | None = None
    rules: RulesTable | None = None
    cloudlet: CloudletFolder | None = None
    service: tuple[ServiceTable, ...] = ()
    neighbour: tuple[NeighbourTable, ...] = ()
    name: tuple[NameTable, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """A checked config and the key that it names."""

    path: Path
    file: ConfigFile
    identity: Identity
    table_token: str | None = field(default=None, repr=False)
    """What a cloudlet controller has to show; None: nothing."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file and the key file that it names.

        Raises:
            RouterConfigError: the file is missing, is no TOML, or something in it is not allowed.
            IdentityError: the key file cannot be used.
        """
        file = parse_config(_read(path), str(path))
        key_file = path.parent / file.router.key_file
        token = None
        if file.cloudlet is not None and file.cloudlet.token_file is not None:
            token = _read_token(path.parent / file.cloudlet.token_file)
        return cls(path, file, load_identity_file(key_file), token)

    @property
    def settings(self) -> RouterSettings:
        """What the core needs to know."""
        file, router = self.file, self.file.router
        template = ServiceSettings(SID(bytes(19) + b"\x01"), "unlisted")
        listed = frozenset(GUID.from_hex(text) for text in file.hosts.listed)
        return RouterSettings(
            guid=self.identity.guid,
            na=NA(router.na),
            name=router.name,
            max_payload_bytes=router.max_payload_bytes,
            store_bytes=router.store_bytes,
            hold_limit_s=router.hold_limit_s,
            detached_hold_s=router.detached_hold_s,
            detached_hold_bytes=router.detached_hold_bytes,
            vi_window_bytes=router.vi_window_bytes,
            vi_window_count=router.vi_window_count,
            hosts=listed if file.hosts.accept == "listed" else None,
            services=tuple(table.settings() for table in file.service),
            unlisted_services=template if file.services.unlisted == "accept" else None,
            has_table=file.cloudlet is not None,
            neighbours=tuple(table.settings() for table in file.neighbour),
            spool=self._spool_settings,
            names={GUID.from_hex(table.guid): NA(table.na) for table in file.name},
        )

    @property
    def stamp_file(self) -> Path | None:
        """Where stamps of handshakes outlive a restart; None: nowhere."""
        named = self.file.router.stamp_file
        return self.path.parent / named if named is not None else None

    @property
    def lanes(self) -> Path | None:
        """Where services of this machine find the memory that they may share; None: nowhere."""
        return lane_folder() if self.file.router.share_memory else None

    @property
    def spool_folder(self) -> Path | None:
        """Where the spool is; None: there is none."""
        table = self.file.spool
        return self.path.parent / table.path if table is not None else None

    @property
    def rules_folder(self) -> Path | None:
        """Where rules are kept; None: there are none."""
        table = self.file.rules
        return self.path.parent / table.path if table is not None else None

    @property
    def cloudlet_folder(self) -> Path | None:
        """Where the table of the cloudlet controller is kept; None: none is taken."""
        table = self.file.cloudlet
        return self.path.parent / table.path if table is not None else None

    @property
    def inspection_bytes(self) -> int:
        """What all captures of VIs may have together."""
        table = self.file.cloudlet
        return table.inspection_mib << 20 if table is not None else 0

    @property
    def rules(self) -> RuleSettings:
        """Whose rules are taken."""
        table = self.file.rules
        return table.settings() if table is not None else RuleSettings()

    @property
    def _spool_settings(self) -> SpoolSettings | None:
        table = self.file.spool
        if table is None:
            return None
        return SpoolSettings(
            max_bytes=table.max_bytes,
            max_flow_bytes=table.max_flow_bytes,
            memory_bytes=table.memory_bytes,
            reserve_bytes=table.reserve_bytes,
            is_durable=self.file.router.custody == "durable",
        )

    @property
    def hop(self) -> HopConfig:
        router = self.file.router
        return HopConfig(
            max_body_bytes=router.max_payload_bytes + BODY_HEADROOM_BYTES,
            credit_bytes=router.credit_bytes,
            flow_credit_bytes=router.flow_credit_bytes,
            private_links=router.private_links,
            max_neighbours_count=router.max_neighbours,
            idle_timeout_s=router.idle_timeout_s,
            keepalive_s=min(HopConfig().keepalive_s, router.idle_timeout_s / 4),
        )


def parse_config(text: str, origin: str) -> ConfigFile:
    """Check the text of a config file; `origin` is its name in errors.

    Raises:
        RouterConfigError: no TOML, or something that is not allowed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RouterConfigError(f"{origin}: not TOML: {error}") from None
    try:
        file = ConfigFile.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RouterConfigError(f"{origin}: {_explain(problems[0], document)}{more}") from None
    problem = next(_contradictions(file), None)
    if problem is not None:
        raise RouterConfigError(f"{origin}: {problem}")
    return file


def sample_config() -> str:
    """Return a commented config file with every key and its default."""
    return files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise RouterConfigError(f"{path}: over {MAX_CONFIG_BYTES} bytes; is it a config file?")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RouterConfigError(
            f"no config file {path}; begin with: packetcloud config sample router > {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RouterConfigError(f"cannot read {path}: {error}") from None


def _read_token(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise RouterConfigError(f"{path}: others may read it; run: chmod 600 {path}")
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise RouterConfigError(
            f"no token file {path}; make one with: (umask 077; openssl rand -hex 32 > {path})"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RouterConfigError(f"cannot read {path}: {error}") from None
    if len(token) < MIN_TOKEN_COUNT:
        text = f"{path}: a token of {len(token)} characters; allowed: {MIN_TOKEN_COUNT} or more"
        raise RouterConfigError(text)
    return token


def _is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _contradictions(file: ConfigFile) -> Iterator[str]:
    """Yield what is wrong between tables that are right each for itself."""
    own_na = file.router.na
    yield from _repeats("[[service]] sid", (table.sid.lower() for table in file.service))
    yield from _repeats("[[service]] name", (table.name for table in file.service))
    yield from _repeats("[[neighbour]] guid", (table.guid.lower() for table in file.neighbour))
    nas = [na for table in file.neighbour for na in (table.na, *table.routes)]
    yield from _repeats("[[neighbour]] na or routes", nas)
    if own_na in nas:
        yield f"[[neighbour]] na or routes: {own_na} is this router's own [router] na"
    yield from _repeats("[[name]] guid", (table.guid.lower() for table in file.name))
    reachable = {own_na, *nas}
    for number, table in enumerate(file.name, 1):
        if table.na not in reachable:
            known = ", ".join(map(str, sorted(reachable)))
            yield f"[[name]] number {number}: na = {table.na}: no [[neighbour]] leads there; " + (
                f"allowed: {known}"
            )
    if file.router.custody == "durable" and file.spool is None:
        yield '[router] custody = "durable": needs a [spool] with a path'
    if (
        file.cloudlet is not None
        and file.cloudlet.token_file is None
        and not _is_loopback(file.router.control_listen)
    ):
        yield (
            f"[cloudlet] token_file: missing; whoever reaches {file.router.control_listen} could "
            "list services; allowed: a token file, or a control_listen on loopback"
        )
    if file.hosts.listed and file.hosts.accept == "any":
        yield '[hosts] listed: has no effect with accept = "any"; allowed: accept = "listed"'
    if file.router.store_bytes < file.router.max_payload_bytes + BODY_HEADROOM_BYTES:
        least = file.router.max_payload_bytes + BODY_HEADROOM_BYTES
        yield f"[router] store_bytes: too small for one chunk; allowed: {least} or more"


def _repeats(where: str, values: Iterable[Hashable]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{where}: {value} stands there {count} times; allowed: once"


def _explain(problem: Any, document: dict[str, Any]) -> str:
    """Turn pydantic's finding into: table, key, value, what is allowed."""
    location = list(problem["loc"])
    model: Any = ConfigFile
    table = ""
    while location:
        field = model.model_fields.get(location[0])
        inner = _table_model(field.annotation) if field is not None else None
        if inner is None:
            break
        name = location.pop(0)
        is_array = bool(location) and isinstance(location[0], int)
        table = f"[[{name}]] number {location.pop(0) + 1}" if is_array else f"[{name}]"
        model = inner
    key = ".".join(map(str, location))
    where = f"{table} {key}".strip()
    if problem["type"] == "extra_forbidden":
        what = "key" if table else "table"
        return f"{where}: unknown {what}; allowed: {', '.join(model.model_fields)}"
    if problem["type"] == "missing":
        return f"{where}: missing; {_allowed(model, location, problem)}"
    return f"{where} = {problem['input']!r}: {_allowed(model, location, problem)}"


def _table_model(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _allowed(model: Any, location: list[Any], problem: Any) -> str:
    """Say what is allowed at a key, from the schema of its table."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    schema = model.model_json_schema()
    rule = schema.get("properties", {}).get(str(location[0]), {}) if location else {}
    rule = rule.get("items", rule) if len(location) > 1 else rule
    if "$ref" in rule:
        rule = schema["$defs"][rule["$ref"].rsplit("/", 1)[-1]]
    rule = next((one for one in rule.get("anyOf", ()) if one.get("type") != "null"), rule)
    if "enum" in rule:
        return "allowed: " + ", ".join(f'"{value}"' for value in rule["enum"])
    if "description" in rule:
        return f"allowed: {rule['description']}"
    words = {"integer": "a whole number", "number": "a number", "string": "a text"}
    kind = words.get(rule.get("type", ""), f"a {rule.get('type', 'table')}")
    if "minimum" in rule and "maximum" in rule:
        return f"allowed: {kind} from {rule['minimum']} to {rule['maximum']}"
    return f"allowed: {kind}"
