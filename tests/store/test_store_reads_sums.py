"""Means from the store's sums: those that all scores, read one by one, give."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from evals.estimates import summarize, summarize_sums
from store.followers import Followers
from store.scope import EVERYTHING, Scope, Selection, UnknownFilter, moment
from store.score_sums import forget_sums
from tests.store_kit import START, Store, as_table

SOME = Scope(frozenset({"a", "b"}))
EVALUATORS = ("judge", "length", "refusal")


def _scores(rng: random.Random, count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Scores of half an hour: weighted and not, in sessions that use several models, and of no session."""
    for number in range(first, first + count):
        evaluator = rng.choice(EVALUATORS)
        tenant = rng.choice(["a", "b", "c", None])
        yield {
            "score_id": f"{number:032x}",
            "trace_id": f"{number % 50:032x}",
            "span_id": f"{number:016x}",
            "evaluator": evaluator,
            "version": "1",
            # Far from nought, so that a sum of squares taken carelessly would lose its digits.
            "value": rng.choice([1e6, 1e6 + 1, 1e6 + 2.5]) if evaluator == "length" else float(rng.random() < 0.1),
            "status": "failed" if rng.random() < 0.05 else "scored",
            "source": "online",
            "sampling_probability": rng.choice([0.1, 0.5, None]) if evaluator == "judge" else None,
            "subject_time": moment(START + rng.randrange(1800)),
            "tenant": tenant,
            "request_model": rng.choice(["m", "n", None]),
            "session_id": None if rng.random() < 0.3 else f"{tenant}-{rng.randrange(20)}",
        }


def _plain(rows: Sequence[dict[str, Any]], scope: Scope, selection: Selection, by: list[str], interval: float) -> Any:
    def wanted(row: dict[str, Any]) -> bool:
        time = row["subject_time"].timestamp()
        return (
            row["status"] == "scored"
            and (scope.tenants is None or row["tenant"] in scope.tenants)
            and (selection.start is None or time >= selection.start)
            and (selection.end is None or time < selection.end)
            and all(
                row["request_model" if name == "model" else name] == said for name, said in selection.filters.items()
            )
        )

    chosen = [
        {
            **row,
            "model": row["request_model"],
            "bucket": moment(row["subject_time"].timestamp() // interval * interval),
        }
        for row in rows
        if wanted(row)
    ]
    table = as_table("scores", chosen)
    for name in ("model", "bucket"):
        table = table.append_column(name, [[row[name] for row in chosen]])
    return summarize(table, [*by, "bucket"])


def _same(found: Any, expected: Any) -> None:
    assert found.column_names == expected.column_names
    for name in expected.column_names:
        one, other = found.column(name).to_pylist(), expected.column(name).to_pylist()
        if name in ("mean", "ci_low", "ci_high"):
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9, err_msg=name)
        else:
            assert one == other, name


@pytest.fixture(params=["none_followed", "half_followed", "all_followed"])
def scores(store: Store, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    rng = random.Random(11)
    followers = Followers(store.database, run=50)
    rows = list(_scores(rng, 900))
    for first in range(0, 900, 300):
        store.put("scores", *rows[first : first + 300])
        if request.param == "half_followed" and first == 300:
            followers.step()
    if request.param == "all_followed":
        followers.step()
    return rows


@pytest.mark.parametrize("interval", [60.0, 300.0, 900.0], ids=["1m", "5m", "15m"])
@pytest.mark.parametrize(
    ("scope", "selection", "group_by"),
    [
        pytest.param(EVERYTHING, Selection(start=START), ["model"], id="by_model"),
        pytest.param(SOME, Selection(start=START + 17.5, end=START + 1234), ["model", "tenant"], id="odd_edges"),
        pytest.param(SOME, Selection({"model": "m"}, START - 900, START + 1800), [], id="one_model"),
        pytest.param(EVERYTHING, Selection({"evaluator": "judge"}, START + 1), ["tenant"], id="by_tenant"),
        pytest.param(EVERYTHING, Selection(start=START + 1), [], id="sessions_of_several_models"),
        pytest.param(EVERYTHING, Selection(start=START + 310, end=START + 320), ["model"], id="within_one_interval"),
        pytest.param(EVERYTHING, Selection({"tenant": "b"}, START), ["session_id"], id="by_session"),
    ],
)
def test_means_are_those_of_all_scores_read_one_by_one(
    store: Store,
    scores: list[dict[str, Any]],
    scope: Scope,
    selection: Selection,
    group_by: list[str],
    interval: float,
) -> None:
    by = ["evaluator", *group_by]
    sums = store.reads.score_sums(scope, selection, group_by, interval)
    found = summarize_sums(sums, [*by, "bucket"])
    _same(found, _plain(scores, scope, selection, by, interval))


def test_another_tenants_scores_are_in_no_sum(store: Store, scores: list[dict[str, Any]]) -> None:
    for interval in (None, 60.0, 300.0):
        assert store.reads.score_sums(SOME, Selection({"tenant": "c"}, START), ["model"], interval).num_rows == 0


def test_scores_of_long_ago_that_come_late_count(store: Store) -> None:
    rng, followers, rows = random.Random(5), Followers(store.database), []
    for first in range(0, 400, 100):
        fresh = list(_scores(rng, 100, first))
        store.put("scores", *fresh)
        rows += fresh
        selection = Selection(start=START)
        sums = store.reads.score_sums(EVERYTHING, selection, ["model"], 300.0)
        expected = _plain(rows, EVERYTHING, selection, ["evaluator", "model"], 300.0)
        _same(summarize_sums(sums, ["evaluator", "model", "bucket"]), expected)
        followers.step()


def test_deleted_scores_are_in_no_sum_before_and_after_the_cells_follow(store: Store) -> None:
    rows, followers = list(_scores(random.Random(7), 300)), Followers(store.database)
    store.put("scores", *rows)
    followers.step()
    connection = store.database.cursor()
    connection.begin()
    forget_sums(connection, "tenant = ?", ["a"])
    connection.execute("DELETE FROM scores WHERE tenant = 'a'")
    connection.commit()
    left = [row for row in rows if row["tenant"] != "a"]
    selection, by = Selection(start=START), ["evaluator", "model"]
    for _ in range(2):
        sums = store.reads.score_sums(EVERYTHING, selection, ["model"], 300.0)
        _same(summarize_sums(sums, [*by, "bucket"]), _plain(left, EVERYTHING, selection, by, 300.0))
        followers.step()
    assert store.sql("SELECT count(*) FROM score_cells WHERE grain = 'gone' OR tenant = 'a'") == [(0,)]


@pytest.mark.parametrize(
    "name", ["value", "tenant); DROP TABLE scores; --", "bucket", "grain"], ids=["value", "sql", "bucket", "grain"]
)
def test_group_or_filter_that_is_no_dimension_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UnknownFilter, match="there are"):
        store.reads.score_sums(EVERYTHING, Selection(start=START), [name], 300.0)
    with pytest.raises(UnknownFilter, match="there are"):
        store.reads.score_sums(EVERYTHING, Selection({name: "x"}, START), ["model"], 300.0)


def test_two_tenants_sessions_of_one_name_are_two(store: Store) -> None:
    base = {"evaluator": "length", "status": "scored", "subject_time": moment(START), "session_id": "s"}
    store.put(
        "scores",
        *({**base, "score_id": f"{n:032x}", "tenant": "ab"[n % 2], "value": float(n % 2 * 5)} for n in range(8)),
    )
    sums = store.reads.score_sums(EVERYTHING, Selection(start=START - 1), [])
    (row,) = summarize_sums(sums, ["evaluator"]).to_pylist()
    assert (row["mean"], row["n"], row["clusters"]) == (2.5, 8, 2)
