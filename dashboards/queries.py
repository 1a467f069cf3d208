"""Pieces of PromQL that many panels share."""

from catalog.family import families

# In a panel that is repeated for each target; a heatmap can show one engine's buckets only.
ONE_ENGINE = '{target="$target", model=~"$model", vantage="engine"}'
ENGINE = '{target=~"$target", model=~"$model"}'
GPU = '{gpu=~"$gpu", node=~"$node"}'
CLIENT = '{model=~"$model", tenant=~"$tenant", service=~"$service"}'
EVAL = '{evaluator=~"$evaluator", model=~"$model", tenant=~"$tenant"}'


def per_second(metric: str, by: str, where: str = "") -> str:
    """Rate of a counter or of a part of a histogram, summed by labels."""
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str, where: str = "") -> str:
    """A quantile of a histogram by labels; an engine's buckets stay with the engine and the vantage they are of."""
    return f"histogram_quantile({q}, {buckets(histogram, by, where)})"


def quantiles(histogram: str, by: str, where: str = "") -> dict[str, str]:
    """Median, 95th and 99th percentile by legend."""
    labels = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    return {f"p{q * 100:g}{labels}": quantile(q, histogram, by, where) for q in (0.5, 0.95, 0.99)}


def mean(histogram: str, by: str, where: str = "") -> str:
    """Mean of a histogram by labels: sums and counts can be merged where buckets cannot."""
    return f"{per_second(f'{histogram}_sum', by, where)} / {per_second(f'{histogram}_count', by, where)}"


def buckets(histogram: str, by: str = "", where: str = "") -> str:
    """Rates of a histogram's buckets."""
    return per_second(f"{histogram}_bucket", _with("le", by, _apart(histogram)), where)


def increases(histogram: str, where: str = "") -> str:
    """What a heatmap shows: how many samples fell into each bucket.

    Grafana takes every series of the answer for a bucket, so `le` is the only label; `where` chooses one engine.
    """
    return f"sum by (le) (increase({histogram}_bucket{where}[$__rate_interval]))"


def _apart(histogram: str) -> str:
    """Labels that may not be merged."""
    return ", ".join(label for label in ("engine", "vantage") if label in families()[histogram].labels)


def _with(*groups: str) -> str:
    return ", ".join(dict.fromkeys(label for group in groups for label in group.split(", ") if label))
