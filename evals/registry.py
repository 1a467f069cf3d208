"""Which evaluators there are: ours, found by reflection, and those that other packages bring."""

import hashlib
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import Any, cast

from evals import evaluators
from evals.evaluator import AsyncEvaluator, Evaluator, Sample, Scale, Score

GROUP = "tidegauge.evaluators"
# Arguments of evaluators that the program hands over, and nobody configures.
PARTS = ("client",)
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


class UnknownEvaluator(ValueError):
    """No evaluator has that name."""


class BadParameters(ValueError):
    """The evaluator does not take these parameters."""


@dataclass(frozen=True)
class Configured:
    """An evaluator as a policy uses it, under a name of its own.

    Its version carries a digest of the parameters, if it was given any: other parameters, other scores.
    """

    name: str
    version: str
    evaluator: Evaluator | AsyncEvaluator

    @property
    def reads(self) -> Sequence[str]:
        return self.evaluator.reads

    @property
    def scale(self) -> Scale:
        return self.evaluator.scale

    def score(self, sample: Sample) -> Score:
        """The score of an evaluator that scores at once."""
        return cast(Evaluator, self.evaluator).score(sample)

    async def ask(self, sample: Sample) -> Score:
        """The score of an evaluator that asks somebody else."""
        return await cast(AsyncEvaluator, self.evaluator).ask(sample)

    # Asked for every score, and looking at all members of a protocol takes longer than many a score.
    @cached_property
    def asks(self) -> bool:
        """Whether it asks somebody else, and so has to be awaited."""
        return isinstance(self.evaluator, AsyncEvaluator)


@cache
def classes() -> Mapping[str, type[Any]]:
    """Evaluator classes by name, ours first; a plugin cannot replace one of ours, nor another plugin's."""
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(evaluators.__path__, f"{evaluators.__name__}."):
        for kind in _evaluators_of(importlib.import_module(module.name)):
            _add(found, kind, module.name)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _add(found, entry.load(), entry.value)
    return found


def _evaluators_of(module: Any) -> list[type[Any]]:
    kinds = (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__)
    return [kind for kind in kinds if hasattr(kind, "score") or hasattr(kind, "ask")]


def _add(found: dict[str, type[Any]], kind: type[Any], where: str) -> None:
    missing = [each for each in ("name", "version", "reads", "scale") if not hasattr(kind, each)]
    if missing:
        raise TypeError(f"{where}: evaluator {kind.__name__} has no {', '.join(missing)}")
    if kind.name in found:
        raise ValueError(f"{where}: there is an evaluator {kind.name!r} already, {found[kind.name].__module__}")
    found[kind.name] = kind


def configure(kind: str, parameters: Mapping[str, Any] | None = None, **parts: Any) -> Configured:
    """The evaluator of that kind; the parameter `name` gives it another name.

    `parts` are what the program hands to evaluators that ask for it by name (the judge's client), not parameters.
    Raises UnknownEvaluator or BadParameters.
    """
    if kind not in classes():
        raise UnknownEvaluator(f"no evaluator {kind!r}; there are {', '.join(sorted(classes()))}")
    given = dict(parameters or {})
    name = str(given.pop("name", kind))
    if not NAME.fullmatch(name):
        raise BadParameters(f"{kind}: name {name!r} is not lower case letters, digits and underscores")
    found = classes()[kind]
    wanted = {key: part for key, part in parts.items() if key in inspect.signature(found).parameters}
    takes = [key for key in inspect.signature(found).parameters if key not in PARTS]
    unknown = sorted(set(given) - set(takes))
    if unknown:
        raise BadParameters(f"{kind}: no parameter {', '.join(unknown)}; it takes {', '.join(['name', *takes])}")
    try:
        evaluator = found(**given, **wanted)
    except (TypeError, ValueError) as error:
        raise BadParameters(f"{kind}: {error}") from None
    version = str(evaluator.version)
    return Configured(name, f"{version}+{_digest(given)}" if given else version, evaluator)


def _digest(parameters: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()[:8]
