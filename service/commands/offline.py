"""`tidegauge evals …` and `tidegauge drift …`: one-off work, and what is configured."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError

from catalog.clock import SystemClock
from evals import offline, registry
from evals.drift import compare
from evals.drift.settings import SignalSettings
from service.commands.common import FAILED, ConfigFile, DataDirectory, Json, ask, fail, load, print_json, print_table

DEFAULT_EVALUATORS = ("json_validity", "json_schema", "refusal", "length", "repetition", "language_consistency")

evals_app = typer.Typer(no_args_is_help=True, help="Evaluators: what is configured, and offline runs.")
drift_app = typer.Typer(no_args_is_help=True, help="Drift: current state, and one-off comparisons.")


@evals_app.command("list")
def evals_list(config: ConfigFile = None, as_json: Json = False) -> None:
    """Show which evaluators score which requests.

    Example: tidegauge evals list
    """
    policies = load(config).evals.effective_policies()
    rows: list[dict[str, Any]] = [
        {"where": dict(policy.where), "rate": policy.rate, "evaluators": [use.name for use in policy.evaluators]}
        for policy in policies
    ]
    if as_json:
        print_json(rows)
        return
    print_table(["where", "rate", "evaluators"], ([r["where"], r["rate"], ", ".join(r["evaluators"])] for r in rows))


@evals_app.command("run")
def evals_run(
    dataset: Annotated[Path, typer.Option("--dataset", help="JSON Lines, Parquet or CSV.")],
    evaluator: Annotated[list[str] | None, typer.Option("--evaluator", help="May be given several times.")] = None,
    as_json: Json = False,
) -> None:
    """Score a file's answers with evaluators.

    Example: tidegauge evals run --dataset answers.jsonl --evaluator refusal
    """
    try:
        used = [registry.configure(kind, {}) for kind in evaluator or DEFAULT_EVALUATORS]
        report = asyncio.run(offline.run_dataset(dataset, used, now=SystemClock().now()))
    except (OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json({"run_id": report.run_id, "items": report.items, **report.counts, "summary": report.summary})
        return
    print_table(
        ["evaluator", "n", "mean", "95 % interval"],
        (
            [row["evaluator"], row["n"], f"{row['mean']:.4g}", f"{row['ci_low']:.4g} … {row['ci_high']:.4g}"]
            for row in report.summary
        ),
        title=f"{dataset}: {report.items} items, "
        + ", ".join(f"{count} {status}" for status, count in report.counts.items()),
    )


@drift_app.command("list")
def drift_list(config: ConfigFile = None, data: DataDirectory = None, as_json: Json = False) -> None:
    """Show the state of every signal and slice of the running service.

    Example: tidegauge drift list
    """
    rows = ask(load(config, data), "/api/v1/drift")["drift"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["signal", "slice", "state", "effect", "interval", "since"],
        (
            [r["signal"], r["slice"], r["state"], r["effect_size"], [r["effect_low"], r["effect_high"]], r["since"]]
            for r in rows
        ),
    )


@drift_app.command("run")
def drift_run(
    signal: Annotated[str, typer.Option("--signal", help="Column that holds the values.")],
    reference: Annotated[Path, typer.Option("--reference", help="File of what was: Parquet, CSV or JSON Lines.")],
    current: Annotated[Path, typer.Option("--current", help="File of what is.")],
    by: Annotated[list[str] | None, typer.Option("--by", help="Dimension to slice by; several times.")] = None,
    as_json: Json = False,
) -> None:
    """Compare one signal in two files; exit 1 if it drifted.

    Example: tidegauge drift run --signal output_tokens --reference may.parquet --current june.parquet
    """
    try:
        settings = SignalSettings(name=signal, column=f"spans.{signal}", by=tuple(by or ()))
        tables = [compare.signal_table(compare.read_file(path), settings) for path in (reference, current)]
        rows = compare.compare_tables(settings, *tables, rng=np.random.default_rng(0))
    except ValidationError as error:
        fail("; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors()))
    except (compare.UnusableFile, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        print_table(
            ["slice", "drift", "p", "effect", "95 % interval", "n reference", "n current"],
            (
                [r["slice"], r["drift"], f"{r['p_value']:.3g}", f"{r['effect_size']:+.4g}",
                 f"{r['effect_low']:+.4g} … {r['effect_high']:+.4g}", r["n_reference"], r["n_current"]]
                for r in (row.as_dict() for row in rows)
            ),
            title=signal,
        )  # fmt: skip
    if any(row.drift for row in rows):
        raise typer.Exit(FAILED)
