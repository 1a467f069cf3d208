"""Settings of evals: what is scored by whom, how much of it, and by which judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from evals import registry

# What a policy may ask of a request.
WHERE = (
    "operation",
    "model",
    "tenant",
    "service",
    "prompt_name",
    "prompt_version",
    "environment",
    "deployment",
    "region",
)
CHEAP = ("json_validity", "refusal", "length", "repetition")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeSettings(_Settings):
    """The model that scores answers; any endpoint that speaks OpenAI's chat completions.

    `tokens_per_day` of 0 switches the judge off.  The day is UTC.
    """

    url: str = Field(
        pattern=r"^https?://[^/\s]+",
        description="base URL of an endpoint that speaks OpenAI's chat completions, for example http://judge:8000/v1",
    )
    model: str = Field(min_length=1, description="the model to ask for")
    api_key: SecretStr | None = Field(default=None, description="sent as bearer token")
    api_key_file: Path | None = Field(default=None, description="the same in a file; only one of the two may be given")
    tokens_per_day: int = Field(default=2_000_000, ge=0, description="budget, by the UTC day; 0 switches the judge off")
    concurrency: int = Field(default=4, ge=1, le=256, description="calls at a time")
    timeout_seconds: float = Field(default=60.0, gt=0, le=600, description="how long a call may take")
    attempts: int = Field(default=4, ge=1, le=20, description="calls per score before it counts as failed")
    max_answer_tokens: int = Field(default=300, ge=16, le=8_192, description="`max_tokens` of a call")
    max_characters: int = Field(
        default=12_000,
        ge=200,
        le=1_000_000,
        description="longer prompts and answers are cut in the middle before they are judged",
    )
    max_delay_seconds: float = Field(
        default=86_400.0,
        gt=0,
        description="requests that the budget kept waiting for longer are given up, with a failed score",
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="sampling temperature of the judge")
    seed: int = Field(default=0, description="seed sent to the judge")
    structured_output: bool = Field(
        default=True,
        description="switch off for servers that refuse `response_format`; the answer is held to the schema either way",
    )
    usd_per_million_input_tokens: float | None = Field(
        default=None, ge=0, description="price, for the cost column of scores"
    )
    usd_per_million_output_tokens: float | None = Field(
        default=None, ge=0, description="price, for the cost column of scores"
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("api_key and api_key_file exclude each other")
        return self

    def key(self) -> str | None:
        """The API key, read from its file if that is where it is."""
        if self.api_key_file is not None:
            return self.api_key_file.read_text().strip()
        return self.api_key.get_secret_value() if self.api_key else None


class EvaluatorUse(_Settings):
    """An evaluator with its parameters; written as its name, or as `{name: {parameter: value}}`."""

    kind: str = Field(description="the evaluator's name; `[refusal]` is short for `[{kind: refusal}]`")
    parameters: Mapping[str, Any] = Field(
        default_factory=dict,
        description="its parameters; `{repetition: {n: 3}}` is short for `{kind: repetition, parameters: {n: 3}}`; "
        "`name` stores its scores under another name",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, dict) and len(value) == 1 and "kind" not in value:
            ((kind, parameters),) = value.items()
            return {"kind": kind, "parameters": parameters or {}}
        return value

    @model_validator(mode="after")
    def _exists(self) -> Self:
        registry.configure(self.kind, self.parameters)
        return self

    @property
    def name(self) -> str:
        """The name under which its scores are stored."""
        return str(self.parameters.get("name", self.kind))


class Policy(_Settings):
    """Which requests are scored by which evaluators: a share of those that `where` describes.

    `where` compares columns of the request with a value or a list of values; nothing in it means every request.
    Failed requests are recorded always if `always_on_errors`, whatever the rate.
    """

    where: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="columns of the request with a value or a list of values; nothing in it means every request",
    )
    rate: float = Field(default=1.0, ge=0, le=1, description="share of those requests that is scored")
    evaluators: tuple[EvaluatorUse, ...] = Field(min_length=1, description="who scores them")
    always_on_errors: bool = Field(default=True, description="failed requests are recorded whatever the rate")

    @field_validator("where", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        unknown = sorted(str(key) for key in value if key not in WHERE)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is not one of {', '.join(WHERE)}")
        return {
            key: tuple(map(str, each)) if isinstance(each, list | tuple) else (str(each),)
            for key, each in value.items()
        }


def _default_policies() -> tuple[Policy, ...]:
    evaluators = tuple(EvaluatorUse(kind=name) for name in CHEAP)
    return (Policy(where={"operation": ("chat",)}, rate=1.0, evaluators=evaluators),)


def _judge_policy() -> Policy:
    return Policy(where={"operation": ("chat",)}, rate=0.05, evaluators=(EvaluatorUse(kind="judge"),))


class EvalSettings(_Settings):
    """All of `evals:`.  By default the cheap evaluators score every chat, and a judge, if one is set, 5 % of them."""

    policies: tuple[Policy, ...] | None = Field(
        default=None,
        description="which requests are scored by whom; by default the cheap evaluators score every chat, "
        "and a judge, if one is set, 5 % of them",
    )
    judge: JudgeSettings | None = Field(default=None, description="the model that scores answers; none unless set")
    settle_seconds: float = Field(
        default=5.0,
        ge=0,
        le=3_600,
        description="how long a request is left alone after it is stored: a better vantage of the call may take over",
    )
    batch: int = Field(default=500, ge=1, le=10_000, description="requests scored in one round at most")
    interval_seconds: float = Field(
        default=1.0, gt=0, le=3_600, description="time between two rounds when there is nothing to do"
    )
    share_under_load: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="of its time that scoring works while requests are coming in, which go first; "
        "what waits for it is `tidegauge_eval_backlog`",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.judge is None and any(
            use.kind == "judge" for policy in self.policies or () for use in policy.evaluators
        ):
            raise ValueError("a policy asks for the judge, but judge.url and judge.model are not set")
        seen: dict[str, EvaluatorUse] = {}
        for policy in self.effective_policies():
            for use in policy.evaluators:
                if seen.setdefault(use.name, use) != use:
                    raise ValueError(
                        f"evaluator {use.name!r} has two sets of parameters; give one of them another name"
                    )
        return self

    def effective_policies(self) -> tuple[Policy, ...]:
        """The policies as written, else the defaults."""
        if self.policies is not None:
            return self.policies
        return (*_default_policies(), _judge_policy()) if self.judges else _default_policies()

    @property
    def judges(self) -> bool:
        """Whether there is a judge, and it may use tokens."""
        return self.judge is not None and self.judge.tokens_per_day > 0
