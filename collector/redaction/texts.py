"""Redaction of one text, plain or JSON."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from collector.redaction.detectors import SECRET_KEYS, prefilter, wanted
from collector.redaction.settings import PrivacySettings

MAX_DEPTH = 64
SECRET = "[SECRET]"


class Texts:
    """Replaces what the settings' detectors find.

    `key` makes the hashes of placeholders unreadable and stable.  Safe to use from several threads.
    """

    def __init__(self, settings: PrivacySettings, key: bytes) -> None:
        self._detectors = wanted(settings.redact, settings.custom)
        self._hashed = frozenset(settings.keep_hash_of)
        self._keys = "secret" in settings.redact
        self._key = key
        # What a text must match to be looked at at all.
        self.prefilter = prefilter(settings.redact, settings.custom)

    def plain(self, text: str, found: Counter[str], *, hashed: bool = False) -> str:
        """The text with placeholders; `found` counts them by detector.  `hashed` keeps hashes for all."""
        for detector, pattern in self._detectors:
            text = self._replaced(text, pattern, detector.name, detector.accepts, found, hashed)
        return text

    def any(self, text: str, found: Counter[str]) -> str:
        """A text that may be JSON: its strings are redacted one by one, so that it stays JSON."""
        if text.lstrip()[:1] not in ("{", "[", '"'):
            return self.plain(text, found)
        try:
            document = orjson.loads(text)
        except ValueError:
            return self.plain(text, found)
        before = found.total()
        made = self.document(document, found)
        return text if found.total() == before else orjson.dumps(made).decode()

    def document(self, value: Any, found: Counter[str], depth: int = 0) -> Any:
        """JSON data with the strings in it redacted; JSON in strings too."""
        if isinstance(value, str):
            return self.any(value, found) if depth < MAX_DEPTH else self.plain(value, found)
        if isinstance(value, list):
            return [self.document(item, found, depth + 1) for item in value]
        if isinstance(value, Mapping):
            return {key: self._entry(key, item, found, depth) for key, item in value.items()}
        return value

    def _entry(self, key: str, value: Any, found: Counter[str], depth: int) -> Any:
        if isinstance(value, str) and value and self.secret_key(key):
            found["secret"] += 1
            return SECRET
        return self.document(value, found, depth + 1)

    def secret_key(self, key: str) -> bool:
        """Whether what stands under this key is a secret as a whole."""
        return self._keys and SECRET_KEYS.search(key) is not None

    def _replaced(
        self,
        text: str,
        pattern: Any,
        name: str,
        accepts: Callable[[str], int],
        found: Counter[str],
        hashed: bool,
    ) -> str:
        pieces, at = [], 0
        match = pattern.search(text)
        while match is not None:
            start, end = match.span(1 if match.re.groups else 0)
            length = accepts(text[start:end])
            if length:
                at, begun = start + length, at
                pieces += [text[begun:start], self._placeholder(name, text[start:at], hashed)]
                found[name] += 1
            # The character after a match may be the one before the next; after none, one may begin within it.
            match = pattern.search(text, at if length else match.start() + 1)
        return "".join([*pieces, text[at:]]) if pieces else text

    def _placeholder(self, name: str, text: str, hashed: bool) -> str:
        if not hashed and name not in self._hashed:
            return f"[{name.upper()}]"
        return f"[{name.upper()}:{self.hash(text)[:16]}]"

    def hash(self, text: str) -> str:
        """A keyed hash, 32 hex digits."""
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).hexdigest()
