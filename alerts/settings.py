"""What can be set about alerts: where links lead, who is told, which thresholds and objectives hold."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alerts.rules.indicators import HISTOGRAM_OF
from catalog.family import families


class Severity(StrEnum):
    """What an alert asks for: somebody now, somebody this week, or nobody."""

    PAGE = "page"
    TICKET = "ticket"
    INFO = "info"


_URL = r"^https?://[^\s]+[^/\s]$"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Settings):
    """Numbers that rules compare with.  A rule names one as `{queue_seconds}`."""

    # MLPerf Inference wants a chat server's first token within 2 s (Llama 2 70B, 99th percentile); 2.5 s is the next
    # bound of vLLM's buckets, where a percentile is not interpolated.
    time_to_first_token_seconds: float = Field(default=2.5, gt=0, description="95th percentile that pages")
    inter_token_seconds: float = Field(default=0.25, gt=0, description="95th percentile of the gap between two tokens")
    queue_seconds: float = Field(default=2.0, gt=0, description="wait that a request arriving now would have")
    minimum_requests: float = Field(
        default=20, ge=1, description="requests below which a ratio or percentile says nothing"
    )
    error_ratio: float = Field(default=0.05, gt=0, lt=1, description="share of a tenant's requests that fail")
    kv_cache_ratio: float = Field(default=0.95, gt=0, lt=1, description="share of the KV cache in use")
    preemptions_per_request: float = Field(default=0.2, gt=0, description="preemptions per finished request")
    gpu_memory_ratio: float = Field(default=0.98, gt=0, lt=1, description="share of a GPU's memory in use")
    eval_failure_ratio: float = Field(
        default=0.1, gt=0, lt=1, description="share of evaluations, or judge calls, that fail"
    )
    eval_backlog: float = Field(default=5000, ge=1, description="requests that wait to be scored")
    minimum_scores: float = Field(default=30, ge=2, description="scores below which a mean is not judged")
    ingest_lag_seconds: float = Field(default=60.0, gt=0, description="time from a span's end to its commit")
    disk_free_bytes: float = Field(default=1 << 30, gt=0, description="free space that pages")


class Slo(_Settings):
    """A service-level objective over the requests that the selectors choose, per model and service.

    `errors` counts failed requests, `time_to_first_token` and `duration` those slower than `threshold_seconds`,
    which has to be a bucket's bound of the client histogram.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    indicator: Literal["errors", "time_to_first_token", "duration"] = Field(
        default="errors",
        description="`errors` counts failed requests, the others those slower than `threshold_seconds`",
    )
    objective: float = Field(default=0.99, gt=0, lt=1, description="share of good requests")
    threshold_seconds: float | None = Field(default=None, description="a bucket's bound of the client histogram")
    model: str | None = Field(default=None, description="only requests of this model")
    service: str | None = Field(default=None, description="only requests of this service")
    tenant: str | None = Field(default=None, description="only requests of this tenant")

    @model_validator(mode="after")
    def _threshold_is_a_bucket(self) -> "Slo":
        if self.indicator == "errors":
            if self.threshold_seconds is not None:
                raise ValueError("threshold_seconds means nothing for errors; leave it out")
            return self
        bounds = families()[HISTOGRAM_OF[self.indicator]].buckets
        if self.threshold_seconds not in bounds:
            near = min(bounds, key=lambda bound: abs(bound - (self.threshold_seconds or 0)))
            raise ValueError(f"threshold_seconds {self.threshold_seconds} is no bucket's bound; the nearest is {near}")
        return self


class QualityBound(_Settings):
    """A bound that an evaluator's mean, with its whole confidence interval, must not cross; exactly one is given."""

    evaluator: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="whose mean is bounded")
    below: float | None = Field(default=None, description="fires when the whole interval of the mean is below")
    above: float | None = Field(
        default=None, description="fires when the whole interval of the mean is above; give one of the two"
    )

    @model_validator(mode="after")
    def _one_side(self) -> "QualityBound":
        if (self.below is None) == (self.above is None):
            raise ValueError("give either below or above")
        return self


class PagerDuty(_Settings):
    """A PagerDuty service, by its Events v2 routing key in a file."""

    routing_key_file: str = Field(description="file with the Events v2 routing key")


class Slack(_Settings):
    """A Slack channel, by an incoming-webhook URL in a file."""

    api_url_file: str = Field(description="file with the incoming-webhook URL")
    channel: str = Field(description="for example `#llm-alerts`")


class Email(_Settings):
    """Mail over SMTP; the password in a file."""

    to: str = Field(description="address")
    sender: str = Field(description="address")
    smarthost: str = Field(description="host:port of the SMTP server")
    username: str | None = Field(default=None, description="for the SMTP server")
    password_file: str | None = Field(default=None, description="file with its password")


class Webhook(_Settings):
    """Any HTTP endpoint that takes Alertmanager's webhook; the bearer token, if any, in a file."""

    url: str = Field(description="endpoint that takes Alertmanager's webhook")
    token_file: str | None = Field(default=None, description="file with its bearer token")


class Receiver(_Settings):
    """Who hears of alerts of the severities given, beside Tidegauge's own incident record."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,40}$")
    severities: tuple[Severity, ...] = Field(default=(Severity.PAGE,), description="of which severities it hears")
    pagerduty: PagerDuty | None = Field(default=None, description="a PagerDuty service")
    slack: Slack | None = Field(default=None, description="a Slack channel")
    email: Email | None = Field(default=None, description="mail over SMTP")
    webhook: Webhook | None = Field(default=None, description="any HTTP endpoint")

    @model_validator(mode="after")
    def _has_a_way(self) -> "Receiver":
        if self.name == "tidegauge":
            raise ValueError("the name 'tidegauge' is taken by Tidegauge's own incident record")
        if not (self.pagerduty or self.slack or self.email or self.webhook):
            raise ValueError(f"receiver {self.name!r} has none of pagerduty, slack, email, webhook")
        return self


Duration = Annotated[str, Field(pattern=r"^\d+(ms|s|m|h|d)$")]

DEFAULT_SLOS = (
    Slo(name="availability", indicator="errors", objective=0.99),
    Slo(name="first_token", indicator="time_to_first_token", objective=0.95, threshold_seconds=2.56),
)
DEFAULT_QUALITY = (
    QualityBound(evaluator="json_validity", below=0.9),
    QualityBound(evaluator="json_schema", below=0.9),
    QualityBound(evaluator="refusal", above=0.5),
)


class AlertSettings(_Settings):
    """Everything that the generated rules, Alertmanager configuration and links depend on.

    `time_scale` shortens every window and `for:` alike; 0.1 makes two minutes twelve seconds, for tests.
    """

    time_scale: float = Field(
        default=1.0, ge=0.05, le=1.0, description="shortens every window and `for:` alike; for tests"
    )
    public_url: str = Field(
        default="http://127.0.0.1:8433",
        pattern=_URL,
        description="where links in alerts lead; the service's own `public_url` or `listen` unless set",
    )
    grafana_url: str = Field(
        default="http://127.0.0.1:3000", pattern=_URL, description="where links to dashboards lead"
    )
    runbooks_url: str | None = Field(
        default=None, pattern=_URL, description="what serves /runbooks/…; the console unless set"
    )
    webhook_url: str = Field(
        default="http://127.0.0.1:8433/api/v1/alerts/webhook",
        description="where Alertmanager tells Tidegauge of alerts; follows `listen` unless set",
    )
    webhook_token_file: str | None = Field(
        default=None, description="file, on Alertmanager's machine, with the key for the webhook"
    )
    alertmanager: str = Field(
        default="127.0.0.1:9093", description="Alertmanager's address for the generated prometheus.yml"
    )
    scrape_target: str = Field(
        default="127.0.0.1:8433",
        description="Tidegauge's address for the generated prometheus.yml; follows `listen` unless set",
    )
    scrape_interval: Duration = Field(default="15s", description="of the generated prometheus.yml")
    evaluation_interval: Duration = Field(default="15s", description="of the generated prometheus.yml")
    group_wait: Duration = Field(default="10s", description="of the generated alertmanager.yml")
    group_interval: Duration = Field(default="1m", description="of the generated alertmanager.yml")
    repeat_interval: Duration = Field(default="4h", description="of the generated alertmanager.yml")
    thresholds: Thresholds = Thresholds()
    slos: tuple[Slo, ...] = Field(
        default=DEFAULT_SLOS, description="service-level objectives that burn-rate alerts are generated for"
    )
    quality: tuple[QualityBound, ...] = Field(
        default=DEFAULT_QUALITY, description="bounds that an evaluator's mean must not cross"
    )
    receivers: tuple[Receiver, ...] = Field(
        default=(), description="who hears of alerts, beside Tidegauge's own incident record"
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> "AlertSettings":
        for key, names in (
            ("slos", [slo.name for slo in self.slos]),
            ("receivers", [receiver.name for receiver in self.receivers]),
            ("quality", [f"{bound.evaluator} {'above' if bound.below is None else 'below'}" for bound in self.quality]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key}: {', '.join(twice)} given twice")
        return self
