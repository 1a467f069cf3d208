"""Metrics of requests, from the rows that were committed."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.instruments import Instruments
from collector.otlp.settings import RequestMetricsSettings

OTHER = "other"
COLUMNS = (
    "response_model request_model tenant operation service status vantage duration_s time_to_first_token_s "
    "input_tokens output_tokens"
).split()


class Bounded:
    """The first values that come keep their name; past the bound a value is `other`, and counted."""

    def __init__(self, label: str, most: int, characters: int, metrics: Instruments) -> None:
        self._label = label
        self._most = most
        self._characters = characters
        self._folded = metrics.counters.tidegauge_labels_folded_total
        self._known: set[str] = {""}

    def __call__(self, value: str | None, times: int = 1) -> str:
        """The label's value; an unknown one is empty, which Prometheus takes for absent."""
        value = value or ""
        if value in self._known:
            return value
        if len(self._known) <= self._most and len(value) <= self._characters:
            self._known.add(value)
            return value
        self._folded.labels(self._label).inc(times)
        return OTHER


class RequestMetrics:
    """Counts requests, each once; not thread-safe: call it from one thread (the writer's)."""

    def __init__(self, metrics: Instruments, settings: RequestMetricsSettings) -> None:
        characters = settings.max_label_characters
        self._model = Bounded("model", settings.max_models, characters, metrics)
        self._tenant = Bounded("tenant", settings.max_tenants, characters, metrics)
        self._operation = Bounded("operation", settings.max_operations, characters, metrics)
        self._service = Bounded("service", settings.max_services, characters, metrics)
        self._duration = metrics.histograms.gen_ai_client_operation_duration_seconds
        self._first_token = metrics.histograms.gen_ai_client_time_to_first_token_seconds
        self._tokens = metrics.histograms.gen_ai_client_token_usage
        self._requests = metrics.counters.tidegauge_requests_total

    def observe(self, table: pa.Table) -> None:
        """Takes settled requests (rows of the view `requests`); rows that are none, by `is_request`, are left out.

        Give each request once, when its best vantage is known: an engine's span comes before the client's.
        """
        if "is_request" in table.column_names:
            table = table.filter(pc.fill_null(table["is_request"], False))
        counts: Counter[tuple[tuple[str, ...], str]] = Counter()
        for row in table.select([name for name in COLUMNS if name in table.column_names]).to_pylist():
            labels = self._labels(row)
            counts[labels, row.get("status") or "ok"] += 1
            self._observe(row, labels)
        for (labels, status), count in counts.items():
            self._requests.labels(*labels, status).inc(count)

    def _labels(self, row: dict[str, Any]) -> tuple[str, ...]:
        return (
            self._model(row.get("response_model") or row.get("request_model")),
            self._tenant(row.get("tenant")),
            self._operation(row.get("operation")),
            self._service(row.get("service")),
        )

    def _observe(self, row: dict[str, Any], labels: tuple[str, ...]) -> None:
        # What the engine measured of a call that no client reported is no client's time.
        seen_by_client = row.get("vantage") != "engine"
        if seen_by_client and row.get("duration_s") is not None:
            self._duration.labels(*labels).observe(row["duration_s"])
        if seen_by_client and row.get("time_to_first_token_s") is not None:
            self._first_token.labels(*labels).observe(row["time_to_first_token_s"])
        for token_type in ("input", "output"):
            if (tokens := row.get(f"{token_type}_tokens")) is not None:
                self._tokens.labels(*labels, token_type).observe(tokens)
