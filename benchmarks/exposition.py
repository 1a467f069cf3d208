"""How fast a recorded vLLM's scrapes go through parser, mapping and exposition, beside prometheus_client's parser.

python benchmarks/exposition.py [SECONDS]
"""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from prometheus_client.parser import text_string_to_metric_families

from catalog.clock import SystemClock
from collector.engine_mapping import EngineMapper
from collector.engine_state import EngineStates
from collector.exposition.parser import ExpositionParser
from collector.served import Served
from collector.targets import checked

SCRAPES = Path(__file__).parents[1] / "tests" / "data" / "engines" / "vllm-0.32.0"


def rate(work: Callable[[str], int], texts: list[str], seconds: float) -> float:
    """Samples per second, the best of three tries, so that other processes count little."""
    best = 0.0
    for _ in range(3):
        samples, began = 0, perf_counter()
        while perf_counter() - began < seconds / 3:
            samples += sum(work(text) for text in texts)
        best = max(best, samples / (perf_counter() - began))
    return best


def main(seconds: float) -> None:
    """Prints one line per stage."""
    texts = [gzip.decompress(path.read_bytes()).decode() for path in sorted(SCRAPES.glob("*.gz"))[-8:]]
    target = checked("http://engine:8000")
    warm, mapper, states = ExpositionParser(), EngineMapper(target), EngineStates()
    clock = SystemClock()
    served = Served(clock, 60)

    def cached(text: str) -> int:
        return len(warm.parse(text).values)

    def fresh(text: str) -> int:
        return len(ExpositionParser().parse(text).values)

    def mapped(text: str) -> int:
        scrape = warm.parse(text)
        served.put(mapper.map(scrape, clock.now()))
        return len(scrape.values)

    def stored(text: str) -> int:
        scrape = warm.parse(text)
        states.rows(mapper.map(scrape, clock.now()))
        return len(scrape.values)

    def rendered(text: str) -> int:
        served.render()
        return mapped(text)

    def others(text: str) -> int:
        return sum(len(family.samples) for family in text_string_to_metric_families(text))

    stages = {
        "parse, series known": cached,
        "parse, first scrape": fresh,
        "parse and map": mapped,
        "parse, map, engine_state rows": stored,
        "parse, map and render": rendered,
        "prometheus_client": others,
    }
    for name, work in stages.items():
        print(f"{name:<32}{rate(work, texts, seconds):>14,.0f} samples/s")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
