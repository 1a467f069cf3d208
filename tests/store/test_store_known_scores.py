"""A score is stored once, however and whenever it comes again."""

from typing import Any

import pytest

from store.followers import Followers
from store.scope import moment
from tests.store_kit import START, Store

ONLINE = {"source": "online", "subject_time": moment(START), "trace_id": "t1", "span_id": "s1"}
HUMAN = {"source": "human", "subject_time": moment(START), "trace_id": "t1"}
SESSION = {"source": "api", "subject_time": moment(START), "session_id": "s", "subject_type": "session"}


def _score(number: int, **said: Any) -> dict[str, Any]:
    return {"score_id": f"{number:032x}", "evaluator": "e", "status": "scored", "value": 1.0, **said}


@pytest.mark.parametrize("followed", [False, True], ids=["at_once", "in_the_places"])
@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param(ONLINE, {}, id="online"),
        pytest.param({"source": "offline", "subject_time": None}, {}, id="offline_without_time"),
        pytest.param(HUMAN, {"subject_time": moment(START + 86400 * 30)}, id="feedback_a_month_later"),
        pytest.param(SESSION, {"subject_time": moment(START + 5)}, id="session"),
        pytest.param({"source": None, "subject_time": None}, {}, id="says_nothing"),
    ],
)
def test_score_that_comes_again_is_stored_once(
    store: Store, first: dict[str, Any], again: dict[str, Any], followed: bool
) -> None:
    others = [_score(n, **{**first, "subject_time": moment(START + n)}) for n in range(10, 40)]
    assert store.put("scores", _score(1, **first), *others).rows == {"scores": 31}
    if followed:
        Followers(store.database, run=50).follow(10)
        store.reopen()
    repeated = store.put("scores", _score(1, **{**first, **again}), _score(2, **first), _score(2, **first))
    assert (repeated.rows, repeated.duplicates) == ({"scores": 1}, {"scores": 2})
    assert store.sql("SELECT count(*), count(DISTINCT score_id) FROM scores") == [(32, 32)]


def test_batch_about_many_traces_is_stored_once(store: Store) -> None:
    rows = [_score(number, **{**HUMAN, "trace_id": f"t{number}"}) for number in range(150)]
    assert store.put("scores", *rows).rows == {"scores": 150}
    assert store.put("scores", *rows).duplicates == {"scores": 150}
