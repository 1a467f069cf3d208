"""The console's pages over a real store."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from api_world import MODEL, NOW, TARGET, World, call, drift_row, tick, trace_id, two_tenants, world

from service.auth import Role

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}\x00\x1b \ud800".encode(
    "utf-8", "surrogatepass"
).decode("utf-8", "replace")
PAGES = (
    "/", "/requests", f"/requests?at={NOW - 100:.0f}&sort=time_to_first_token&target={TARGET}&model={MODEL}",
    f"/requests/{trace_id(1)}", "/drift", "/drift/result-a", "/incidents", "/incidents/incident-a", "/targets",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


class Tags(HTMLParser):
    """Collects elements and checks that they nest."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in ("option", "p"):
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def tags_of(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_whole_and_needs_no_script_and_nothing_from_elsewhere(here: World, path: str) -> None:
    two_tenants(here)
    response = await here.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    tags = tags_of(response.text)
    assert (tags.wrong, tags.open) == ([], [])
    assert "script" not in tags.seen
    assert "style" not in tags.attributes
    outside = re.findall(r'(?:src|href)="(?!/|https?://127\.0\.0\.1)[^"]+"', response.text)
    assert outside == []


async def test_an_empty_store_says_how_to_send(here: World) -> None:
    response = await here.get("/")
    assert "Nothing has arrived yet" in response.text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:8433" in response.text


@pytest.mark.parametrize("path", ["/drift", "/incidents", "/targets", "/requests"])
async def test_pages_without_rows_say_so(here: World, path: str) -> None:
    assert (await here.get(path)).status_code == 200


async def test_hostile_content_is_inert_everywhere(here: World) -> None:
    message = [{"role": HOSTILE, "parts": [{"type": "text", "content": HOSTILE}, {"type": HOSTILE, "x": HOSTILE}]}]
    text = json.dumps(message)
    spans = call(1, name=HOSTILE, service=HOSTILE, tenant=HOSTILE, request_model=HOSTILE, prompt_name=HOSTILE,
                 error_type=HOSTILE, status="error", input_messages=text, output_messages=text,
                 attributes=json.dumps({"span": {HOSTILE: HOSTILE}}))  # fmt: skip
    here.calls(spans)
    evidence = {"distributions": {"reference": {HOSTILE: 3}, "current": {HOSTILE: 4}},
                "worst_samples": [HOSTILE], "contributions": [{"slice": HOSTILE, "change": 1}]}  # fmt: skip
    here.put("drift_results", [drift_row("a", signal=HOSTILE, slice=HOSTILE, evidence=json.dumps(evidence))])
    alert = {"status": "firing", "labels": {"alertname": HOSTILE, HOSTILE: HOSTILE}, "startsAt": "2027-01-15T07:58:30Z",
             "annotations": {"summary": HOSTILE, "bad_url": "javascript:alert(3)"}, "fingerprint": "f"}  # fmt: skip
    posted = await here.post("/api/v1/alerts/webhook", {"version": "4", "status": "firing", "alerts": [alert]})
    (incident,) = posted.json()["incidents"]
    paths = ["/", "/requests", f"/requests/{trace_id(1)}", "/drift", "/drift/result-a", "/incidents",
             f"/incidents/{incident}", "/requests?tenant=%3Cscript%3E", "/%3Cscript%3E"]  # fmt: skip
    for path in paths:
        response = await here.get(path, accept="text/html")
        tags = tags_of(response.text)
        assert (path, tags.wrong, tags.seen & {"script"}, "onerror" in tags.attributes) == (path, [], set(), False)
        assert ">49<" not in response.text
        assert 'href="javascript' not in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_a_moment_shows_its_worst_requests_and_the_queue(here: World) -> None:
    here.calls(call(1, ttft=0.2), call(2, ttft=31.0), call(3, start=NOW - 900, ttft=99.0))
    here.put("engine_state", [tick(NOW - 101, 571, 0)])
    text = (await here.get(f"/requests?model={MODEL}&target={TARGET}&at={NOW - 100:.0f}&sort=time_to_first_token")).text
    assert text.index(trace_id(2)) < text.index(trace_id(1))
    assert trace_id(3) not in text
    assert "571 waiting" in text
    assert "31.0 s" in text


async def test_a_trace_plots_the_engine_around_it_with_its_moments(here: World) -> None:
    two_tenants(here)
    text = (await here.get(f"/requests/{trace_id(1)}")).text
    assert [title for title in ("Requests waiting in the engine", "KV cache in use") if title not in text] == []
    assert re.findall(r'class="mark (\w+)"', text) == ["start", "first_token", "end"]
    assert "GPU utilisation" not in text


async def test_spans_that_are_each_others_parents_are_drawn(here: World) -> None:
    spans = call(1)
    spans[0]["parent_span_id"], spans[1]["parent_span_id"] = spans[1]["span_id"], spans[0]["span_id"]
    here.calls(spans)
    response = await here.get(f"/requests/{trace_id(1)}")
    assert response.text.count('class="span-name"') == 2


async def test_the_lists_next_page_goes_on(here: World) -> None:
    here.calls(*(call(number) for number in range(1, 8)))
    first = (await here.get("/requests?limit=4&tenant=")).text
    following = re.search(r'href="(/requests\?[^"]*cursor=[^"]*)"', first)
    assert following is not None
    second = (await here.get(following[1].replace("&amp;", "&"))).text
    seen = [set(re.findall(r"/requests/([0-9a-f]{32})", text)) for text in (first, second)]
    assert [len(ids) for ids in seen] == [4, 3]
    assert seen[0].isdisjoint(seen[1])


async def test_a_browser_gets_a_page_about_an_error_and_is_asked_for_a_key(here: World) -> None:
    response = await here.get("/requests?foo=1", accept="text/html")
    assert (response.status_code, "no parameter here" in response.text) == (400, True)
    here.keys.create(Role.READ)
    response = await here.get("/", accept="text/html")
    assert (response.status_code, response.headers["www-authenticate"].startswith("Basic")) == (401, True)
    assert (await here.get("/static/console.css")).status_code == 200
