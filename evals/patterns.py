"""Regular expressions from people one does not trust, in linear time."""

import re2

MAX_PATTERN = 2_000
MAX_MEMORY = 8 << 20


class BadPattern(ValueError):
    """The pattern is none, or needs what cannot be done in linear time."""


class Pattern:
    """One compiled pattern; RE2, so that neither pattern nor text can make it run for long.

    Python's own `re` needs a minute for `(a+)+$` on 30 characters and cannot be interrupted from another thread.
    """

    def __init__(self, text: str, ignore_case: bool = False) -> None:
        """Raises BadPattern, saying why."""
        if len(text) > MAX_PATTERN:
            raise BadPattern(f"pattern of {len(text)} characters is longer than {MAX_PATTERN}")
        options = re2.Options()
        options.max_mem = MAX_MEMORY
        options.log_errors = False
        options.case_sensitive = not ignore_case
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            raise BadPattern(f"{text!r}: {_reason(error)} (RE2 syntax: no look-around, no back-references)") from None
        except UnicodeEncodeError:
            raise BadPattern(f"{text!r} is not Unicode text") from None
        self.text = text

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches somewhere in `text`."""
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")
        return self._compiled.search(text) is not None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
