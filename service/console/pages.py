"""The console's routes: each reads what its page shows, within the caller's scope."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader
from pydantic import ValidationError
from starlette.staticfiles import StaticFiles

from service.api.drift import drift_view
from service.api.incidents import IncidentFilters
from service.api.parameters import Parameters, filters_of, moment_of, once, paged, position
from service.api.problems import Problem, from_validation
from service.api.requests import AT_SECONDS, RequestFilters
from service.api.scores import means
from service.auth import Caller, Gate, Role
from service.console import formats, plots, runbooks
from service.context import Context
from service.request_view import request_view
from store.reads_pages import Pages
from store.scope import Scope, Selection

HERE = Path(__file__).parent
RECENT_SECONDS = 900.0
MEANS_SECONDS = 3600.0
RATE_SECONDS = 15.0
DRIFT_SECONDS = 7 * 86400.0
AROUND_SECONDS = 60.0
PAGE = 50
MARKS = (("start", "start"), ("first_token", "first token"), ("end", "end"))
CHOICES = ("tenant", "model", "service")
# What the list's form has a field for; other filters are carried along.
FORM = frozenset({"status", "sort", "at", "from", "to", "limit", "cursor"})


class NoParameters(Parameters):
    """None."""


def static() -> StaticFiles:
    """The style sheet."""
    return StaticFiles(directory=HERE / "static")


def environment() -> Environment:
    """Templates that escape everything they are given."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    names = "seconds count number percent chance clock short_clock ago safe_url pretty chat cut".split()
    made.filters |= {name: getattr(formats, name) for name in names}
    made.filters["query"] = lambda values: urlencode({k: v for k, v in values.items() if v not in (None, "")})
    made.globals["interval_plot"] = plots.interval
    return made


class Console:
    """The pages over the running service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages = Pages(context.reads)
        self._templates = environment()

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page."""
        values |= {"now": self._context.clock.now(), "version": self._context.version}
        text = self._templates.get_template(template).render(values)
        # A prompt may hold what UTF-8 cannot.
        body = text.encode("utf-8", "replace")
        return HTMLResponse(body, status, headers={"cache-control": "no-store"})

    def error(self, problem: Problem) -> Response:
        """The page about a problem."""
        document = {"status": problem.status, "detail": problem.detail}
        return self.render("error.html", problem.status, problem=document, page="")

    def overview(self, scope: Scope) -> Response:
        """What is coming in, what is wrong, and how it is."""
        context, pages = self._context, self._pages
        now = context.clock.now()
        recent = Selection(start=now - RECENT_SECONDS)
        start = (now - RECENT_SECONDS) // RATE_SECONDS * RATE_SECONDS
        rates = pages.rate(scope, Selection(start=start), RATE_SECONDS)
        rows = means(context, scope, Selection(start=now - MEANS_SECONDS), ["model"])
        return self.render(
            "overview.html",
            page="overview",
            total=next(iter(pages.usage(scope, recent, [])), {}),
            by={name: pages.activity(scope, recent, name) for name in ("service", "tenant")},
            rate_plot=plots.rate(rates, start, now, RATE_SECONDS) if rates else None,
            ever=bool(pages.requests(scope, Selection(), limit=1)),
            minutes=RECENT_SECONDS / 60,
            firing=pages.incidents(scope, status="firing", limit=20),
            drift=[row for row in pages.drift(scope, since=now - DRIFT_SECONDS) if active(row)],
            means=sorted(rows, key=lambda row: (row["evaluator"], row["model"] or "")),
            targets=context.targets(),
            problems=[*context.problems(), *context.warnings()],
            public_url=context.public_url,
        )

    def requests(self, scope: Scope, given: Mapping[str, str]) -> Response:
        """A list of requests; with `at`, those open around that moment."""
        chosen = checked(RequestFilters, {"limit": str(PAGE), **given})
        now = self._context.clock.now()
        at = moment_of("at", chosen.at, now)
        place = position(chosen, now, float, str, str)
        rows = self._pages.requests(
            scope,
            Selection(filters_of(chosen, "sort", "at", "target"), *place.window),
            sort=chosen.sort,
            limit=chosen.limit + 1,
            after=place.after,
            open_in=None if at is None else (at - AT_SECONDS, at + AT_SECONDS),
            target=chosen.target,
        )
        shown, cursor = paged(chosen, place, rows, lambda row: (row["page_key"], row["trace_id"], row["span_id"]))
        recent = Selection(start=(at or now) - 86400.0)
        return self.render(
            "requests.html",
            page="requests",
            rows=shown,
            next=None if cursor is None else urlencode({**given, "cursor": cursor}),
            given=given,
            chosen=chosen,
            at=at,
            window=AT_SECONDS,
            states=self._states(at, chosen.target, chosen.model),
            choices={name: self._choices(scope, recent, name) for name in CHOICES},
            more={name: value for name, value in given.items() if name not in {*CHOICES, *FORM}},
        )

    def _states(self, at: float | None, target: str | None, model: str | None) -> list[dict[str, Any]]:
        return [] if at is None else self._context.reads.engine_state_at(at=[at], target=target, model=model)

    def _choices(self, scope: Scope, selection: Selection, name: str) -> list[str]:
        return [row["value"] for row in self._pages.activity(scope, selection, name) if row["value"]]

    def request(self, scope: Scope, trace_id: str) -> Response:
        """One trace."""
        view = request_view(self._context.reads, scope, trace_id, self._context.targets, AROUND_SECONDS)
        if view is None:
            raise Problem(404, "There is no such trace, or it has been deleted.")
        for request in view["requests"]:
            request["plot"] = state_plot(request)
        drawn = plots.waterfall(view["spans"])
        return self.render("request.html", page="requests", view=view, waterfall=drawn, most=plots.MAX_SPANS)

    def drift(self, scope: Scope) -> Response:
        """The state of every signal and slice."""
        rows = self._pages.drift(scope, since=self._context.clock.now() - DRIFT_SECONDS)
        return self.render("drift.html", page="drift", rows=rows, signals=self._context.signals())

    def drift_one(self, scope: Scope, drift_id: str) -> Response:
        """One finding with its evidence."""
        found = drift_view(self._pages, scope, drift_id)
        if found is None:
            raise Problem(404, "There is no such drift series.")
        evidence = found["evidence"] if isinstance(found["evidence"], dict) else {}
        values = found["slice_values"] if isinstance(found["slice_values"], dict) else {}
        known = {name: value for name, value in values.items() if name in RequestFilters.model_fields}
        return self.render(
            "drift_one.html",
            page="drift",
            row=found,
            evidence=evidence,
            distribution=plots.distribution(evidence),
            effect=plots.effect(found["history"]),
            filters=known,
        )

    def incidents(self, scope: Scope, given: Mapping[str, str]) -> Response:
        """Incidents, the newest first."""
        chosen = checked(IncidentFilters, {"limit": str(PAGE), **given})
        place = position(chosen, self._context.clock.now(), int, str)
        rows = self._pages.incidents(
            scope,
            status=chosen.status,
            alertname=chosen.alertname,
            severity=chosen.severity,
            start=place.window[0],
            end=place.window[1],
            limit=chosen.limit + 1,
            after=place.after,
        )
        shown, cursor = paged(chosen, place, rows, lambda row: (row["page_key"], row["incident_id"]))
        following = None if cursor is None else urlencode({**given, "cursor": cursor})
        return self.render("incidents.html", page="incidents", rows=shown, next=following, given=given)

    def incident(self, scope: Scope, incident_id: str) -> Response:
        """One incident with its snapshot."""
        found = self._pages.incident(scope, incident_id)
        if found is None:
            raise Problem(404, "There is no such incident.")
        snapshot = found["context"] if isinstance(found["context"], dict) else {}
        labels = found["labels"] if isinstance(found["labels"], dict) else {}
        filters = {name: labels[name] for name in (*CHOICES, "target") if labels.get(name)}
        return self.render("incident.html", page="incidents", row=found, snapshot=snapshot, filters=filters)

    def targets(self) -> Response:
        """What is scraped, and the GPUs that report."""
        return self.render("targets.html", page="targets", targets=self._context.targets(), gpus=self._context.gpus())


def router(console: Console, gate: Gate) -> APIRouter:
    """The pages' routes."""
    routes = APIRouter(include_in_schema=False, dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    Reader = Annotated[Caller, read]  # noqa: N806
    Nothing = Annotated[NoParameters, Query()]  # noqa: N806

    @routes.get("/")
    def overview(caller: Reader, _: Nothing) -> Response:
        return console.overview(caller.scope)

    @routes.get("/requests")
    def requests(caller: Reader, request: Request) -> Response:
        return console.requests(caller.scope, filled(request))

    @routes.get("/requests/{trace_id}")
    def request(caller: Reader, trace_id: str, _: Nothing) -> Response:
        return console.request(caller.scope, trace_id)

    @routes.get("/drift")
    def drift(caller: Reader, _: Nothing) -> Response:
        return console.drift(caller.scope)

    @routes.get("/drift/{drift_id}")
    def drift_one(caller: Reader, drift_id: str, _: Nothing) -> Response:
        return console.drift_one(caller.scope, drift_id)

    @routes.get("/incidents")
    def incidents(caller: Reader, request: Request) -> Response:
        return console.incidents(caller.scope, filled(request))

    @routes.get("/incidents/{incident_id}")
    def incident(caller: Reader, incident_id: str, _: Nothing) -> Response:
        return console.incident(caller.scope, incident_id)

    @routes.get("/targets")
    def targets(caller: Reader, _: Nothing) -> Response:
        return console.targets()

    @routes.get("/runbooks")
    def all_runbooks(caller: Reader, _: Nothing) -> Response:
        return console.render("runbooks.html", page="", names=runbooks.names())

    @routes.get("/runbooks/{name}")
    def runbook(caller: Reader, name: str, _: Nothing) -> Response:
        text = runbooks.page(name)
        if text is None:
            raise Problem(404, f"There is no runbook {name!r}; /runbooks lists those there are.")
        return console.render("runbook.html", page="", name=name, text=text)

    return routes


def filled(request: Request) -> dict[str, str]:
    """The query's parameters without those that a form sent empty."""
    return {name: value for name, value in request.query_params.items() if value.strip()}


def checked(kind: Any, given: Mapping[str, str]) -> Any:
    """The parameters of a page.  Raises Problem."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise from_validation([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from None


def active(row: Mapping[str, Any]) -> bool:
    """Whether a drift series is suspected or confirmed."""
    return row["state"] in ("suspected", "confirmed")


def state_plot(request: Mapping[str, Any]) -> Any:
    """Engine and GPU around a request, with its moments marked; None where nothing is known of its engine."""
    engines = request["engine"]["targets"]
    if not any(engine["ticks"] for engine in engines):
        return None
    times = {"start": request["start_time"], "first_token": request["first_token_time"], "end": request["end_time"]}
    marks = [plots.Mark(times[key].timestamp(), label, key) for key, label in MARKS if times[key] is not None]
    panels = [
        plots.Panel("Requests waiting in the engine", lines_of(engines, "target", "requests_waiting"), top=4),
        plots.Panel("Requests running", lines_of(engines, "target", "requests_running"), top=4),
        plots.Panel("KV cache in use", lines_of(engines, "target", "kv_cache_usage_ratio"), whole_percent, 1, True),
    ]
    cards = request["gpu"]["gpus"]
    if cards:
        panels.append(
            plots.Panel("GPU utilisation", lines_of(cards, "gpu", "utilization_ratio"), whole_percent, 1, True)
        )
        panels.append(plots.Panel("GPU power", lines_of(cards, "gpu", "power_watts"), watts, 100))
    start, end = marks[0].time - AROUND_SECONDS, marks[-1].time + AROUND_SECONDS
    return plots.timeline(panels, marks, start, end, "Engine and GPU around this request")


def lines_of(sources: Sequence[Mapping[str, Any]], name: str, column: str) -> list[plots.Line]:
    """A line for each source and, of an engine with several, each rank."""
    lines: dict[str, list[plots.Point]] = {}
    for source in sources:
        for tick in source["ticks"]:
            if column in tick:
                key = " ".join(filter(None, [source[name], f"rank {tick['rank']}" if "rank" in tick else None]))
                lines.setdefault(key, []).append((tick["time"].timestamp(), tick[column]))
    return [plots.Line(key, points) for key, points in lines.items()]


def whole_percent(value: float) -> str:
    """An axis of a share."""
    return f"{value * 100:.0f} %"


def watts(value: float) -> str:
    """An axis of power."""
    return f"{value:.0f} W"
