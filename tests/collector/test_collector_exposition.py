"""The parser against fixtures, the recorded engines and another parser."""

import gzip
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from collector.exposition.model import Exemplar, MalformedExposition, Scrape, TooManyNewSeries, TooManySeries
from collector.exposition.parser import ExpositionParser, ParserLimits
from collector.exposition.skeleton import SkeletonPool
from collector.exposition.writer import number, series_text, wants_openmetrics

DATA = Path(__file__).parents[1] / "data"
FIXTURES = sorted((DATA / "exposition").iterdir())
GOOD = [path for path in FIXTURES if ".good." in path.name]
BAD = [path for path in FIXTURES if ".bad." in path.name and path.suffix != ".message"]
RECORDED = sorted((DATA / "engines" / "vllm-0.32.0").glob("*.gz"))
LLAMACPP = sorted((DATA / "engines" / "llamacpp-b11434").glob("*.prom"))


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_bytes().decode()


def samples(scrape: Scrape) -> list[tuple[object, ...]]:
    """Name, labels, value (as text, so that NaN equals itself) and timestamp."""
    return [
        (series.name, series.labels, repr(value), scrape.timestamps.get(position))
        for position, (series, value) in enumerate(zip(scrape.layout.series, scrape.values, strict=True))
    ]


def others_samples(text: str, *, openmetrics: bool) -> list[tuple[object, ...]]:
    """The same, read by prometheus_client, which adds `_total` to names that end otherwise."""
    families = openmetrics_families(text) if openmetrics else text_families(text)
    return [
        (
            one.name if one.name in text else one.name.removesuffix("_total"),
            tuple(sorted(one.labels.items())),
            repr(float(one.value)),
            None if one.timestamp is None else float(one.timestamp),
        )
        for family in families
        for one in family.samples
    ]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_text_is_read_as_prometheus_client_reads_it_and_the_second_time_alike(path: Path) -> None:
    text, openmetrics = read(path), path.suffix == ".openmetrics"
    parser = ExpositionParser()
    first, second = samples(parser.parse(text)), samples(parser.parse(text))
    assert first == second
    assert sorted(map(repr, first)) == sorted(map(repr, others_samples(text, openmetrics=openmetrics)))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_bad_text_is_refused_with_line_text_and_what_was_expected(path: Path) -> None:
    with pytest.raises(MalformedExposition, match="expected") as caught:
        ExpositionParser().parse(read(path), openmetrics=path.suffix == ".openmetrics")
    assert str(caught.value) == path.with_name(path.name + ".message").read_text().removesuffix("\n")


@pytest.mark.parametrize("paths", [RECORDED, LLAMACPP], ids=["vllm", "llamacpp"])
def test_every_recorded_scrape_is_read_as_prometheus_client_reads_it(paths: list[Path]) -> None:
    parser = ExpositionParser()
    for path in paths:
        text = read(path)
        assert sorted(samples(parser.parse(text))) == sorted(others_samples(text, openmetrics=False)), path.name


def test_unchanged_series_keep_one_layout_and_a_new_one_makes_another() -> None:
    parser = ExpositionParser()
    layouts = [parser.parse(text).layout for text in ("a 1\nb 2\n", "a 3\nb 4\n", "a 3\nb 4\nc 1\n", "a 3\nc 1\n")]
    assert [layouts[0] is layout for layout in layouts] == [True, True, False, False]


def test_a_changed_type_makes_another_layout() -> None:
    parser = ExpositionParser()
    before = parser.parse("# TYPE a gauge\na 1\n").layout
    after = parser.parse("# TYPE a counter\na 1\n").layout
    assert (before.metadata.type_of("a"), after.metadata.type_of("a")) == ("gauge", "counter")


def test_labels_in_another_order_are_the_same_series() -> None:
    first, second = ExpositionParser().parse('a{x="1",y="2"} 1\na{y="2", x="1",} 2\n').layout.series
    assert first == second


def test_targets_that_serve_the_same_series_share_one_layout() -> None:
    pool = SkeletonPool()
    texts = [read(path) for path in RECORDED[:3]]
    parsers = [ExpositionParser(pool=pool) for _ in texts]
    layouts = {id(parser.parse(text).layout) for parser, text in zip(parsers, texts, strict=True)}
    alone = {id(ExpositionParser().parse(text).layout) for text in texts}
    assert (len(layouts), len(alone)) == (1, 3)


def test_a_pool_keeps_nothing_that_no_parser_has() -> None:
    pool = SkeletonPool()
    parser = ExpositionParser(pool=pool)
    for round_ in range(20):
        parser.parse(f'a{{id="{round_}"}} 1\n')
    assert len(pool) == 1


def test_series_that_were_not_there_before_are_bounded_and_the_known_ones_stay() -> None:
    parser = ExpositionParser()
    parser.parse("a 1\nb 1\n")
    with pytest.raises(TooManyNewSeries, match="more than 1 series that it did not have before"):
        parser.parse("a 1\nc 1\nd 1\n", max_new=1)
    assert parser.parse("a 1\nc 1\n", max_new=1).new == 1


@pytest.mark.parametrize(
    "second",
    ["a 1_0\n", "a 1\r\n", "a ١\n", "a \n", "a 1 \n", "a x\n", "a 1\u00a0\n"],
    ids=["underscore", "return", "arabic", "empty", "trailing", "word", "nbsp"],
)
def test_a_known_series_gets_no_laxer_number_than_a_new_one(second: str) -> None:
    def outcome(parser: ExpositionParser) -> object:
        try:
            return samples(parser.parse(second))
        except MalformedExposition as error:
            return str(error)

    seasoned = ExpositionParser()
    seasoned.parse("a 1\n")
    seasoned.parse("a 1 \n")
    assert outcome(seasoned) == outcome(ExpositionParser())


def test_more_series_than_the_limit_are_refused_and_not_remembered_for_ever() -> None:
    parser = ExpositionParser(ParserLimits(max_series=50))
    for round_ in range(20):
        with pytest.raises(TooManySeries, match="more than 50 series"):
            parser.parse("".join(f'a{{id="{round_}-{index}"}} 1\n' for index in range(60)))
    for round_ in range(40):
        parser.parse("".join(f'a{{id="{round_}-{index}"}} 1 1700000000000\n' for index in range(40)))
    assert parser.remembered <= 50


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (ParserLimits(max_line=20), "a" * 21 + " 1\n"),
        (ParserLimits(max_name=5), "abcdef 1\n"),
        (ParserLimits(max_labels=1), 'a{b="1",c="2"} 1\n'),
    ],
    ids=["line", "name", "labels"],
)
def test_each_bound_holds(limits: ParserLimits, text: str) -> None:
    with pytest.raises(MalformedExposition, match="at most"):
        ExpositionParser(limits).parse(text)


_LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=12), max_size=4
)
_ALPHABET = 'ab{}=",\\ #1.eE+-NaIf_\n\t'


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[a-z_:]{1,6}", fullmatch=True), _LABELS, st.floats()), max_size=8))
def test_what_the_writer_writes_reads_back(rows: list[tuple[str, dict[str, str], float]]) -> None:
    labelled = [(name, tuple(sorted(labels.items())), value) for name, labels, value in rows]
    text = "".join(f"{series_text(name, labels)} {number(value)}\n" for name, labels, value in labelled)
    parser = ExpositionParser()
    expected = [(name, labels, repr(value), None) for name, labels, value in labelled]
    assert samples(parser.parse(text, openmetrics=False)) == expected
    assert samples(parser.parse(text, openmetrics=False)) == expected


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=_ALPHABET, max_size=60), st.text(alphabet=_ALPHABET, max_size=60), st.booleans())
def test_any_text_is_read_or_refused_and_what_came_before_does_not_matter(
    before: str, text: str, openmetrics: bool
) -> None:
    def outcome(parser: ExpositionParser, text: str) -> object:
        try:
            return samples(parser.parse(text, openmetrics=openmetrics))
        except MalformedExposition as error:
            return str(error)

    seasoned = ExpositionParser()
    outcome(seasoned, before)
    outcome(seasoned, before + text)
    assert outcome(seasoned, text) == outcome(ExpositionParser(), text)


@given(st.floats(allow_nan=False))
def test_a_written_number_is_the_same_number(value: float) -> None:
    assert math.copysign(1, float(number(value))) == math.copysign(1, value)
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.8", False),
        ("text/html;q=what", False),
    ],
    ids=["none", "any", "openmetrics", "refused", "text preferred", "nonsense"],
)
def test_the_format_is_the_one_that_accept_prefers(accept: str | None, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected


def test_exemplars_are_kept_beside_their_sample_whatever_their_labels_hold() -> None:
    text = 'h_bucket{le="1.0"} 8 # {trace_id="a}\\"b # c"} 0.67 1520879607.5\nh_bucket{le="+Inf"} 9\n# EOF\n'
    scrape = ExpositionParser().parse(text)
    assert scrape.values == [8.0, 9.0]
    assert scrape.exemplars == {0: Exemplar((("trace_id", 'a}"b # c'),), 0.67, 1520879607.5)}
