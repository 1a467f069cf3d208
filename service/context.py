"""What the HTTP layer needs of the running service."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catalog.clock import Clock
from catalog.instruments import Instruments
from store.reads import Reads
from store.writer import Writer


@dataclass(frozen=True)
class Context:
    """The running service, as its HTTP routes see it.

    `render_metrics` takes an Accept header and gives body and content type; `targets` and `gpus` give one
    JSON-ready mapping each; `problems` says what is not ready, empty when all is; `warnings` what works without
    something that was asked for.
    """

    reads: Reads
    writer: Writer
    clock: Clock
    metrics: Instruments
    public_url: str
    version: str
    render_metrics: Callable[[str], tuple[bytes, str]]
    targets: Callable[[], list[dict[str, Any]]]
    gpus: Callable[[], list[dict[str, Any]]]
    evaluators: Callable[[], list[dict[str, Any]]]
    signals: Callable[[], list[dict[str, Any]]]
    problems: Callable[[], list[str]]
    warnings: Callable[[], list[str]] = list
