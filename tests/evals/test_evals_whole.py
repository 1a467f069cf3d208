"""The parts together: a real judge's client in the runner over a real store, and somebody else's evaluator."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from test_evals_judge import GOOD, Endpoint, breaks_off, hangs, html, status
from test_evals_runner import House, per_evaluator, spans

from evals.judge.client import JudgeClient
from evals.runner import EvalRunner, judge_tokens_today
from evals.settings import EvalSettings


async def round_of(house: House, endpoint: Endpoint, **judge: Any) -> tuple[Any, JudgeClient]:
    """Opens the house, lets the runner judge what it can, and gives its report."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    server = TestServer(app)
    await server.start_server()
    house.open()
    values = {"url": str(server.make_url("/v1")), "model": "m", "timeout_seconds": 0.3, "attempts": 3} | judge
    settings = EvalSettings(policies=[{"evaluators": ["judge"]}], judge=values)
    assert settings.judge is not None
    used = judge_tokens_today(house.reads, house.clock)
    client = JudgeClient(settings.judge, house.clock, house.metrics, random.Random(1), used)
    runner = EvalRunner(settings, house.reads, house.writer, house.clock, house.metrics, client)
    try:
        return await runner.step_judge(house.clock.time + 1), client
    finally:
        runner.close()
        await client.close()
        await server.close()


async def test_a_judge_in_bad_weather_loses_and_invents_nothing(tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    house.open()
    house.take(spans(20))
    weather = [GOOD, hangs, status(429), GOOD, status(500), html, breaks_off, *[GOOD] * 4, *[html] * 4, GOOD]
    endpoint = Endpoint(weather)
    report, _ = await round_of(house, endpoint)
    rows = house.scores()
    assert per_evaluator(house) == {"judge": 20}
    assert report.scored + report.failed == 20
    assert {row["value"] for row in rows if row["status"] == "scored"} == {0.75}
    assert all(row["error_type"] and row["attempts"] == 3 for row in rows if row["status"] == "failed")
    assert sum(row["attempts"] for row in rows) == len(endpoint.asked)
    house.close()


async def test_the_budget_holds_over_a_restart_and_goes_on_the_next_day(tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    house.open()
    house.take(spans(20))
    budget, endpoint = 2_000, Endpoint([GOOD])
    first, _ = await round_of(house, endpoint, tokens_per_day=budget)
    asked = len(endpoint.asked)
    assert 0 < first.scored == asked < 20
    again, client = await round_of(house, endpoint, tokens_per_day=budget)
    assert (again.scored, len(endpoint.asked)) == (0, asked), "nobody was asked twice, and nobody above the budget"
    assert client.budget.remaining == budget - asked * 120
    assert judge_tokens_today(house.reads, house.clock) == asked * 120 <= budget
    house.clock.time = again.deferred_until
    next_day, _ = await round_of(house, endpoint, tokens_per_day=budget * 10)
    assert (next_day.scored, per_evaluator(house)) == (20 - asked, {"judge": 20})
    house.close()


PLUGIN = """
    from evals.evaluator import Better, Sample, Scale, Score

    class Politeness:
        name, version, reads, scale = "politeness", "3", ("output_text",), Scale(0, 1, Better.HIGHER)

        def score(self, sample: Sample) -> Score:
            return Score(float("please" in sample.output_text))
"""
USES_PLUGIN = """
    from evals import registry
    from evals.evaluator import Sample, evaluate
    from evals.settings import EvalSettings

    EvalSettings(policies=[{"evaluators": ["politeness"]}])
    print(evaluate(registry.configure("politeness"), Sample("Wait, please.")).value)
"""


def test_an_evaluator_of_another_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    metadata = tmp_path / "polite-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tidegauge.evaluators]\npoliteness = polite:Politeness\n")
    (tmp_path / "polite.py").write_text(textwrap.dedent(PLUGIN))
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{textwrap.dedent(USES_PLUGIN)}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("1.0\n", 0), done.stderr
