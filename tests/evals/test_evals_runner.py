"""The runner over a real store: everything scored, once, whatever happens in between."""

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from catalog.instruments import Instruments
from evals import registry
from evals.evaluator import Better, Deferred, JudgeUse, Sample, Scale, Score
from evals.judge.client import TRACER
from evals.registry import Configured
from evals.runner import EvalRunner, judge_tokens_today
from evals.settings import EvalSettings
from store.batch import Batch, Committed
from store.database import Database
from store.reads import Reads
from store.settings import StoreSettings
from store.tables import SPANS
from store.writer import StoreUnavailable, Writer

DATA = Path(__file__).parents[1] / "data" / "evals"
REQUESTS: list[dict[str, Any]] = json.loads((DATA / "requests.json").read_text())
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
CHEAP = ("json_validity", "length", "refusal", "repetition")


@dataclass
class FakeClock:
    time: float = START.timestamp()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)
        await asyncio.sleep(0)


def spans(count: int, first: int = 0, **more: Any) -> pa.Table:
    """Requests with recorded content, one a second."""
    rows = []
    for index in range(first, first + count):
        began = START + timedelta(seconds=index)
        rows.append(
            REQUESTS[index % len(REQUESTS)]
            | {
                "trace_id": f"{index:032x}", "span_id": f"{index:016x}", "kind": "llm", "vantage": "client",
                "start_time": began, "end_time": began + timedelta(seconds=1), "duration_s": 1.0,
            }
            | more
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SPANS)


@dataclass
class House:
    """A store in a directory, opened again as often as a test likes."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    opened: list[tuple[Database, Writer]] = field(default_factory=list)
    runners: list[EvalRunner] = field(default_factory=list)

    def open(self) -> None:
        self.close()
        database = Database(self.directory)
        self.metrics = Instruments(CollectorRegistry())
        self.writer = Writer(database, self.clock, self.metrics, StoreSettings())
        self.reads = Reads(database)
        self.opened.append((database, self.writer))

    def close(self) -> None:
        while self.runners:
            self.runners.pop().close()
        while self.opened:
            database, writer = self.opened.pop()
            writer.close()
            database.close()

    def take(self, table: pa.Table) -> None:
        self.writer.submit(Batch({"spans": table})).result(10)

    def runner(
        self, writer: Any = None, evaluators: Any = None, under_load: bool = False, **settings: Any
    ) -> EvalRunner:
        chosen, writes = EvalSettings(**settings), writer or self.writer
        made = EvalRunner(
            chosen, self.reads, writes, self.clock, self.metrics, None, evaluators, under_load=lambda: under_load
        )
        self.runners.append(made)
        return made

    def scores(self) -> list[dict[str, Any]]:
        return read(self.reads, "SELECT * FROM scores ORDER BY subject_time, evaluator")


def read(reads: Reads, sql: str) -> list[dict[str, Any]]:
    connection = reads._database.cursor()
    found = connection.sql(sql).to_arrow_table().to_pylist()
    connection.close()
    return found


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "data")
    house.open()
    yield house
    house.close()


def per_evaluator(house: House) -> dict[str, int]:
    return dict(Counter(row["evaluator"] for row in house.scores()))


def values(house: House) -> list[tuple[Any, ...]]:
    keys = ("score_id", "value", "label", "status", "error_type", "sampling_probability")
    return [tuple(row[key] for key in keys) for row in house.scores()]


# --- the ordinary day ------------------------------------------------------------------------------------------------


async def test_every_settled_request_is_scored_by_the_default_evaluators(house: House) -> None:
    house.take(spans(48))
    runner = house.runner()
    assert (await runner.step()).requests == 0, "nothing has settled yet"
    house.clock.time += 6
    report = await runner.step()
    assert (report.requests, report.scored + report.not_applicable, report.failed) == (48, 48 * 4, 0)
    assert per_evaluator(house) == dict.fromkeys(CHEAP, 48)
    assert (await runner.step()).requests == 0


async def test_a_score_carries_its_subjects_dimensions(house: House) -> None:
    house.take(spans(1))
    await house.runner().step(house.clock.time + 1)
    row = next(row for row in house.scores() if row["evaluator"] == "length")
    wanted = {"tenant", "service", "operation", "session_id", "prompt_name", "prompt_version", "request_model"}
    assert {key: row[key] for key in wanted} == {key: REQUESTS[0].get(key) for key in wanted}
    assert row["subject_time"] == START + timedelta(seconds=1)
    assert (row["subject_type"], row["source"], row["status"]) == ("span", "online", "scored")
    assert row["subject_id"] == f"{0:032x}:{0:016x}"
    assert row["sampling_probability"] == 1.0


async def test_failed_requests_are_not_applicable_with_probability_one(house: House) -> None:
    house.take(spans(48))
    policy = {"rate": 0.0, "evaluators": ["length"]}
    await house.runner(policies=[policy]).step(house.clock.time + 1)
    found = [(row["status"], row["sampling_probability"]) for row in house.scores()]
    assert found == [("not_applicable", 1.0)] * 4


async def test_scores_are_the_same_however_the_requests_come(house: House, tmp_path: Path) -> None:
    policies = [{"rate": 0.4, "evaluators": ["length", "refusal"]}]
    house.take(spans(60))
    await house.runner(policies=policies).step(house.clock.time + 1)

    other = House(tmp_path / "other")
    other.open()
    runner = other.runner(policies=policies, batch=7)
    for first in range(0, 60, 5):
        other.take(spans(5, first))
        await runner.step(other.clock.time + 1)
        other.clock.time += 100
    assert values(other) == values(house)
    assert 0 < len(values(house)) < 120
    other.close()


async def test_the_judges_own_calls_are_not_scored(house: House) -> None:
    house.take(spans(3, scope=TRACER))
    assert (await house.runner().step(house.clock.time + 1)).scored == 0


async def test_metrics_say_what_was_done_and_what_waits(house: House) -> None:
    house.take(spans(8))
    await house.runner().step(house.clock.time + 1)
    house.take(spans(5, 8))
    await house.runner().step(house.clock.time - 1)
    metrics = house.metrics
    (scores,) = metrics.histograms.tidegauge_eval_score.collect()
    counts = [
        each.value for each in scores.samples if each.name.endswith("_count") and each.labels["evaluator"] == "length"
    ]
    assert sum(counts) == 8
    assert metrics.counters.tidegauge_evals_total.labels(evaluator="length", status="scored")._value.get() == 8
    assert metrics.gauges.tidegauge_eval_backlog._value.get() == 5


class Poisoned:
    name, version, reads, scale = "poisoned", "1", ("output_text",), Scale(0, 1, Better.HIGHER)

    def score(self, sample: Sample) -> Score:
        if "PIN" in sample.output_text:
            raise RecursionError
        return Score(1.0)


async def test_a_poisonous_request_costs_its_own_scores_alone(house: House) -> None:
    evaluators = {"refusal": Configured("refusal", "1", Poisoned()), "length": registry.configure("length")}
    house.take(spans(48))
    policies = [{"evaluators": ["refusal", "length"]}]
    await house.runner(evaluators=evaluators, policies=policies).step(house.clock.time + 1)
    failures = [row for row in house.scores() if row["status"] == "failed"]
    assert {(row["evaluator"], row["error_type"], row["value"]) for row in failures} == {
        ("refusal", "RecursionError", None)
    }
    assert per_evaluator(house) == {"refusal": 48, "length": 48}


class Sloppy:
    name, version, reads, scale = "sloppy", "1", ("output_text",), Scale(0, float("inf"), Better.HIGHER)

    def score(self, sample: Sample) -> Score:
        found: list[Any] = [Score(float("inf")), Score(1.0, label=5), Score(1.0, "\ud800", "\0" * 5_000), "1", None]  # type: ignore[arg-type]
        answer: Score = found[len(sample.output_text) % 5]
        return answer


async def test_scores_that_no_store_can_hold_cost_themselves_alone(house: House) -> None:
    house.take(spans(48))
    evaluators = {"refusal": Configured("refusal", "1", Sloppy()), "length": registry.configure("length")}
    report = await house.runner(evaluators=evaluators).step(house.clock.time + 1)
    assert per_evaluator(house) == {"refusal": 48, "length": 48}
    assert {row["error_type"] for row in house.scores()} == {None, "out_of_range", "malformed_score", "AttributeError"}
    assert report.failed > 20


async def test_run_survives_a_round_that_fails(house: House) -> None:
    house.take(spans(4))

    class Unwilling:
        refusals = 2

        def submit(self, batch: Batch) -> Future[Committed]:
            if self.refusals:
                self.refusals -= 1
                raise StoreUnavailable("the disk is full")
            return house.writer.submit(batch)

    runner = house.runner(writer=Unwilling(), settle_seconds=0)
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(10):
        while len(house.scores()) < 16:  # noqa: ASYNC110  the store tells nobody
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    errors = house.metrics.counters.tidegauge_loop_errors_total.labels(loop="evals")._value.get()
    assert (per_evaluator(house), errors) == (dict.fromkeys(CHEAP, 4), 2)


async def test_backfill_scores_what_a_new_policy_asks_of_older_requests_once(house: House) -> None:
    house.take(spans(40))
    house.clock.time += 10
    await house.runner(policies=[{"evaluators": ["length"]}]).step()
    runner = house.runner(policies=[{"evaluators": ["length", "refusal"]}], batch=7)
    assert (await runner.step()).requests == 0
    since = (START + timedelta(seconds=20)).timestamp()
    first, second = await runner.backfill(since), await runner.backfill(since)
    assert per_evaluator(house) == {"length": 40, "refusal": 21}
    assert (first.scored + first.not_applicable, second.scored + second.not_applicable) == (21, 0)


# --- crashes ---------------------------------------------------------------------------------------------------------


class Failing:
    """A writer whose nth commit fails, before or after it is stored."""

    def __init__(self, writer: Writer, fails: int, stored: bool) -> None:
        self._writer = writer
        self._left = fails
        self._stored = stored

    def submit(self, batch: Batch) -> "Future[Committed]":
        self._left -= 1
        if self._left:
            return self._writer.submit(batch)
        if self._stored:
            self._writer.submit(batch).result(10)
        lost: Future[Committed] = Future()
        lost.set_exception(StoreUnavailable("lost"))
        return lost


@pytest.mark.parametrize("stored", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("fails", [1, 2, 4])
async def test_scored_once_whenever_the_commit_is_lost(house: House, fails: int, stored: bool) -> None:
    for first in range(0, 40, 10):
        house.take(spans(10, first))
    with pytest.raises(StoreUnavailable, match="lost"):
        await house.runner(writer=Failing(house.writer, fails, stored), batch=10).step(house.clock.time + 1)
    house.open()
    await house.runner().step(house.clock.time + 1)
    assert per_evaluator(house) == dict.fromkeys(CHEAP, 40)


KILLED = """
    import asyncio, os, signal, sys
    sys.path.insert(0, sys.argv[2])
    from pathlib import Path
    from test_evals_runner import House

    class Killing:
        submitted = 0

        def submit(self, batch):
            self.submitted += 1
            future = house.writer.submit(batch)
            if self.submitted == 5:
                if sys.argv[3] == "after the commit":
                    future.result(10)
                os.kill(os.getpid(), signal.SIGKILL)
            return future

    house = House(Path(sys.argv[1]))
    house.open()
    asyncio.run(house.runner(writer=Killing(), batch=1).step(house.clock.time + 1))
"""


@pytest.mark.parametrize("when", ["during the commit", "after the commit"])
def test_scored_once_after_kill_nine(house: House, when: str) -> None:
    for first in range(0, 20, 2):
        house.take(spans(2, first))
    house.close()
    script, here = textwrap.dedent(KILLED), str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", script, str(house.directory), here, when], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    house.open()
    assert 4 * 8 <= len(house.scores()) <= 5 * 8
    asyncio.run(house.runner().step(house.clock.time + 1))
    assert per_evaluator(house) == dict.fromkeys(CHEAP, 20)


@pytest.mark.parametrize("under_load", [True, False], ids=["under-load", "at-rest"])
def test_scoring_rests_while_requests_come_in_and_scores_them_all(house: House, under_load: bool) -> None:
    house.take(spans(8))
    began = house.clock.time
    asyncio.run(house.runner(under_load=under_load, share_under_load=0.01).step(began + 1))
    assert (house.clock.time > began) is under_load
    assert per_evaluator(house) == dict.fromkeys(CHEAP, 8)


# --- evaluators that ask ---------------------------------------------------------------------------------------------


class Oracle:
    """Stands for a judge: answers, or raises, as the test says, and remembers who was asked."""

    name, version, reads, scale = "judge", "1", ("output_text",), Scale(0, 1, Better.HIGHER)

    def __init__(self, say: Callable[[Sample, int], Score]) -> None:
        self._say = say
        self.asked: list[str] = []

    async def ask(self, sample: Sample) -> Score:
        self.asked.append(sample.output_text)
        number = len(self.asked)
        await asyncio.sleep(0)
        return self._say(sample, number)


CONCURRENCY = 4
JUDGED: dict[str, Any] = {
    "policies": [{"evaluators": ["judge", "length"]}],
    "judge": {
        "url": "http://judge", "model": "m", "concurrency": CONCURRENCY,
        "usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 2,
    },
}  # fmt: skip


def judged_by(house: House, oracle: Oracle, writer: Any = None) -> EvalRunner:
    evaluators = {"judge": Configured("judge", "1", oracle), "length": registry.configure("length")}
    return house.runner(writer, evaluators, **JUDGED)


def good(sample: Sample, number: int) -> Score:
    return Score(0.5, "3", "so so", judge=JudgeUse("m-1", 100, 20))


async def test_the_judge_has_a_cursor_of_its_own(house: House) -> None:
    house.take(spans(48))
    runner = judged_by(house, Oracle(good))
    await runner.step(house.clock.time + 1)
    assert per_evaluator(house) == {"length": 48}
    report = await runner.step_judge(house.clock.time + 1)
    assert (report.scored, report.not_applicable) == (44, 4)
    assert per_evaluator(house) == {"length": 48, "judge": 48}
    assert judge_tokens_today(house.reads, house.clock) == 44 * 120
    costs = [row["judge_cost_usd"] for row in house.scores() if row["judge_model"]]
    assert costs == pytest.approx([140e-6] * 44)


async def test_a_judge_set_up_later_does_not_begin_with_the_past(house: House) -> None:
    house.take(spans(10))
    await house.runner().step(house.clock.time + 1)
    house.take(spans(5, 10))
    oracle = Oracle(good)
    await judged_by(house, oracle).step_judge(house.clock.time + 1)
    assert len(oracle.asked) == 5


async def test_a_judge_that_breaks_fails_its_scores_and_goes_on(house: House) -> None:
    def breaks(sample: Sample, number: int) -> Score:
        if number % 2:
            raise OSError("content")
        return good(sample, number)

    house.take(spans(8))
    report = await judged_by(house, Oracle(breaks)).step_judge(house.clock.time + 1)
    assert (report.scored, report.failed) == (4, 4)
    assert {row["error_type"] for row in house.scores() if row["status"] == "failed"} == {"OSError"}


async def test_a_spent_budget_defers_the_rest_and_asks_nobody_twice(house: House) -> None:
    def spent(sample: Sample, number: int) -> Score:
        if 5 <= number <= 12:
            raise Deferred(house.clock.time + 3_600)
        return good(sample, number)

    house.take(spans(20))
    client = Oracle(spent)
    runner = judged_by(house, client)
    report = await runner.step_judge(house.clock.time + 1)
    assert (report.scored, report.deferred_until) == (4, house.clock.time + 3_600)
    assert len(client.asked) < 12, "no use asking on"
    client.asked += [""] * (12 - len(client.asked))
    again = await runner.step_judge(house.clock.time + 1)
    assert (again.scored, again.deferred_until, len(client.asked) - 12) == (16, None, 16)
    assert per_evaluator(house) == {"judge": 20}


async def test_what_has_waited_for_the_budget_too_long_is_given_up_visibly(house: House) -> None:
    def never(sample: Sample, number: int) -> Score:
        raise Deferred(house.clock.time + 3_600)

    house.take(spans(3))
    house.clock.time += 90_000
    report = await judged_by(house, Oracle(never)).step_judge(house.clock.time + 1)
    assert (report.failed, report.deferred_until) == (3, None)
    assert {row["error_type"] for row in house.scores()} == {"budget_exhausted"}


async def test_judged_once_after_a_crash_and_only_calls_in_flight_are_repeated(house: House) -> None:
    house.take(spans(24))
    first = Oracle(good)
    runner = judged_by(house, first, Failing(house.writer, 3, stored=False))
    with pytest.raises(StoreUnavailable, match="lost"):
        await runner.step_judge(house.clock.time + 1)
    kept = len(house.scores())
    house.open()
    second = Oracle(good)
    await judged_by(house, second).step_judge(house.clock.time + 1)
    assert per_evaluator(house) == {"judge": 24}
    assert len(second.asked) == 24 - kept
    assert len(first.asked) - kept <= 2 * CONCURRENCY


async def test_a_policy_that_judges_without_a_judge_is_refused(house: House) -> None:
    with pytest.raises(ValueError, match="the runner was given none"):
        house.runner(**JUDGED)


async def test_a_judge_without_a_budget_is_off(house: House) -> None:
    off = JUDGED | {"judge": {"url": "http://judge", "model": "m", "tokens_per_day": 0}}
    house.take(spans(2))
    runner = house.runner(**off)
    assert [evaluator.name for evaluator in runner.evaluators] == ["length"]
    assert (await runner.step_judge(house.clock.time + 1)).scored == 0


async def test_backfill_asks_the_judge_what_it_was_not_asked(house: House) -> None:
    house.take(spans(12))
    house.clock.time += 10
    oracle = Oracle(good)
    runner = judged_by(house, oracle)
    await runner.backfill(0)
    await runner.backfill(0)
    await runner.step_judge()
    assert (per_evaluator(house), len(oracle.asked)) == ({"judge": 12, "length": 12}, 12)
