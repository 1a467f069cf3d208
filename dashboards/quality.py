"""What the answers are worth."""

from dashboards.grafana import Dashboard, Row, Variable, heatmap, stat, table, timeseries
from dashboards.queries import EVAL, increases, per_second

SLICE = "{{evaluator}} {{model}} {{tenant}}"
BY = "evaluator, model, tenant"

SCORES = Row(
    "Scores",
    [
        timeseries(
            "Mean score with its 95 % band",
            "Believe a change only where the bands part. Higher is not always better: `refusal` counts refusals.",
            {
                "mean " + SLICE: f"max by ({BY}) (tidegauge_eval_score_mean{EVAL})",
                "low " + SLICE: f"max by ({BY}) (tidegauge_eval_score_mean_ci_low{EVAL})",
                "high " + SLICE: f"max by ({BY}) (tidegauge_eval_score_mean_ci_high{EVAL})",
            },
            band=("low .*", "high .*"),
            width=16,
            height=10,
            next="Drift / Confirmed drift",
        ),
        timeseries(
            "Scores behind the mean",
            "With less than about thirty a mean says little. A fall to none: sampling or the runner stopped.",
            f"max by ({BY}) (tidegauge_eval_score_samples{EVAL})",
            legend=SLICE,
            height=10,
            next="Evaluations",
        ),
        heatmap(
            "Scores, distribution",
            "A mean of 0.5 may be all middling or half bad: choose one evaluator above to see which.",
            increases("tidegauge_eval_score", EVAL),
            unit="short",
            y_unit="none",
            width=12,
            next="Mean score with its 95 % band",
        ),
        table(
            "Slices",
            "The mean, its interval and n, slice by slice. Next: the worst answers, in the console.",
            {
                "Mean": f"max by ({BY}) (tidegauge_eval_score_mean{EVAL})",
                "Low": f"max by ({BY}) (tidegauge_eval_score_mean_ci_low{EVAL})",
                "High": f"max by ({BY}) (tidegauge_eval_score_mean_ci_high{EVAL})",
                "n": f"max by ({BY}) (tidegauge_eval_score_samples{EVAL})",
            },
            width=12,
            next="Requests and tenants / Tenants",
        ),
    ],
)

RUNNER = Row(
    "Runner and judge",
    [
        timeseries(
            "Evaluations",
            "By what became of them. Much `not_applicable` is an evaluator on the wrong traffic.",
            per_second("tidegauge_evals_total", "evaluator, status", '{evaluator=~"$evaluator"}'),
            legend="{{evaluator}} {{status}}",
            next="Failed evaluations",
        ),
        timeseries(
            "Failed evaluations",
            "Failures are not scores of 0: they are missing. If they are not random, the mean is biased.",
            per_second("tidegauge_evals_total", "evaluator", '{evaluator=~"$evaluator", status="failed"}')
            + " / "
            + per_second("tidegauge_evals_total", "evaluator", '{evaluator=~"$evaluator", status!="not_applicable"}'),
            legend="{{evaluator}}",
            warn=0.01,
            bad=0.1,
            next="Judge calls",
        ),
        timeseries(
            "Judge calls",
            "By outcome. Timeouts and 429: lower its concurrency. Invalid responses: its rubric or model.",
            per_second("tidegauge_judge_requests_total", "outcome"),
            legend="{{outcome}}",
            stack=True,
            next="Judge tokens",
        ),
        timeseries(
            "Judge tokens",
            "What judging costs. Next: what is left for today.",
            per_second("tidegauge_judge_tokens_total", "token_type"),
            legend="{{token_type}}",
            stack=True,
            next="Judge budget left",
        ),
        stat(
            "Judge budget left",
            "At zero the judge waits for tomorrow; lower its rate, or raise `evals.judge.tokens_per_day`.",
            "min(tidegauge_judge_budget_remaining_tokens)",
            warn=100000,
            bad=10000,
            width=8,
            next="Tidegauge itself / Eval backlog",
        ),
    ],
)

DASHBOARD = Dashboard(
    key="quality",
    description="What the answers are worth: scores with their uncertainty, and the health of the scoring.",
    variables=[Variable(name, "tidegauge_eval_score_samples", name) for name in ("evaluator", "model", "tenant")],
    rows=[SCORES, RUNNER],
    since="now-24h",
)
