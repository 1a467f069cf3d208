"""Spans per second of CPU time from protobuf bytes to an Arrow table, on a recording of production.

    python benchmarks/otlp_decode.py [otlp.tar.xz] [--batch 1]

The recording is the demo's unless one is named (DIR/otlp.tar.xz as `tidegauge record` writes it).  Exporters send
about 8 spans a request in it; `--batch N` joins N requests to one, as a collector before Tidegauge would.
"""

import argparse
import json
import tarfile
from pathlib import Path
from time import process_time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.otlp.decode import Decoder
from collector.otlp.parse import PROTOBUF, parse
from collector.otlp.settings import OtlpSettings

RECORDING = Path(__file__).parent.parent / "service" / "recordings" / "production" / "otlp.tar.xz"


def bodies(path: Path, batch: int) -> list[bytes]:
    """The recorded request bodies; `batch` of them joined to one (protobuf messages add up)."""
    with tarfile.open(path) as archive:
        found = [archive.extractfile(member).read() for member in archive if member.name.endswith(".pb")]  # type: ignore[union-attr]
    return [b"".join(found[start : start + batch]) for start in range(0, len(found), batch)]


def measure(raws: list[bytes]) -> dict[str, float]:
    """Totals over all bodies."""
    decoder = Decoder(OtlpSettings(), b"benchmark-key")
    spans = 0
    parsing = decoding = 0.0
    for raw in raws:
        started = process_time()
        request = parse(raw, PROTOBUF, ExportTraceServiceRequest)
        parsed = process_time()
        spans += decoder.decode(request, 1_800_000_000.0).table.num_rows
        decoding += process_time() - parsed
        parsing += parsed - started
    total = parsing + decoding
    return {
        "requests": len(raws),
        "bytes": sum(map(len, raws)),
        "spans": spans,
        "parse_s": round(parsing, 3),
        "decode_s": round(decoding, 3),
        "spans_per_second": round(spans / total),
        "megabytes_per_second": round(sum(map(len, raws)) / 1e6 / total, 1),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recording", type=Path, nargs="?", default=RECORDING)
    arguments.add_argument("--batch", type=int, default=1)
    options = arguments.parse_args()
    print(json.dumps(measure(bodies(options.recording, options.batch))))
