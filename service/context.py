"""What the HTTP layer needs of the running service."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.ledger import Ledger
from store.reads import Reads
from store.writer import Writer


@dataclass(frozen=True)
class Context:
    """The running service, as its HTTP routes see it.

    `render_metrics` takes an Accept header and gives body and content type; `targets` and `gpus` give one
    JSON-ready mapping each; `problems` says what is not ready, empty when all is; `warnings` what works without
    something that was asked for.  `ledger` has what arrived over OTLP; `listeners` gives each address that was to be
    listened on, with `problem` where it is not; pages of `cors_origins` may send OTLP; `withheld` says how content of
    a tenant is kept, where it is not in full.
    """

    reads: Reads
    writer: Writer
    clock: Clock
    metrics: Instruments
    ledger: Ledger
    public_url: str
    version: str
    render_metrics: Callable[[str], tuple[bytes, str]]
    targets: Callable[[], list[dict[str, Any]]]
    gpus: Callable[[], list[dict[str, Any]]]
    evaluators: Callable[[], list[dict[str, Any]]]
    signals: Callable[[], list[dict[str, Any]]]
    problems: Callable[[], list[str]]
    warnings: Callable[[], list[str]] = list
    discovery: Callable[[], dict[str, Any]] = dict  # the sources of targets, and what was left out of them
    listeners: Callable[[], list[dict[str, Any]]] = list
    cors_origins: tuple[str, ...] = ()
    withheld: Callable[[str | None], str] = lambda tenant: ""
