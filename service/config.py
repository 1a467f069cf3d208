"""The one configuration file: every key has a default, every fault is named at once with the fix."""

import difflib
import ipaddress
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from alerts.settings import AlertSettings
from collector.gpu.settings import GpuSettings
from collector.otlp.settings import OtlpSettings
from collector.settings import ScrapeSettings
from evals.drift.settings import DriftSettings
from evals.settings import EvalSettings
from store.settings import StoreSettings

ENVIRONMENT_KEYS = ("listen", "otlp_grpc", "otlp_http", "data", "public_url")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """What is wrong with the configuration, all of it, one fault a line."""


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port; write for example '127.0.0.1:8433'")
    return value


Address = Annotated[str, AfterValidator(_address)]


class TelemetrySettings(BaseModel):
    """Where Tidegauge sends its own traces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    otlp_endpoint: str | None = Field(default=None, description="gRPC endpoint, for example http://127.0.0.1:4317")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="of the log on stderr")


class Config(BaseModel):
    """Everything that can be set; an empty file serves this machine with whatever arrives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Address = Field(default="127.0.0.1:8433", description="API, console, /metrics, and OTLP/HTTP too")
    otlp_grpc: Address = Field(
        default="127.0.0.1:4317", description="OTLP/gRPC; taken by somebody else: a warning and a metric, not an exit"
    )
    otlp_http: Address = Field(default="127.0.0.1:4318", description="OTLP/HTTP; taken: as above")
    data: Path = Field(
        default=Path("tidegauge-data"), description="directory that holds tidegauge.duckdb and what belongs to it"
    )
    public_url: str | None = Field(
        default=None, description="where people reach the console; links start with it; `listen` unless set"
    )
    allow_unauthenticated: bool = Field(
        default=False, description="listen beyond this machine although there is no key"
    )
    scrape: ScrapeSettings = ScrapeSettings()
    otlp: OtlpSettings = OtlpSettings()
    gpu: GpuSettings = GpuSettings()
    evals: EvalSettings = EvalSettings()
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    store: StoreSettings = StoreSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    def url(self) -> str:
        """Where people reach the console."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")

    def alert_settings(self) -> AlertSettings:
        """The alert settings with links and webhook that lead to this service, unless they were set."""
        given = self.alerts.model_fields_set
        derived: dict[str, Any] = {}
        if "public_url" not in given:
            derived["public_url"] = self.url()
        if "webhook_url" not in given:
            derived["webhook_url"] = f"http://{self.listen}/api/v1/alerts/webhook"
        if "scrape_target" not in given:
            derived["scrape_target"] = self.listen
        return self.alerts.model_copy(update=derived)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 hosts are in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in `path` (None: all defaults), with TIDEGAUGE_* on top.  Raises ConfigError."""
    environment = os.environ if environment is None else environment
    name = path.name if path else "environment"
    document = _read(path) if path else {}
    document = _expanded(document, environment, name)
    for key in ENVIRONMENT_KEYS:
        if f"TIDEGAUGE_{key.upper()}" in environment:
            document[key] = environment[f"TIDEGAUGE_{key.upper()}"]
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_report(name, error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; 'tidegauge init' writes one") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name}: holds a {type(document).__name__}; write keys, as in 'listen: 127.0.0.1:8433'")
    return document


def _expanded(value: Any, environment: Mapping[str, str], name: str, where: str = "") -> Any:
    """`value` with ${VAR} replaced, and keys that end in _file kept as they are (their owner reads them)."""
    if isinstance(value, dict):
        return {key: _expanded(item, environment, name, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environment, name, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        missing = [variable for variable in VARIABLE.findall(value) if variable not in environment]
        if missing:
            raise ConfigError(f"{name}: 1 problem\n  {where}: ${{{missing[0]}}} is not set in the environment")
        return VARIABLE.sub(lambda match: environment[match[1]], value)
    return value


def _report(name: str, error: ValidationError) -> str:
    lines = sorted({_line(dict(item)) for item in error.errors(include_url=False)})
    return f"{name}: {len(lines)} problem{'s' if len(lines) > 1 else ''}\n" + "\n".join(f"  {line}" for line in lines)


def _line(item: Mapping[str, Any]) -> str:
    location = tuple(part for part in item["loc"] if not (isinstance(part, str) and "[" in part))
    where = ""
    for part in location:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    if item["type"] == "extra_forbidden":
        return f"{where}: there is no such key{_nearest(location)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict | list) or repr(item["input"]) in message else f"{item['input']!r}: "
    return f"{where}: {shown}{message}"


def _nearest(location: tuple[Any, ...]) -> str:
    fields = _fields(Config, location[:-1])
    close = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(fields))}" if fields else ""


def _fields(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the keys at a place of the configuration, as far as the types tell."""
    for part in location:
        if isinstance(part, int):
            continue
        found = model.model_fields.get(part) if _is_model(model) else None
        if found is None:
            return []
        model = _inner(found.annotation)
    return list(model.model_fields) if _is_model(model) else []


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _inner(annotation: Any) -> Any:
    """The model inside Optional, list, tuple or Annotated."""
    if _is_model(annotation):
        return annotation
    if typing.get_origin(annotation) in (list, tuple, typing.Union, types.UnionType, Annotated):
        return next((inner for item in typing.get_args(annotation) if _is_model(inner := _inner(item))), None)
    return None
