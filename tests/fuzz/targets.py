"""What fuzzing throws bytes at, and what must hold for any of them.

Whatever arrives, the receivers answer with one of their own outcomes, never with an error of ours; what was received
is stored, doubled or rejected, each once; and what is stored fits its table.
"""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from catalog.instruments import Instruments
from collector.engine_mapping import EngineMapper
from collector.engine_state import EngineStates
from collector.exposition.model import MalformedExposition, TooManyNewSeries, TooManySeries
from collector.exposition.parser import ExpositionParser, ParserLimits
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.redaction.columns import Privacy
from collector.redaction.settings import PrivacySettings
from collector.served import Served
from collector.targets import checked
from store.batch import Batch, Committed, conform

DATA = Path(__file__).parents[1] / "data"
SIGNALS = tuple(Signal)
OURS = {Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.MALFORMED, Outcome.TOO_LARGE, Outcome.UNSUPPORTED}
MAX_BYTES = 256 * 1024
KEY = b"0123456789abcdef"
NOW = 1_795_470_000.0


class StandingClock:
    """A clock that stands."""

    def now(self) -> float:
        """Unix time."""
        return NOW

    async def sleep(self, seconds: float) -> None:
        """Returns at once."""


class Otlp:
    """The receivers over a store that checks what it is given and keeps nothing."""

    def __init__(self, media: str) -> None:
        self._media = media
        self.metrics = Instruments(CollectorRegistry())
        settings = OtlpSettings(max_request_bytes=MAX_BYTES, max_body_bytes=4 * MAX_BYTES, logs="all")
        privacy = Privacy(PrivacySettings(redact=("secret", "card", "iban", "email", "phone")), KEY, self.metrics)
        submit = privacy.before(self._submit)
        self._receiver = OtlpReceiver(settings, submit, StandingClock(), self.metrics, KEY)
        self._loop = asyncio.new_event_loop()

    def __call__(self, data: bytes) -> Outcome:
        """The first byte chooses signal and encoding, the rest is the body."""
        choice, body = (data[0], data[1:]) if data else (0, b"")
        signal = SIGNALS[choice % len(SIGNALS)]
        encoding = (None, None, None, "gzip", "zstd", "deflate")[choice // 8 % 6]
        received = self._receiver.receive(body, self._media, encoding, Sender("http"), signal)
        outcome = self._loop.run_until_complete(received)
        assert outcome.outcome in OURS, f"{outcome.outcome}: {outcome.message}"
        return outcome.outcome

    def close(self) -> None:
        """Ends the receivers' threads."""
        self._receiver.close()
        self._loop.close()

    def _submit(self, batch: Batch) -> "Future[Committed]":
        rows = {name: conform(name, table).num_rows for name, table in batch.tables.items()}
        done: Future[Committed] = Future()
        done.set_result(Committed(rows, dict.fromkeys(rows, 0), 1))
        return done


class Exposition:
    """Parser, mapping, state and what is served again of one target."""

    def __init__(self) -> None:
        self._target = checked("http://engine:8000/metrics")
        self._limits = ParserLimits(max_series=5_000)
        self._parser = ExpositionParser(self._limits)
        self._mapper = EngineMapper(self._target)
        self._states = EngineStates()
        self._at = NOW

    def __call__(self, data: bytes) -> bool:
        """Whether the text was an exposition."""
        text = data.decode("utf-8", "replace")
        self._at += 1
        try:
            scrape = self._parser.parse(text)
        except (MalformedExposition, TooManySeries, TooManyNewSeries):
            return False
        # A parser that remembers says what one that does not says.
        fresh = ExpositionParser(self._limits).parse(text)
        assert fresh.layout.series == scrape.layout.series
        assert list(map(repr, fresh.values)) == list(map(repr, scrape.values))
        served = Served(StandingClock(), 1e12)
        mapped = self._mapper.map(scrape, self._at)
        self._states.rows(mapped)
        served.put(mapped)
        page, _ = served.render("application/openmetrics-text")
        for _ in text_string_to_metric_families(page.decode()):
            pass
        return True


def otlp_protobuf() -> Callable[[bytes], object]:
    """OTLP bodies as protobuf."""
    return Otlp("application/x-protobuf")


def otlp_json() -> Callable[[bytes], object]:
    """OTLP bodies as JSON."""
    return Otlp("application/json")


def exposition() -> Callable[[bytes], object]:
    """What an engine's `/metrics` may answer."""
    return Exposition()


TARGETS: dict[str, Callable[[], Callable[[bytes], object]]] = {
    "otlp_protobuf": otlp_protobuf,
    "otlp_json": otlp_json,
    "exposition": exposition,
}


def seeds(name: str) -> Iterator[bytes]:
    """Small real inputs to begin with."""
    if name == "exposition":
        for path in sorted((DATA / "engines").rglob("*.prom*"))[:20]:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield raw[:20_000]
        return
    for path in sorted((DATA / "otlp").rglob("*.gz")):
        kind = next((signal for signal in Signal if signal.value in path.name), Signal.TRACES)
        raw = gzip.decompress(path.read_bytes())
        is_json = raw[:1] == b"{"
        if is_json == (name == "otlp_json") and len(raw) < MAX_BYTES:
            yield bytes([SIGNALS.index(kind)]) + raw
    if name == "otlp_json":
        span = {
            "traceId": "ab" * 16,
            "spanId": "cd" * 8,
            "name": "chat",
            "startTimeUnixNano": "1795469990000000000",
            "endTimeUnixNano": 1795469991000000000,
            "attributes": [{"key": "gen_ai.prompt.0.content", "value": {"stringValue": "hi"}}],
        }
        yield b"\0" + json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
