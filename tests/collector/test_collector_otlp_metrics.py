"""OTLP metrics: what is served of them on /metrics, and what is not."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from catalog.instruments import Instruments
from collector.otlp.metrics.exposition import exposition
from collector.otlp.metrics.naming import label_name, metric_name
from collector.otlp.metrics.reading import Fates, MetricReader
from collector.otlp.metrics.registry import OtlpSeries
from collector.otlp.settings import OtlpMetricsSettings, OtlpSettings
from tests.collector.otlp_support import KEY, RECORDED_NOW, FixedClock, body, pairs

CUMULATIVE, DELTA = 2, 1
SECOND = 10**9
T0 = int(RECORDED_NOW - 600) * SECOND
SHOP = {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "shop-1"}
SHOP_LABELS = {"job": "eu/shop", "instance": "shop-1"}


class Page:
    """A reader of requests, and the page that it fills."""

    def __init__(self, **bounds: Any) -> None:
        settings = OtlpSettings(metrics=OtlpMetricsSettings(**bounds))
        self.clock = FixedClock()
        self.metrics = Instruments(CollectorRegistry())
        self.series = OtlpSeries(settings.metrics, self.clock, self.metrics)
        self.reader = MetricReader(settings, KEY, self.series)

    def send(self, *metrics: Metric, resource: dict[str, Any] | None = None, scope: str = "") -> Fates:
        request = ExportMetricsServiceRequest()
        made = request.resource_metrics.add()
        made.resource.attributes.extend(pairs(SHOP if resource is None else resource))
        held = made.scope_metrics.add()
        held.scope.name = scope
        held.metrics.extend(metrics)
        return self.read(request)

    def read(self, request: ExportMetricsServiceRequest, tenant: str | None = None) -> Fates:
        return self.reader.read(request, self.clock.now(), lambda said: (tenant or said, ""))

    def text(self, *, openmetrics: bool = False) -> str:
        return exposition(self.series, openmetrics)

    def samples(self) -> dict[str, float]:
        """Values by name and labels, those of the source left out, of the text that both parsers read."""
        list(openmetrics_families(self.text(openmetrics=True) + "# EOF\n"))
        found = {}
        for family in text_families(self.text()):
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name not in SHOP_LABELS}
                inside = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
                found[f"{sample.name}{{{inside}}}" if inside else sample.name] = sample.value
        return found


@pytest.fixture
def page() -> Iterator[Page]:
    return Page()


def gauge(value: float, time: int = 1, name: str = "queue", unit: str = "", **attributes: Any) -> Metric:
    made = Metric(name=name, unit=unit)
    made.gauge.data_points.add(as_double=value, time_unix_nano=T0 + time * SECOND, attributes=pairs(attributes))
    return made


def total(
    value: int, time: int = 1, start: int = 0, *, delta: bool = False, monotonic: bool = True, name: str = "orders",
    **attributes: Any,
) -> Metric:  # fmt: skip
    made = Metric(name=name)
    made.sum.aggregation_temporality = DELTA if delta else CUMULATIVE
    made.sum.is_monotonic = monotonic
    made.sum.data_points.add(as_int=value, attributes=pairs(attributes), **times(start, time))
    return made


def histogram(
    counts: list[int], bounds: list[float], time: int = 1, start: int = 0, *, delta: bool = False, **more: Any
) -> Metric:
    made = Metric(name="wait", unit="s", description="Time\nwaited")
    made.histogram.aggregation_temporality = DELTA if delta else CUMULATIVE
    point = {"sum": 1.5 * sum(counts), "count": sum(counts), **more}
    made.histogram.data_points.add(bucket_counts=counts, explicit_bounds=bounds, **point, **times(start, time))
    return made


def times(start: int, time: int) -> dict[str, int]:
    return {"start_time_unix_nano": T0 + start * SECOND, "time_unix_nano": T0 + time * SECOND}


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = [
    ("system.filesystem.usage", "By", "gauge", "system_filesystem_usage_bytes"),
    ("system.io", "foo_bar", "counter", "system_io_foo_bar_total"),
    ("system.network.dropped", "{packets}", "counter", "system_network_dropped_total"),
    ("hw.cpu.utilization", "1", "gauge", "hw_cpu_utilization_ratio"),
    ("astro.light.speed", "m/s", "gauge", "astro_light_speed_meters_per_second"),
    ("system.memory.usage_bytes", "By", "gauge", "system_memory_usage_bytes"),
    ("total.jobs.total", "", "counter", "jobs_total"),
    ("broken::speed  (m/s)", "", "gauge", "broken::speed_m_s"),
    ("2xx.rate", "1/s", "gauge", "_2xx_rate_per_second"),
    ("jvm.gc", "ms", "histogram", "jvm_gc_milliseconds"),
    ("...", "s", "gauge", ""),
    ("total", "", "counter", "__total"),
    ("x" * 300, "", "counter", "x" * 200 + "_total"),
]


@pytest.mark.parametrize(("name", "unit", "kind", "expected"), NAMES, ids=[name for name, *_ in NAMES])
def test_names_are_those_of_the_compatibility_specification(name: str, unit: str, kind: str, expected: str) -> None:
    assert metric_name(name, unit, kind)[0] == expected


def test_labels_have_names_that_prometheus_takes() -> None:
    assert [label_name(key) for key in ("a.b", "0a", "_a", "é", "")] == ["a_b", "key_0a", "key_a", "key_", "key_"]


def test_source_is_job_and_instance_and_the_rest_of_it_target_info(page: Page) -> None:
    page.send(gauge(1), resource={**SHOP, "host.name": "h1", "user.id": "jane"}, scope="kit")
    text = page.text()
    assert 'queue{instance="shop-1",job="eu/shop",otel_scope_name="kit"} 1.0' in text
    assert '# TYPE target_info gauge\ntarget_info{host_name="h1",instance="shop-1",job="eu/shop",user_id="' in text
    assert "jane" not in text


def test_attribute_cannot_take_the_place_of_its_source(page: Page) -> None:
    page.send(gauge(1, job="forged"), histogram([1, 2], [1.0]))
    page.send(gauge(2, name="le_gauge", **{"a.b": "x", "a_b": "y"}))
    found = page.samples()
    assert found["queue{exported_job=forged}"] == 1
    assert found["le_gauge{a_b=x;y}"] == 2


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_gauges_and_falling_sums_are_gauges_and_others_counters(page: Page) -> None:
    page.send(gauge(0.5), total(7), total(3, monotonic=False, name="open"))
    assert page.samples() == {"queue": 0.5, "orders_total": 7, "open": 3}
    assert "# TYPE orders_total counter" in page.text()
    assert "# TYPE open gauge" in page.text()


def test_histogram_has_cumulated_buckets_sum_and_count(page: Page) -> None:
    page.send(histogram([1, 2, 0], [0.1, 2.5]))
    assert page.samples() == {
        "wait_seconds_bucket{le=0.1}": 1,
        "wait_seconds_bucket{le=2.5}": 3,
        "wait_seconds_bucket{le=+Inf}": 3,
        "wait_seconds_count": 3,
        "wait_seconds_sum": 4.5,
    }
    assert "# HELP wait_seconds Time\\nwaited\n" in page.text()


def test_summary_has_its_quantiles(page: Page) -> None:
    made = Metric(name="wait", unit="s")
    point = made.summary.data_points.add(sum=9.0, count=3, time_unix_nano=T0)
    point.quantile_values.add(quantile=0.5, value=2.0)
    page.send(made)
    assert page.samples() == {"wait_seconds{quantile=0.5}": 2.0, "wait_seconds_count": 3, "wait_seconds_sum": 9.0}


def test_openmetrics_leaves_out_what_it_cannot_say_of_values_below_zero(page: Page) -> None:
    made = Metric(name="drift")
    point = made.summary.data_points.add(sum=-9.0, count=3, time_unix_nano=T0)
    for quantile, value in ((0.5, -3.0), (0.9, 1.0)):
        point.quantile_values.add(quantile=quantile, value=value)
    page.send(made, histogram([1, 1], [-1.0], sum=-2.0))
    assert page.samples()["drift{quantile=0.5}"] == -3
    assert page.samples()["wait_seconds_sum"] == -2
    names = [
        (sample.name, sample.labels.get("quantile"))
        for family in openmetrics_families(page.text(openmetrics=True) + "# EOF\n")
        for sample in family.samples
    ]
    assert ("drift", "0.9") in names
    assert not {("drift", "0.5"), ("drift_sum", None), ("wait_seconds_sum", None)} & set(names)


def exponential(scale: int, offset: int, counts: list[int], time: int = 1, start: int = 0, **more: Any) -> Metric:
    delta = more.pop("delta", False)
    made = Metric(name="wait", unit="s")
    made.exponential_histogram.aggregation_temporality = DELTA if delta else CUMULATIVE
    point = made.exponential_histogram.data_points.add(
        scale=scale, sum=1.0, count=sum(counts) + more.get("zero_count", 0), **more, **times(start, time)
    )
    point.positive.offset = offset
    point.positive.bucket_counts.extend(counts)
    return made


def buckets(page: Page) -> dict[str, float]:
    prefix = "wait_seconds_bucket{le="
    return {name.removeprefix(prefix)[:-1]: n for name, n in page.samples().items() if name.startswith(prefix)}


def test_exponential_histogram_becomes_buckets_at_powers_of_the_root_of_two(page: Page) -> None:
    page.send(exponential(0, 0, [2, 0, 1], zero_count=4))  # (1, 2]: 2, (4, 8]: 1
    assert buckets(page) == {"0.0": 4, "1.0": 4, "2.0": 6, "4.0": 6, "8.0": 7, "+Inf": 7}


def test_finer_exponential_scales_are_served_at_the_coarsest_common_one(page: Page) -> None:
    page.send(exponential(5, 0, [1] * 64, delta=True))  # 1 to 4, in 64 steps
    page.send(exponential(3, 0, [1] * 16, 2, 1, delta=True))
    found = buckets(page)
    assert list(found.values()) == [0, 20, 40, 60, 80, 80]
    assert [float(bound) for bound in list(found)[:-1]] == pytest.approx([1, math.sqrt(2), 2, math.sqrt(8), 4])


def test_wide_exponential_histograms_keep_a_bounded_number_of_buckets(page: Page) -> None:
    page.send(exponential(1, -400, [1, *[0] * 998, 1]))
    assert 3 < len(buckets(page)) <= 84


def test_negative_values_of_exponential_histograms_come_first(page: Page) -> None:
    made = exponential(0, 0, [1])
    point = made.exponential_histogram.data_points[0]
    point.negative.offset = 1
    point.negative.bucket_counts.extend([3])  # [-4, -2)
    point.count = 4
    page.send(made)
    assert buckets(page) == {"-2.0": 3, "0.0": 3, "1.0": 3, "2.0": 4, "+Inf": 4}


# --- time -------------------------------------------------------------------------------------------------------------


def test_deltas_are_summed_up_each_once(page: Page) -> None:
    for time, value in ((1, 5), (2, 7), (4, 1)):  # a gap is none of ours
        fates = page.send(total(value, time, time - 1, delta=True), histogram([value], [], time, time - 1, delta=True))
        assert fates.statuses == {"served": 2}
    repeated = page.send(total(1, 4, 3, delta=True), total(9, 2, 1, delta=True), total(9, 5, 3, delta=True))
    assert (repeated.statuses, repeated.left_out) == ({"duplicate": 1}, {"out_of_order": 1, "overlap": 1})
    assert page.samples()["orders_total"] == page.samples()["wait_seconds_count"] == 13


def test_cumulative_points_count_by_their_newest(page: Page) -> None:
    assert page.send(total(5, 2), total(5, 2), total(3, 1)).left_out == {"out_of_order": 1}
    assert page.samples() == {"orders_total": 5}
    page.send(total(1, 9, 8))
    assert page.samples() == {"orders_total": 1}  # it began anew
    assert page.send(total(50, 10, 0)).left_out == {"out_of_order": 1}  # another sender of the same name


def test_delta_histogram_with_other_bounds_begins_anew(page: Page) -> None:
    page.send(histogram([5, 1], [1.0], delta=True))
    page.send(histogram([2, 1], [3.0], 2, 1, delta=True))
    assert page.samples()["wait_seconds_bucket{le=3.0}"] == 2
    assert page.samples()["wait_seconds_count"] == 3


def test_series_that_does_not_come_any_more_is_gone(page: Page) -> None:
    page.send(gauge(1), resource={**SHOP, "host.name": "h1"})
    page.clock.seconds += 200
    page.send(total(1))
    page.clock.seconds += 101
    assert list(page.samples()) == ["orders_total"]
    page.clock.seconds += 200
    assert page.text() == ""
    assert page.metrics.registry.get_sample_value("tidegauge_otlp_series") == 0


def test_series_whose_sender_says_it_has_no_value_is_gone_at_once(page: Page) -> None:
    page.send(gauge(1), gauge(2, name="other"))
    ended = gauge(0, 2)
    ended.gauge.data_points[0].flags = 1
    assert page.send(ended).statuses == {"served": 1}
    assert page.samples() == {"other": 2}


# --- names that others have -------------------------------------------------------------------------------------------


def test_what_tidegauge_says_itself_is_not_mixed_with_what_a_client_says(page: Page) -> None:
    made = histogram([1], [])
    made.name, made.unit = "gen_ai.client.operation.duration", "s"
    page.send(made, gauge(9, name="tidegauge.ingest.spans"), gauge(8, name="gen_ai.client.token.usage.count"))
    names = {name.split("{")[0] for name in page.samples()}
    assert {name for name in names if not name.startswith("otlp_")} == set()
    assert "otlp_gen_ai_client_operation_duration_seconds_count" in names
    assert "otlp_tidegauge_ingest_spans" in names


def test_metric_of_another_type_under_the_same_name_is_refused(page: Page) -> None:
    page.send(gauge(1, name="a"), histogram([1], []))
    clash = total(1, name="a", monotonic=True)
    bucket = gauge(1, name="wait.seconds.count")
    counter = total(1, name="b")
    fates = page.send(bucket, counter, gauge(1, name="b"), clash)
    assert fates.left_out == {"name_conflict": 3}
    made = gauge(2, name="wait", unit="s")
    assert page.send(made).left_out == {"type_conflict": 1}


def test_name_is_free_again_when_its_series_are_gone(page: Page) -> None:
    page.send(gauge(1, name="a"))
    page.clock.seconds += 301
    assert page.send(histogram([1], []), gauge(1, name="a", unit="s")).left_out == {}


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_series_are_bounded_for_a_service_and_for_all() -> None:
    page = Page(max_series=5, max_series_per_service=3)
    many = [gauge(number, shelf=number) for number in range(10)]
    assert page.send(*many).left_out == {"too_many_series": 7}
    assert page.send(*many, resource={"service.name": "other"}).statuses == {"served": 2}
    assert page.text().count("queue{") == 5


REFUSED = {
    "too_many_labels": gauge(1, **{f"k{number}": number for number in range(5)}),
    "too_many_buckets": histogram([0] * 8, [float(bound) for bound in range(7)]),
    "malformed": histogram([1, 2, 3], [1.0]),
    "temporality": total(1, delta=True, monotonic=False),
    "too_old": gauge(1, time=-(T0 // SECOND)),
    "in_the_future": gauge(1, time=10**6),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_point_that_cannot_be_served_is_refused_alone_with_the_reason(reason: str) -> None:
    page = Page(max_labels=4, max_buckets=6)
    fates = page.send(REFUSED[reason], gauge(3, name="fine"))
    assert (fates.statuses, fates.left_out) == ({"served": 1}, {reason: 1})
    assert page.samples() == {"fine": 3}


BAD = {
    "falling counter": total(-1),
    "unordered bounds": histogram([1, 1, 1], [2.0, 1.0]),
    "endless bound": histogram([1, 1], [math.nan]),
    "counts that are not the count": histogram([1, 1], [1.0], count=7),
    "no name": gauge(1, name="."),
}


@pytest.mark.parametrize("metric", BAD.values(), ids=BAD)
def test_numbers_that_make_no_sense_are_malformed(page: Page, metric: Metric) -> None:
    assert page.send(metric).left_out == {"malformed": 1}


def test_values_and_labels_are_escaped_and_cut() -> None:
    page = Page(max_label_characters=8)
    page.send(gauge(math.inf, a='say "hi"\n' * 9), gauge(math.nan, name="n", b=True, c=1.5, d=["x"]))
    text = page.text()
    assert 'queue{a="say \\"hi\\"",instance="shop-1",job="eu/shop"} +Inf' in text
    assert 'n{b="true",c="1.5",d="[\\"x\\"]",instance="shop-1",job="eu/shop"} NaN' in text


# --- exemplars and recordings -----------------------------------------------------------------------------------------


def test_exemplars_are_in_openmetrics_alone(page: Page) -> None:
    made = histogram([1, 1], [1.0])
    made.histogram.data_points[0].exemplars.add(
        as_double=0.5, time_unix_nano=T0, trace_id=bytes(range(1, 17)), span_id=bytes(range(1, 9))
    )
    page.send(made)
    found = [
        sample
        for family in openmetrics_families(page.text(openmetrics=True) + "# EOF\n")
        for sample in family.samples
        if sample.exemplar
    ]
    assert [(sample.labels["le"], sample.exemplar.value) for sample in found] == [("1.0", 0.5)]
    assert found[0].exemplar.labels == {"trace_id": bytes(range(1, 17)).hex(), "span_id": bytes(range(1, 9)).hex()}
    assert "trace_id" not in page.text()


@pytest.mark.parametrize("client", ["oai-v2-latest", "traceloop"])
def test_recorded_metrics_are_served_as_they_were_sent(page: Page, client: str) -> None:
    request = ExportMetricsServiceRequest.FromString(body(f"clients/{client}-metrics.pb.gz"))
    sent = [
        (point.count, point.sum)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.WhichOneof("data") == "histogram"
        for point in metric.histogram.data_points
    ]
    fates = page.read(request)
    assert not fates.left_out
    families = list(openmetrics_families(page.text(openmetrics=True) + "# EOF\n"))
    served = [family for family in families if family.type == "histogram"]
    counts = [s.value for family in served for s in family.samples if s.name.endswith("_count")]
    sums = [s.value for family in served for s in family.samples if s.name.endswith("_sum")]
    assert sorted(zip(counts, sums, strict=True)) == sorted(sent)
    assert page.read(request).statuses == {"duplicate": fates.statuses["served"]}


def test_tenants_with_the_same_service_have_series_of_their_own(page: Page) -> None:
    request = ExportMetricsServiceRequest.FromString(body("clients/traceloop-metrics.pb.gz"))
    served = page.read(request, "acme").statuses["served"]
    assert page.read(request, "umbrella").statuses == {"served": served}
    assert page.text().count('tenant="umbrella"') == page.text().count('tenant="acme"') > served
