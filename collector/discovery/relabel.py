"""Relabelling of targets, as Prometheus does it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import re2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Action = Literal[
    "replace",
    "keep",
    "drop",
    "keepequal",
    "dropequal",
    "hashmod",
    "labelmap",
    "labeldrop",
    "labelkeep",
    "lowercase",
    "uppercase",
]
_NEED_TARGET = ("replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal")
_REGEX_ALONE = ("labeldrop", "labelkeep")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)
ANYTHING = "(.*)"


def anchored(pattern: str) -> Any:
    """The whole of a text, newlines included, in the syntax that Prometheus takes.  Raises ValueError."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"^(?s:{pattern})$", options)
    except re2.error as error:
        said = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{pattern!r} is no regular expression (RE2): {said}") from None


def _compiles(pattern: str) -> str:
    anchored(pattern)
    return pattern


class RelabelSettings(BaseModel):
    """One step of relabelling, with Prometheus's keys, defaults and meaning; the steps are taken in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_labels: Sequence[str] = Field(default=(), description="whose values are put together")
    separator: str = Field(default=";", description="between them")
    regex: Annotated[str, AfterValidator(_compiles)] = Field(
        default=ANYTHING, description="what the whole of it, or of a label's name, has to match (RE2)"
    )
    modulus: int = Field(default=0, ge=0, description="of `hashmod`")
    target_label: str = Field(default="", description="what `replace`, `hashmod` and the like write, or compare with")
    replacement: str = Field(default="$1", description="what is written; `$1` or `${name}` is a group of the match")
    action: Action = Field(default="replace", description="what to do")

    @field_validator("action", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.action in _NEED_TARGET and not self.target_label:
            raise ValueError(f"target_label is missing; action {self.action} writes or compares it")
        if self.action == "hashmod" and not self.modulus:
            raise ValueError("modulus is missing; hashmod divides by it")
        if self.action in ("hashmod", "lowercase", "uppercase", "keepequal", "dropequal") and not _is_name(
            self.target_label
        ):
            raise ValueError(f"target_label {self.target_label!r} is no label name; letters, digits and _ only")
        given = self.model_fields_set - {"action", "regex"}
        if self.action in _REGEX_ALONE and given:
            raise ValueError(f"{min(given)} has no meaning for action {self.action}, which takes regex alone")
        equal = self.model_fields_set - {"action", "source_labels", "target_label"}
        if self.action in ("keepequal", "dropequal") and equal:
            raise ValueError(f"{min(equal)} has no meaning for action {self.action}")
        return self


def _is_name(text: str) -> bool:
    return _LABEL_NAME.fullmatch(text) is not None


class Relabelling:
    """Some steps, ready to be taken many times.

    >>> steps = Relabelling([RelabelSettings(source_labels=["__meta_zone"], target_label="zone")])
    >>> steps.of({"__meta_zone": "a"})
    {'__meta_zone': 'a', 'zone': 'a'}
    """

    def __init__(self, steps: Sequence[RelabelSettings]) -> None:
        self._steps = [(step, anchored(step.regex)) for step in steps]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def of(self, labels: Mapping[str, str]) -> dict[str, str] | None:
        """The labels after all steps; None of a target that one of them drops."""
        changed = {name: value for name, value in labels.items() if value}
        for step, pattern in self._steps:
            if not _step(step, pattern, changed):
                return None
        return changed


def _step(step: RelabelSettings, pattern: Any, labels: dict[str, str]) -> bool:
    """Changes the labels; whether the target stays."""
    value = step.separator.join(labels.get(name, "") for name in step.source_labels)
    match step.action:
        case "keep":
            return pattern.fullmatch(value) is not None
        case "drop":
            return pattern.fullmatch(value) is None
        case "keepequal":
            return labels.get(step.target_label, "") == value
        case "dropequal":
            return labels.get(step.target_label, "") != value
        case "lowercase":
            _set(labels, step.target_label, value.lower())
        case "uppercase":
            _set(labels, step.target_label, value.upper())
        case "hashmod":
            _set(labels, step.target_label, str(hashmod(value, step.modulus)))
        case "replace":
            _replace(step, pattern, value, labels)
        case _:
            _by_name(step, pattern, labels)
    return True


def _replace(step: RelabelSettings, pattern: Any, value: str, labels: dict[str, str]) -> None:
    found = pattern.fullmatch(value)
    if found is None:
        return
    name = expanded(step.target_label, found)
    if _is_name(name):
        _set(labels, name, expanded(step.replacement, found))


def _by_name(step: RelabelSettings, pattern: Any, labels: dict[str, str]) -> None:
    """The actions that go by the labels' names."""
    matches = {name: found for name in labels if (found := pattern.fullmatch(name)) is not None}
    if step.action == "labelmap":
        mapped = {expanded(step.replacement, found): labels[name] for name, found in matches.items()}
        labels.update({name: value for name, value in mapped.items() if _is_name(name)})
        return
    for name in list(labels):
        if (name in matches) is (step.action == "labeldrop"):
            del labels[name]


def _set(labels: dict[str, str], name: str, value: str) -> None:
    """Writes a label; an empty one is none."""
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


def expanded(template: str, found: Any) -> str:
    """A template with the groups of a match, by the rules of Go: `$1x` is a group called `1x`, which is nothing.

    >>> expanded("${1}-$2$$", anchored("(a)(b)").fullmatch("ab"))
    'a-b$'
    """

    def group(reference: re.Match[str]) -> str:
        if reference.group(1):
            return "$"
        name = reference.group(2) or reference.group(3)
        try:
            return found.group(int(name) if name.isdigit() else name) or ""
        except (IndexError, KeyError):
            return ""

    return _REFERENCE.sub(group, template)


def hashmod(value: str, modulus: int) -> int:
    """Prometheus's hash of a text, modulo: the last eight bytes of its MD5, so that both split a fleet alike."""
    digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "big") % modulus
