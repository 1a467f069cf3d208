"""CPU time per span of reading OTLP: parsing, decoding to Arrow, and the least that reading in Python can cost.

    python -m benchmarks.otlp_decode [--recording otlp.tar.xz] [--rounds 30]

`floor` parses and touches each attribute once, with nothing made of it.  Once for the load's spans (1.5 KB, 200 a
request; `benchmarks/load.py`) and once for a recording of production (8 spans a request), in protobuf and in JSON.
Prints a JSON line each, in microseconds per span: the best round, as other processes only ever add.
"""

import argparse
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import process_time

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.load import Template
from collector.otlp.decode import Decoder
from collector.otlp.parse import JSON, PROTOBUF, parse
from collector.otlp.settings import OtlpSettings

RECORDING = Path(__file__).parent.parent / "service" / "recordings" / "production" / "otlp.tar.xz"
RECORDED_REQUESTS = 60
LOAD_REQUESTS = 8


def load_bodies() -> list[bytes]:
    """Requests as the load sends them."""
    rng = random.Random(1)
    return [Template(rng, 200, 250).fresh(rng)[0] for _ in range(LOAD_REQUESTS)]


def recorded_bodies(path: Path) -> list[bytes]:
    """The first recorded requests."""
    with tarfile.open(path) as archive:
        members = (member for member in archive if member.name.endswith(".pb"))
        return [archive.extractfile(member).read() for member in islice(members, RECORDED_REQUESTS)]  # type: ignore[union-attr]


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """All spans of a request."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            yield from scope.spans


def as_json(body: bytes) -> bytes:
    """The request as OTLP/JSON, with ids in hex."""
    request = ExportTraceServiceRequest.FromString(body)
    document = MessageToDict(request)
    written = (
        span for resource in document["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
    )
    for span, sent in zip(written, spans_of(request), strict=True):
        span |= {"traceId": sent.trace_id.hex(), "spanId": sent.span_id.hex()}
        if sent.parent_span_id:
            span["parentSpanId"] = sent.parent_span_id.hex()
        span.pop("links", None)
    return json.dumps(document).encode()


def touch(request: ExportTraceServiceRequest) -> None:
    """Reads each attribute once."""
    for span in spans_of(request):
        for attribute in span.attributes:
            _ = attribute.key, attribute.value.string_value


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of CPU time of the quickest round."""
    times = []
    for _ in range(rounds):
        started = process_time()
        work()
        times.append(process_time() - started)
    return min(times)


def measure(bodies: list[bytes], media: str, rounds: int) -> dict[str, float]:
    """Microseconds per span."""
    decoder = Decoder(OtlpSettings(), b"benchmark-key")
    requests = [parse(body, media, ExportTraceServiceRequest) for body in bodies]
    spans = sum(1 for request in requests for _ in spans_of(request))

    def parsing() -> None:
        for body in bodies:
            parse(body, media, ExportTraceServiceRequest)

    def decoding() -> None:
        for request in requests:
            decoder.decode(request, 1_900_000_000.0)

    def floor() -> None:
        for body in bodies:
            touch(ExportTraceServiceRequest.FromString(body))

    found = {"parse": best(parsing, rounds), "decode": best(decoding, rounds)}
    if media == PROTOBUF:
        found["floor"] = best(floor, rounds)
    return {name: round(seconds / spans * 1e6, 1) for name, seconds in found.items()} | {"spans": spans}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--recording", type=Path, default=RECORDING)
    arguments.add_argument("--rounds", type=int, default=30)
    options = arguments.parse_args()
    for source, raws in (("load", load_bodies()), ("recording", recorded_bodies(options.recording))):
        for media in (PROTOBUF, JSON):
            sent = raws if media == PROTOBUF else [as_json(raw) for raw in raws]
            print(json.dumps({"source": source, "media": media, **measure(sent, media, options.rounds)}))
