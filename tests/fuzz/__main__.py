"""Coverage-guided fuzzing.

    python -m tests.fuzz otlp_protobuf|otlp_json|exposition [--seconds 600] [--runs N] [--seed N]

An input that breaks something is written to `crash-…` in the current directory; give it as last argument to see it
again.  `make fuzz` runs all three for ten minutes each.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["collector", "catalog.dialect", "store.batch"]):
    from tests.fuzz.targets import TARGETS, seeds

# A hang is a failure, and so is memory that grows without bound.
HANG_SECONDS = 10
MEMORY_MB = 2048
LONGEST = 64 * 1024


def main() -> None:
    """Reads the command line and fuzzes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--runs", type=int, default=-1, help="inputs at most; -1 is no bound")
    parser.add_argument("--seed", type=int, default=0, help="0 is another one each time")
    parser.add_argument("inputs", nargs="*", help="inputs to try once, instead of fuzzing")
    args = parser.parse_args()
    target = TARGETS[args.target]()
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(args.target)):
            (Path(corpus) / f"{number:03}").write_bytes(seed)
        options = [f"-max_total_time={args.seconds}", f"-runs={args.runs}", f"-seed={args.seed}"]
        options += [f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}"]
        atheris.Setup([sys.argv[0], *options, *(args.inputs or [corpus])], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
