"""`docs/configuration.md`, made from the settings models.  `python -m service.config_reference` writes it again."""

import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from service.config import ENVIRONMENT_KEYS, Config
from service.config_faults import SHAPES

PAGE = Path("docs/configuration.md")
COMMAND = "python -m service.config_reference"
WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", ByteSize: "size",
         SecretStr: "secret"}  # fmt: skip
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
# What a validator tells about a value, in a word.
VALIDATORS = {"seconds": "duration", "_address": "host:port"}
SECONDS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
HEAD = """\
# Configuration

One YAML file. Every key has a default; an empty file serves this machine with whatever arrives. `tidegauge init` writes
a commented one, `tidegauge check` validates it, `tidegauge check --live` says what it would find.

```yaml
{example}```

## Environment and secrets

{overrides} override their keys, in the file or without one.

`${{VAR}}` anywhere in a value is replaced from the environment; a variable that is not set is an error. A key that ends
in `_file` names a file that holds the value, so that the secret is not in the configuration:

```yaml
evals:
  judge: {{url: "http://judge:8000/v1", model: llama-3-70b, api_key_file: judge.key}}
scrape:
  targets:
    - {{url: "http://gpu-7:8080/metrics", bearer_token: "${{LLAMA_KEY}}"}}
```

Relative paths are relative to the directory in which `tidegauge` is started.

## Errors

A configuration with a fault does not start. All faults are told at once, each with its key:

```
tidegauge.yaml: 2 problems
  drift.signals[1].clumn: there is no such key; did you mean 'column'?
  scrape.targets[0].ulr: there is no such key; did you mean 'url'?
```

`tidegauge check` exits 2 then.

## Kinds of values

| | |
|---|---|
| duration | `250ms`, `5s`, `1h30m`; also a number of seconds; in the keys of `alerts` one number and one unit |
| size | `16MiB`, `300MB`; also a number of bytes, except in the keys of `store` |
| list, mapping | as YAML writes them |

A key with `[]` is one of a list's entries. Where no default is given, nothing is set.
"""
EXAMPLE = """\
listen: 127.0.0.1:8433
data: /var/lib/tidegauge
scrape:
  targets:
    - url: http://gpu-7:8000/metrics
      labels: {environment: prod}
  file_sd: [targets/*.yaml]
drift:
  signals:
    - {name: refusal, column: scores.refusal, by: [model, tenant, prompt_version]}
"""


@dataclass(frozen=True)
class Key:
    """One key: its path, what it takes, its default as YAML, its meaning."""

    path: str
    takes: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys of one model, at one place of the file."""

    path: str
    about: str
    keys: tuple[Key, ...]


def sections(model: type[BaseModel] = Config, path: str = "") -> Iterator[Section]:
    """Every model below `model`, in the order of the file."""
    keys, nested = [], []
    for name, field in model.model_fields.items():
        place = f"{path}.{name}".lstrip(".")
        inner, many = _model_of(field.annotation)
        if inner is not None:
            nested.append((inner, f"{place}[]" if many else place))
        if inner is None or many or field.default is None:
            keys.append(Key(place, _takes(field), _default(field), field.description or ""))
    yield Section(path, _about(model), tuple(keys))
    for inner, place in nested:
        yield from sections(inner, place)


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that an annotation holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) is Mapping:
        return None, False
    for part in typing.get_args(annotation):
        found, many = _model_of(part)
        if found is not None:
            return found, many or typing.get_origin(annotation) not in (typing.Union, types.UnionType)
    return None, False


def _takes(field: FieldInfo) -> str:
    """The kind of value, and its bounds."""
    kind = _kind(field.annotation, field.metadata)
    limits = [
        f"{sign} {_shown(getattr(item, name), kind)}"
        for item in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(item, name)
    ]
    return ", ".join([kind, *limits])


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0], parts[1:])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(part for part in parts if part is not type(None)), metadata)
    told = next(filter(None, map(_told, metadata)), None)
    if told is not None:
        return told
    if origin is typing.Literal:
        return " or ".join(f"`{item}`" for item in parts)
    if origin is not None:
        return "mapping" if issubclass(origin, Mapping) else "list"
    if issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return "mapping" if issubclass(annotation, BaseModel) else WORDS[annotation]


def _told(item: Any) -> str | None:
    """What one piece of a field's metadata says about its kind."""
    function = getattr(getattr(item, "func", None), "__name__", "")
    pattern = getattr(item, "pattern", None) or ""
    return VALIDATORS.get(function) or next((word for piece, (word, _) in SHAPES.items() if piece in pattern), None)


def _default(field: FieldInfo) -> str:
    """The default as one writes it; empty for none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, tuple):
        value = [item.model_dump(mode="json", exclude_unset=True) if isinstance(item, BaseModel) else item
                 for item in value]  # fmt: skip
        return f"`{_yaml(value)}`"
    return f"`{_shown(value, _kind(field.annotation, field.metadata))}`"


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, width=10_000)
    return str(text.strip())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value.value) if isinstance(value, enum.Enum) else value


def _shown(value: Any, kind: str) -> str:
    """A value as people write it: `5m`, `16MiB`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if kind == "duration" and isinstance(value, float | int) and value:
        return _in_units(value, SECONDS) or f"{value * 1000:g}ms"
    if kind == "size" and isinstance(value, int) and value:
        return _in_units(value, BYTES) or str(value)
    return f"{value:,.12g}".replace(",", "_") if isinstance(value, float | int) else str(value)


def _in_units(value: float, units: Sequence[tuple[int, str]]) -> str | None:
    return next((f"{value / size:g}{unit}" for size, unit in units if value % size == 0), None)


def page() -> str:
    """The whole page."""
    overrides = ", ".join(f"`TIDEGAUGE_{key.upper()}`" for key in ENVIRONMENT_KEYS)
    mark = f"<!-- Generated by `{COMMAND}` from the settings models; changes are lost. -->"
    return "\n".join([mark, HEAD.format(example=EXAMPLE, overrides=overrides), *map(_section, sections())])


def _section(section: Section) -> str:
    title = f"`{section.path}`" if section.path else "At the top"
    rows = [f"| `{key.path}` | {key.takes} | {key.default} | {key.meaning} |" for key in section.keys]
    table = ["| key | takes | default | |", "|---|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {title}", "", section.about, "", *table])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
