"""A vLLM server in a process of its own: started, waited for, ended with all its children."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.vllm_setup import Installation

MODEL = "smollm2-135m-instruct"
START_SECONDS = 420.0
STOP_SECONDS = 20.0
# Of 128 tokens each: some 30 short chats at a time, and the cache is full.
KV_BLOCKS = 34


class EngineFailed(Exception):
    """vLLM did not start; the message ends with its log."""


@dataclass(frozen=True)
class Engine:
    """A running engine; `started_in` is seconds."""

    url: str
    address: str
    started_in: float


@contextmanager
def engine(place: Installation, port: int, otlp_url: str, log: Path, tell: Callable[[str], None]) -> Iterator[Engine]:
    """The engine on a loopback port, tracing to `otlp_url`; raises EngineFailed."""
    address = f"127.0.0.1:{port}"
    began = time.monotonic()
    with log.open("w") as sink:
        process = subprocess.Popen(
            _command(place, port, otlp_url),
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=_environment(place, address),
            cwd=place.root,
            # The engine's core is a child of its own, to be ended with it.
            start_new_session=True,
        )
    try:
        _wait(process, f"http://{address}/health", log, tell)
        yield Engine(f"http://{address}", address, time.monotonic() - began)
    finally:
        _end(process)


def _command(place: Installation, port: int, otlp_url: str) -> list[str]:
    # In production the engine is another machine; nice leaves the others their share of this one.
    return ["nice", "-n", "5", str(place.python), "-m", "vllm.entrypoints.openai.api_server"] + [
        f"--{key}={value}"
        for key, value in {
            "model": place.model,
            "served-model-name": MODEL,
            "host": "127.0.0.1",
            "port": port,
            "max-model-len": 2048,
            "max-num-seqs": 32,
            "num-gpu-blocks-override": KV_BLOCKS,
            "otlp-traces-endpoint": f"{otlp_url}/v1/traces",
        }.items()
    ]


def _environment(place: Installation, address: str) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{place.python.parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "vllm",
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={address}",
    }


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < START_SECONDS:
        if process.poll() is not None:
            raise EngineFailed(f"vLLM ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        tell(f"vLLM is starting, {passed:.0f} s")
        time.sleep(1.0)
    raise EngineFailed(f"vLLM does not answer after {START_SECONDS:.0f} s:\n{log.read_text()[-3000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        # Also when the leader has gone: its children may be there still.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
