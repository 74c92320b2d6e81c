"""The manifest: what a service says about itself, as a TOML file.

Source: docs/reference/service-manifest.md, which a test compares with these models.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from packetcloud.services.errors import ManifestError, ParameterError
from packetcloud.services.launch import ExecutionMode, ResourceLimits
from packetcloud.services.parameters import Parameters, ParameterValue

MANIFEST_FORMAT = 1
VerdictWord = Literal["forward", "update", "drop", "redirect", "emit"]
MAX_MANIFEST_BYTES = 64 << 10
"""A manifest is read by people; a larger file is not one."""

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
_Hex20 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]


class _Table(BaseModel):
    """A table of the manifest: a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceTable(_Table):
    """`[service]`: what it is and where its code is."""

    name: _Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+([-+.].+)?$")]
    summary: str = ""
    entry_point: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Rule(_Table):
    """`[[demultiplexing.rules]]`: chunks that a transparent service wants; all given keys match."""

    source: _Hex20 | None = None
    destination: _Hex20 | None = None
    payload_type: Annotated[int, Field(ge=0, le=255)] | None = None
    payload_pattern: str | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError(
                "a rule needs at least one of source, destination, payload_type, payload_pattern"
            )
        return self


class DemultiplexingTable(_Table):
    """`[demultiplexing]`: which chunks the service wants."""

    sid: _Hex20 | None = None
    """The SID it must run under; absent: the SID of whichever key it is started with."""
    rules: tuple[Rule, ...] = ()


class ParameterTable(_Table):
    """`[parameters.NAME]`: one setting; without a default it must be set."""

    type: Literal["string", "integer", "number", "boolean", "path"]
    summary: str = ""
    default: ParameterValue | None = None
    allowed: tuple[ParameterValue, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default is not None:
            self.check("default", self.default)
        return self

    def parse(self, name: str, text: str) -> ParameterValue:
        """Turn the VALUE of `--set` into a value of this type, checked."""
        try:
            match self.type:
                case "integer":
                    return self.check(name, int(text))
                case "number":
                    return self.check(name, float(text))
                case "boolean":
                    return self.check(name, {"true": True, "false": False}[text.lower()])
                case "path":
                    return self.check(name, str(Path(text).expanduser().absolute()))
                case "string":
                    return self.check(name, text)
        except (ValueError, KeyError):
            raise self._refusal(name, text) from None

    def check(self, name: str, value: ParameterValue) -> ParameterValue:
        """Return `value` as it is to be used, or raise ValueError saying what is allowed."""
        kinds: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float)}
        kinds["boolean"] = (bool,)
        if not isinstance(value, kinds.get(self.type, (str,))):
            raise self._refusal(name, value)
        if isinstance(value, bool) and self.type != "boolean":
            raise self._refusal(name, value)
        if self.allowed and value not in self.allowed:
            raise self._refusal(name, value)
        if not isinstance(value, str):
            too_small = self.minimum is not None and value < self.minimum
            if too_small or (self.maximum is not None and value > self.maximum):
                raise self._refusal(name, value)
        return float(value) if self.type == "number" else value

    def allowed_text(self) -> str:
        """Say in words which values are allowed."""
        if self.allowed:
            return f"allowed values: {', '.join(map(str, self.allowed))}"
        named = {"integer": "an integer", "boolean": "true or false"}
        kind = named.get(self.type, f"a {self.type}")
        if self.minimum is not None and self.maximum is not None:
            return f"allowed: {kind} from {self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"allowed: {kind}, {self.minimum:g} or more"
        if self.maximum is not None:
            return f"allowed: {kind}, at most {self.maximum:g}"
        return f"allowed: {kind}"

    def _refusal(self, name: str, value: object) -> ValueError:
        return ValueError(f"{name} = {value!r}; {self.allowed_text()}")


class ResourcesTable(_Table):
    """`[resources]`: what one VI may use."""

    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 256
    cpus: Annotated[float, Field(gt=0, le=256)] = 1.0
    processes: Annotated[int, Field(ge=1, le=32768)] = 16
    open_files: Annotated[int, Field(ge=16, le=65536)] = 64

    def limits(self) -> ResourceLimits:
        return ResourceLimits(**self.model_dump())


class BehaviourTable(_Table):
    """`[behaviour]`: what the router may expect from it."""

    fail_policy: Literal["open", "closed"]
    """No verdict from any VI: send the chunk on without the service, or refuse it."""
    idempotent: bool = False
    """A chunk may be processed again elsewhere, the first result thrown away, without harm."""
    state: Literal["none", "export"] = "none"
    keeps_flows: bool = False
    """Its VIs remember what they had of a flow: while one has no room, its flows wait for it."""
    deadline_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 5000
    max_expansion_ratio: Annotated[float, Field(ge=1, le=100_000)] = 2.0
    """Largest output per byte of input; 1024 bytes more are always allowed."""
    verdicts: Annotated[tuple[VerdictWord, ...], Field(min_length=1)] | None = None
    """Kinds of verdicts that it gives, besides failures; absent: any. A cloudlet's router takes no
    others from its VIs."""
    execution: ExecutionMode = ExecutionMode.AUTO
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16


class SupervisionTable(_Table):
    """`[supervision]`: how often a VI that dies is started again."""

    first_delay_s: Annotated[float, Field(ge=0, le=60)] = 0.1
    longest_delay_s: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    stable_s: Annotated[float, Field(gt=0, le=86400)] = 30.0
    """A VI that ran for so long starts again with the first delay."""
    quarantine_crashes: Annotated[int, Field(ge=0, le=1000)] = 8
    """Crashes within the window after which it is not started again; 0 = never."""
    quarantine_window_s: Annotated[float, Field(gt=0, le=86400)] = 60.0


class PairTable(_Table):
    """`[pair]`: two settings of one parameter that undo each other, for `service test --pair`."""

    parameter: _ParameterName
    values: tuple[ParameterValue, ParameterValue]


class Manifest(_Table):
    """A whole manifest; `manifest = 1` is the version of this format."""

    manifest: Literal[1]
    service: ServiceTable
    behaviour: BehaviourTable
    demultiplexing: DemultiplexingTable = DemultiplexingTable()
    parameters: dict[_ParameterName, ParameterTable] = {}
    resources: ResourcesTable = ResourcesTable()
    supervision: SupervisionTable = SupervisionTable()
    pair: PairTable | None = None

    @model_validator(mode="after")
    def _pair_is_declared(self) -> Self:
        if self.pair is not None and self.pair.parameter not in self.parameters:
            raise ValueError(f"pair.parameter {self.pair.parameter!r} is not in [parameters]")
        return self

    def resolve(self, settings: Mapping[str, str]) -> Parameters:
        """Return every parameter's value: what is set, else its default.

        Raises:
            ParameterError: unknown, missing or not allowed; the text says what is.
        """
        owner = f"service {self.service.name}"
        if unknown := sorted(set(settings) - set(self.parameters)):
            known = ", ".join(sorted(self.parameters)) or "none"
            raise ParameterError(f"{owner}: no parameter {unknown[0]!r}; parameters: {known}")
        values: dict[str, ParameterValue] = {}
        for name, declared in self.parameters.items():
            if name in settings:
                try:
                    values[name] = declared.parse(name, settings[name])
                except ValueError as error:
                    raise ParameterError(f"{owner}, --set {error}") from None
            elif declared.default is not None:
                values[name] = declared.check(name, declared.default)
            else:
                raise ParameterError(
                    f"{owner}: parameter {name!r} is required; {declared.allowed_text()}; "
                    f"set it with --set {name}=VALUE ({declared.summary or 'no summary'})"
                )
        return Parameters(values)


def load_manifest(path: Path) -> Manifest:
    """Read and check the manifest in `path`.

    Raises:
        ManifestError: names file, table and key, and says what is allowed.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read manifest {path}: {error.strerror}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path} is over {MAX_MANIFEST_BYTES} bytes: not a service manifest")
    try:
        return Manifest.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ManifestError("; ".join(f"{path}: {text}" for text in _problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    return [_problem(dict(item)) for item in error.errors(include_url=False)]


def _problem(item: dict[str, Any]) -> str:
    path = [str(part) for part in item["loc"]]
    *table, key = path or ["manifest"]
    place = f"[{'.'.join(table)}] {key}" if table else key
    match item["type"]:
        case "extra_forbidden":
            known = ", ".join(_keys_of(table))
            return f"{place}: unknown key; allowed keys: {known}"
        case "missing":
            return f"{place}: missing"
        case "value_error" if isinstance(item["input"], dict):  # two keys of a table do not fit
            table_name = f"[{'.'.join(path)}] " if path else ""
            return f"{table_name}{item['ctx']['error']}"
        case _:
            given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
            return f"{place}: {item['msg']}{given}"


def _keys_of(table: list[str]) -> list[str]:
    """Return the keys that the table at this place of the manifest knows."""
    models: dict[str, type[BaseModel]] = {
        "service": ServiceTable,
        "demultiplexing": DemultiplexingTable,
        "rules": Rule,
        "parameters": ParameterTable,
        "resources": ResourcesTable,
        "behaviour": BehaviourTable,
        "supervision": SupervisionTable,
        "pair": PairTable,
    }
    named = [models[part] for part in table if part in models]
    return list((named[-1] if named else Manifest).model_fields)
