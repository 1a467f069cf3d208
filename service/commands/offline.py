"""`tidegauge evals …` and `tidegauge drift …`: one-off work, and what is configured."""

from pathlib import Path
from typing import Annotated

import typer

from evals import offline
from evals.drift import compare
from service.commands.common import FAILED, ConfigFile, DataDirectory, Json, ask, fail, load, print_json, print_table

evals_app = typer.Typer(no_args_is_help=True, help="Evaluators: what is configured, and offline runs.")
drift_app = typer.Typer(no_args_is_help=True, help="Drift: current state, and one-off comparisons.")


@evals_app.command("list")
def evals_list(config: ConfigFile = None, as_json: Json = False) -> None:
    """Show which evaluators score which requests.

    Example: tidegauge evals list
    """
    policies = load(config).evals.effective_policies()
    rows = [
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
        report = offline.run_dataset(dataset, evaluator or list(offline.DEFAULT_EVALUATORS))
    except (OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json(report.as_dict())
        return
    print_table(
        ["evaluator", "n", "mean", "95 % interval", "not applicable", "failed"],
        (
            [s["evaluator"], s["n"], s["mean"], s["interval"], s["not_applicable"], s["failed"]]
            for s in report.as_dict()["summary"]
        ),
        title=str(dataset),
    )


@drift_app.command("list")
def drift_list(config: ConfigFile = None, data: DataDirectory = None, as_json: Json = False) -> None:
    """Show the state of every signal and slice of the running service.

    Example: tidegauge drift list
    """
    rows = ask(load(config, data), "/api/v1/drift")["items"]
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
    as_json: Json = False,
) -> None:
    """Compare one signal in two files; exit 1 if it drifted.

    Example: tidegauge drift run --signal output_tokens --reference may.parquet --current june.parquet
    """
    try:
        result = compare.files(signal, reference, current)
    except (OSError, ValueError) as error:
        fail(str(error))
    if as_json:
        print_json(result)
    else:
        print_table(["", signal], result.items())
    if result["drift"]:
        raise typer.Exit(FAILED)
