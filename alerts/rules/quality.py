"""Are the answers any good, and does the judging work."""

from alerts.rule import Case, Rule, Severity
from alerts.settings import AlertSettings, QualityBound

_SLICE = 'model="llama",tenant="bank"'
_LABELS = {"model": "llama", "tenant": "bank"}


def rules(settings: AlertSettings) -> tuple[Rule, ...]:
    """A rule for each bound that is set, and those about the evaluations themselves."""
    return (*(_crossed(bound) for bound in settings.quality), *_EVALUATIONS)


def _crossed(bound: QualityBound) -> Rule:
    """The whole confidence interval is beyond the bound: chance alone does not page."""
    words = "".join(part.capitalize() for part in bound.evaluator.split("_"))
    low = bound.above is None
    limit = bound.below if bound.above is None else bound.above
    end, sign = ("ci_high", "<") if low else ("ci_low", ">")
    chosen = f'{{evaluator="{bound.evaluator}"}}'
    return Rule(
        name=f"LLMEval{words}{'Low' if low else 'High'}",
        expr=f"""
            tidegauge_eval_score_mean{chosen}
            and
            tidegauge_eval_score_mean_{end}{chosen} {sign} {limit:g}
            and
            tidegauge_eval_score_samples{chosen} > {{minimum_scores}}
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary=f"{bound.evaluator} of {{{{ $labels.model }}}} for {{{{ $labels.tenant }}}} is "
        '{{ $value | printf "%.2f" }}, ' + f"{'below' if low else 'above'} {limit:g}",
        description=f"The whole 95 % confidence interval of the mean lies {'below' if low else 'above'} {limit:g}: "
        "this is not chance. Look at the worst requests, and at what was deployed.",
        runbook="eval-score",
        dashboard="quality",
        scope=("model", "tenant"),
        fires=(
            Case(
                "the interval is beyond the bound",
                _scores(bound, crossed=True, count="{minimum_scores*10}"),
                "4m",
                {**_LABELS, "evaluator": bound.evaluator},
                value=_mean(bound, crossed=True),
            ),
        ),
        silent=(
            Case("the interval holds the bound", _scores(bound, crossed=False, count="{minimum_scores*10}"), "4m"),
            Case("too few scores", _scores(bound, crossed=True, count="{minimum_scores*0.5}"), "4m"),
        ),
    )


def _mean(bound: QualityBound, *, crossed: bool) -> float:
    below, above = bound.below, bound.above
    limit = below if below is not None else above or 0.0
    away = -0.2 if below is not None else 0.2
    return round(limit + (away if crossed else away / 10), 6)


def _scores(bound: QualityBound, *, crossed: bool, count: str) -> dict[str, str]:
    labels = f'{{evaluator="{bound.evaluator}",{_SLICE}}}'
    mean = _mean(bound, crossed=crossed)
    return {
        f"tidegauge_eval_score_mean{labels}": f"{mean:g}x20",
        f"tidegauge_eval_score_mean_ci_low{labels}": f"{mean - 0.1:g}x20",
        f"tidegauge_eval_score_mean_ci_high{labels}": f"{mean + 0.1:g}x20",
        f"tidegauge_eval_score_samples{labels}": f"{count}x20",
    }


_EVALUATIONS = (
    Rule(
        name="LLMEvalsFail",
        expr="""
            (
              sum by (evaluator) (increase(tidegauge_evals_total{status="failed"}[{15m}]))
              /
              sum by (evaluator) (increase(tidegauge_evals_total[{15m}]))
            ) > {eval_failure_ratio}
            and
            sum by (evaluator) (increase(tidegauge_evals_total{status="failed"}[{15m}])) > 5
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of the evaluations by {{ $labels.evaluator }} fail",
        description="Its mean stands on what is left, and what fails is seldom a random part.",
        runbook="evals-fail",
        dashboard="quality",
        fires=(
            Case(
                "every second fails",
                {
                    'tidegauge_evals_total{evaluator="judge",status="failed"}': "0+10x100",
                    'tidegauge_evals_total{evaluator="judge",status="scored"}': "0+10x100",
                },
                "22m",
                {"evaluator": "judge"},
                value=0.5,
            ),
        ),
        silent=(
            Case(
                "they do not apply, which is no failure",
                {
                    'tidegauge_evals_total{evaluator="judge",status="failed"}': "0x100",
                    'tidegauge_evals_total{evaluator="judge",status="not_applicable"}': "0+10x100",
                },
                "22m",
            ),
        ),
    ),
    Rule(
        name="LLMJudgeFails",
        expr="""
            (
              sum (increase(tidegauge_judge_requests_total{outcome!~"ok|budget_exhausted"}[{15m}]))
              /
              sum (increase(tidegauge_judge_requests_total{outcome!="budget_exhausted"}[{15m}]))
            ) > {eval_failure_ratio}
            and
            sum (increase(tidegauge_judge_requests_total{outcome!~"ok|budget_exhausted"}[{15m}])) > 5
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of the calls to the judge fail",
        description="The outcomes say why: a timeout, a rate limit, an error, or an answer that is not the schema's. "
        "Calls are retried; what stays failed is a score with status failed, never an invented one.",
        runbook="judge-fails",
        dashboard="quality",
        fires=(
            Case(
                "half of the calls time out",
                {
                    'tidegauge_judge_requests_total{outcome="ok"}': "0+4x100",
                    'tidegauge_judge_requests_total{outcome="timeout"}': "0+4x100",
                },
                "22m",
                value=0.5,
            ),
        ),
        silent=(
            Case(
                "the budget is used up, which has an alert of its own",
                {
                    'tidegauge_judge_requests_total{outcome="ok"}': "0+4x100",
                    'tidegauge_judge_requests_total{outcome="budget_exhausted"}': "0+40x100",
                },
                "22m",
            ),
        ),
    ),
    Rule(
        name="LLMJudgeBudgetUsedUp",
        expr='sum (increase(tidegauge_judge_requests_total{outcome="budget_exhausted"}[{15m}])) > 0',
        severity=Severity.INFO,
        summary="The judge's token budget of the day is used up",
        description="Requests that should be judged are not until tomorrow. Lower the policy's rate, or raise "
        "evals.judge.tokens_per_day.",
        runbook="judge-budget",
        dashboard="quality",
        fires=(
            Case(
                "refused for the budget",
                {'tidegauge_judge_requests_total{outcome="budget_exhausted"}': "0x10 0+1x50"},
                "12m",
            ),
        ),
        silent=(Case("the judge answers", {'tidegauge_judge_requests_total{outcome="ok"}': "0+4x60"}, "12m"),),
    ),
)
