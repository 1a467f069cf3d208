"""One call of an OpenAI-compatible endpoint: what it says, or which kind of failure it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from evals.strict_json import NotJson, parse

MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of the endpoint; tokens are None where it did not say."""

    content: Any
    finish_reason: str | None
    model: str | None
    response_id: str | None
    input_tokens: int | None
    output_tokens: int | None


class CallFailed(Exception):
    """The call brought no completion.

    `outcome` is one of those that `tidegauge_judge_requests_total` has.  `charged` says whether the endpoint may have
    used tokens all the same.
    """

    def __init__(
        self,
        outcome: str,
        *,
        retry: bool,
        charged: bool,
        detail: str,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.retry = retry
        self.charged = charged
        self.status = status
        self.retry_after = retry_after


async def complete(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    limit_seconds: float,
    now: float,
) -> Completion:
    """Posts `body` and reads the completion.  Raises CallFailed, with no part of prompt, key or answer in it."""
    limits = aiohttp.ClientTimeout(total=limit_seconds, connect=min(limit_seconds, 10.0))
    try:
        async with session.post(url, json=body, headers=headers, timeout=limits, allow_redirects=False) as response:
            if response.status != 200:
                raise _refused(response, now)
            return _completion(await _read(response))
    except TimeoutError:
        raise CallFailed("timeout", retry=True, charged=True, detail=f"no answer within {limit_seconds:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise CallFailed("connection_error", retry=True, charged=False, detail=type(error).__name__) from None
    except (aiohttp.ClientError, OSError) as error:
        raise CallFailed("connection_error", retry=True, charged=True, detail=type(error).__name__) from None


def _refused(response: aiohttp.ClientResponse, now: float) -> CallFailed:
    status = response.status
    retry_after = _seconds(response.headers.get("Retry-After"), now)
    detail = f"HTTP {status}"
    if status == 429:
        return CallFailed(
            "rate_limited", retry=True, charged=False, detail=detail, status=status, retry_after=retry_after
        )
    if status >= 500 or status == 408:
        return CallFailed(
            "server_error", retry=True, charged=False, detail=detail, status=status, retry_after=retry_after
        )
    return CallFailed("rejected", retry=False, charged=False, detail=detail, status=status)


def _seconds(header: str | None, now: float) -> float | None:
    """`Retry-After` in seconds; it may be a number or a date."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now, 0.0)


async def _read(response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_BODY:
            response.close()
            raise _invalid(f"body of more than {MAX_BODY} bytes")
    return body.decode("utf-8", "replace")


def _invalid(detail: str) -> CallFailed:
    return CallFailed("invalid_response", retry=True, charged=True, detail=detail)


def _completion(text: str) -> Completion:
    try:
        document = parse(text)
        choice = document["choices"][0]
        content = choice["message"]["content"]
    except NotJson:
        raise _invalid("body is not JSON") from None
    except (KeyError, IndexError, TypeError):
        raise _invalid("body is no chat completion") from None
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        content=content,
        finish_reason=_text(choice.get("finish_reason")),
        model=_text(document.get("model")),
        response_id=_text(document.get("id")),
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
    )


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def estimate(messages: Sequence[Mapping[str, str]]) -> int:
    """Input tokens of the messages, rather too many: a token has four bytes in most prose, three in Han."""
    return sum(len(message["content"].encode("utf-8", "replace")) // 3 + 8 for message in messages)
