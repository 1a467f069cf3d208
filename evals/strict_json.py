"""Reads JSON as RFC 8259 has it, from people one does not trust."""

import json
from typing import Any, NoReturn


class NotJson(ValueError):
    """The text is not JSON; the message says where."""


class TooDeep(NotJson):
    """The text is nested deeper than a parser can follow."""


def parse(text: str) -> Any:
    """The value that `text` holds.

    Stricter than `json.loads`, which takes NaN and Infinity; and it does not fail on integers of thousands of digits,
    which are read as floats.  Raises NotJson.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise TooDeep("nested too deep to be read") from None


def _refuse(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 300 else float(digits)
