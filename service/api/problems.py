"""Errors as RFC 9457 problem documents, whatever raised them."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.api.answers import dumps
from store.database import StoreUnreadable
from store.reads import ReadRefused
from store.scope import UnknownFilter
from store.writer import StoreOverloaded, StoreUnavailable

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """What goes wrong for the caller: a status, a sentence, and members of the document beside them."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self, instance: str) -> Response:
        """The problem document."""
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            **self.members,
        }
        return Response(dumps(document), self.status, self.all_headers(), MEDIA_TYPE)

    def all_headers(self) -> dict[str, str]:
        """Headers of the answer; a browser asks its user for a key when it sees that of 401."""
        asked = {"WWW-Authenticate": 'Basic realm="tidegauge", Bearer realm="tidegauge"'} if self.status == 401 else {}
        return asked | self.headers


def busy() -> Problem:
    """The store takes nothing more just now."""
    return Problem(503, "The store has more to write than it can; try again.", headers={"Retry-After": "2"})


ErrorPage = Callable[[Problem], Response]


def _answer(request: Request, problem: Problem) -> Response:
    """The problem document, or a page about it for a browser that asked for a page."""
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    path = request.url.path
    wants_page = "text/html" in request.headers.get("accept", "") and not path.startswith(("/api/", "/v1/"))
    if page is None or not wants_page:
        return problem.response(path)
    answer = page(problem)
    answer.headers.update(problem.all_headers())
    return answer


def install(app: FastAPI) -> None:
    """Answers every error of `app` with a problem document, or through its `state.error_page` in a browser."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return _answer(request, error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        detail = error.detail
        if error.status_code == 404:
            detail = f"There is nothing at {request.url.path}."
        elif error.status_code == 405:
            detail = f"{request.url.path} does not take {request.method}."
        return _answer(request, Problem(error.status_code, detail, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, from_validation(error.errors()))

    @app.exception_handler(UnknownFilter)
    async def _filter(request: Request, error: UnknownFilter) -> Response:
        return _answer(request, Problem(400, str(error)))

    @app.exception_handler(StoreOverloaded)
    async def _overloaded(request: Request, _error: StoreOverloaded) -> Response:
        return _answer(request, busy())

    @app.exception_handler(StoreUnavailable)
    async def _unavailable(request: Request, _error: StoreUnavailable) -> Response:
        problem = Problem(503, "Nothing can be stored now; see /readyz.", headers={"Retry-After": "10"})
        return _answer(request, problem)

    @app.exception_handler(ReadRefused)
    async def _refused(request: Request, error: ReadRefused) -> Response:
        return _answer(request, Problem(503, str(error), headers={"Retry-After": "5"}))

    @app.exception_handler(StoreUnreadable)
    async def _unreadable(request: Request, error: StoreUnreadable) -> Response:
        return _answer(request, Problem(503, str(error), headers={"Retry-After": "10"}))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, _error: Exception) -> Response:
        return _answer(request, Problem(500, "An error that nobody expected; the log has it."))


def from_validation(errors: Sequence[Any]) -> Problem:
    """One problem from all faults of a request; 400 for its query, 422 for its body."""
    faults = []
    for error in errors:
        place, *names = error["loc"] or ("body",)
        if error["type"] == "json_invalid":
            names = []
        message = error["msg"].removeprefix("Value error, ")
        faults.append({"in": str(place), "name": ".".join(map(str, names)), "detail": message})
    status = 422 if any(fault["in"] == "body" for fault in faults) else 400
    first = faults[0]
    detail = f"{first['name']}: {first['detail']}" if first["name"] else first["detail"]
    return Problem(status, detail, errors=faults)
