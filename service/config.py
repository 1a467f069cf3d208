"""The one configuration file: every key has a default, every fault is named at once with the fix."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from alerts.settings import AlertSettings
from collector.gpu.settings import GpuSettings
from collector.otlp.settings import OtlpSettings
from collector.redaction.settings import PrivacySettings
from collector.remote_write.settings import RemoteWriteSettings
from collector.settings import ScrapeSettings
from evals.drift.settings import DriftSettings
from evals.settings import EvalSettings
from service.config_faults import faults_of
from store.settings import StoreSettings

ENVIRONMENT_KEYS = ("listen", "otlp_grpc", "otlp_http", "data", "public_url")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """What is wrong with the configuration, all of it, one fault a line."""


def _address(value: str) -> str:
    host_port = re.fullmatch(r"(\[[^\]]+\]|[^:/\s]+):([0-9]{1,5})", value)
    if host_port is None or int(host_port[2]) > 65535:
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
        default=None,
        pattern=r"^https?://\S+$",
        description="where people reach the console; links start with it; `listen` unless set",
    )
    allow_unauthenticated: bool = Field(
        default=False, description="listen beyond this machine although there is no key"
    )
    scrape: ScrapeSettings = ScrapeSettings()
    otlp: OtlpSettings = OtlpSettings()
    privacy: PrivacySettings = PrivacySettings()
    remote_write: tuple[RemoteWriteSettings, ...] = Field(
        default=(), description="Prometheus-compatible endpoints that get what /metrics serves"
    )
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
    written = _read(path) if path else {}
    overrides = {
        key: f"TIDEGAUGE_{key.upper()}" for key in ENVIRONMENT_KEYS if f"TIDEGAUGE_{key.upper()}" in environment
    }
    overriding = {key: environment[variable] for key, variable in overrides.items()}
    missing: dict[str, str] = {}
    document = _expanded({**written, **dict.fromkeys(overriding)}, environment, missing) | overriding
    try:
        loaded, faults = Config.model_validate(document), {}
    except ValidationError as error:
        loaded, faults = None, faults_of(error, Config, {**written, **overriding})
    faults |= missing
    if loaded is not None and not faults:
        return loaded
    lines = sorted(f"  {overrides.get(where, where) or 'everything'}: {fault}" for where, fault in faults.items())
    raise ConfigError("\n".join([f"{name}: {len(lines)} problem{'s' if len(lines) > 1 else ''}", *lines]))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; 'tidegauge init' writes one") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8, at byte {error.start}") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name}: not YAML{_where(error)}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name}: holds a {type(document).__name__}; write keys, as in 'listen: 127.0.0.1:8433'")
    # A section whose keys are all commented out is an empty one.
    return {key: value for key, value in document.items() if value is not None}


def _where(error: yaml.YAMLError) -> str:
    """Line and reason, without the line itself: it may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{place}: {getattr(error, 'problem', None) or 'a character that it does not allow'}"


def _expanded(value: Any, environment: Mapping[str, str], missing: dict[str, str], where: str = "") -> Any:
    """`value` with ${VAR} replaced; what is not set is noted in `missing` by its place, and stays."""
    if isinstance(value, dict):
        return {key: _expanded(item, environment, missing, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environment, missing, f"{where}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    unset = sorted({variable for variable in VARIABLE.findall(value) if variable not in environment})
    if unset:
        missing[where] = f"{', '.join(f'${{{variable}}}' for variable in unset)} is not set in the environment"
    return VARIABLE.sub(lambda match: environment.get(match[1], match[0]), value)
