"""What discovery found, before relabelling: labels as Prometheus names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from collector.targets import Target, checked

Labels = Mapping[str, str]
ADDRESS, SCHEME, PATH, PARAMETER = "__address__", "__scheme__", "__metrics_path__", "__param_"


class DiscoveryError(Exception):
    """A source of targets could not be asked, or answered with what is no list of targets; the text says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A possible target: `__address__`, `__scheme__`, `__metrics_path__`, `__param_*`, `__meta_*` and its own."""

    labels: Labels
    source: str
    token: str = ""
    login: str = ""  # user:password, which no label shows
    query: str = ""  # as it was given, taken unless relabelling changed a parameter

    def target(self, labels: Labels) -> Target:
        """The target that the labels describe, these or what relabelling made of them.  Raises ValueError."""
        scheme, path = labels.get(SCHEME) or "http", labels.get(PATH) or "/metrics"
        given, wanted = _parameters(self.labels), _parameters(labels)
        query = self.query if given == wanted and self.query else urlencode(wanted, quote_via=quote)
        login = f"{self.login}@" if self.login else ""
        url = f"{scheme}://{login}{labels.get(ADDRESS, '')}{path if path.startswith('/') else '/' + path}"
        shown = {name: value for name, value in labels.items() if not name.startswith("__") and value}
        return checked(f"{url}?{query}" if query else url, shown, self.token, self.source)


def _parameters(labels: Labels) -> dict[str, str]:
    named = {name.removeprefix(PARAMETER): value for name, value in labels.items() if name.startswith(PARAMETER)}
    return {name: value for name, value in named.items() if value}


def of_url(url: str, labels: Labels, source: str, token: str = "") -> Found:
    """A target that was given by its URL.  Raises ValueError saying what to write instead."""
    parts = urlsplit(checked(url, labels).url)
    login, _, address = parts.netloc.rpartition("@")
    place = {ADDRESS: address, SCHEME: parts.scheme, PATH: parts.path}
    # As in Prometheus, each parameter has one value.
    query = {PARAMETER + name: value for name, value in reversed(parse_qsl(parts.query, keep_blank_values=True))}
    return Found({**place, **query, **labels}, source, token, login, parts.query)


def of_address(address: str, labels: Labels, source: str) -> Found:
    """A target that was given by host and port."""
    return Found({ADDRESS: address, SCHEME: "http", PATH: "/metrics", **labels}, source)
