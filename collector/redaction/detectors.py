"""What is looked for in texts.

A detector has a pattern (RE2: linear in the text, whatever is sent) and, where a pattern alone would find too much, a
check: a card number must pass Luhn's checksum, an IBAN its country's form and ISO 7064's.  A new detector is a new
entry, and a name in `settings`.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import re2
from stdnum import iban, luhn

from collector.redaction.settings import CustomPattern

# Issuers' numbers start so (ISO/IEC 7812); a time in nanoseconds starts with 1.
_CARD = r"(?:3[0-9]|4[0-9]|5[0-9]|6[0-9]|2[2-7])[0-9]{2}(?:[ -]?[0-9]){9,15}"
_SECRETS = (
    r"sk-[A-Za-z0-9_-]{20,}",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"hf_[A-Za-z0-9]{30,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{40,}",
    r"tg_[0-9a-f]{8}_[A-Za-z0-9_-]{40,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",  # JSON web token
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    r"(?:Bearer|bearer|BEARER) +[A-Za-z0-9._~+/=-]{20,}",
)
_SECRET_HINT = (
    r"sk-|[sr]k_(?:live|test)_|gh[pousr]_|github_pat_|glpat-|AKIA|ASIA|xox[abeoprs]-|AIza|hf_|npm_|pypi-|tg_[0-9a-f]|eyJ"
    "|PRIVATE KEY|(?i:bearer) "
)
_IBAN = "[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}"
_EMAIL = r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
_PHONE = r"(?:\+|00)[1-9](?:[ ().-]{0,2}[0-9]){7,14}"
_IP6 = "(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}"
_ASSIGNED = r"(?i:password|passwd|api[_-]?key|secret|access[_-]?token)[\"']?[ ]{0,2}[:=][ ]{0,2}[\"']?"
# Attribute names whose whole value is a secret.
_SECRET_KEY = "(?i:authorization|cookie|password|passwd|api[_-]?key|secret|access[_-]?token)"
SECRET_KEYS = re2.compile(f"(?:^|[._-]){_SECRET_KEY}$")


@dataclass(frozen=True)
class Detector:
    """What to look for: `core` between `before` and `after`; `accepts` says how much of its beginning is one.

    `hint` is a quick pattern that every text with a find matches, however its JSON is escaped: what stands before and
    after a find may be an escape's letter.
    """

    name: str
    core: str
    hint: str
    before: str = ""
    after: str = ""
    accepts: Callable[[str], int] = len

    @property
    def pattern(self) -> str:
        """The whole pattern; its group 1 is what is found."""
        return f"{self.before}({self.core}){self.after}"


def _assigned(text: str) -> int:
    """A password has digits and letters; what is written after the word `password:` mostly has not."""
    return len(text) if any(c.isdigit() for c in text) and any(c.isalpha() for c in text) else 0


def _beginning(is_valid: Callable[[str], bool], shortest: int) -> Callable[[str], int]:
    """The longest beginning that is valid and ends where a group of characters does; more may stand behind it."""

    def accepts(text: str) -> int:
        for end in range(len(text), shortest - 1, -1):
            if (end == len(text) or not text[end].isalnum()) and is_valid(text[:end]):
                return end
        return 0

    return accepts


def _is_card(text: str) -> bool:
    digits = text.replace(" ", "").replace("-", "")
    return 13 <= len(digits) <= 19 and text[-1].isdigit() and len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _is_iban(text: str) -> bool:
    return text[-1].isalnum() and bool(iban.is_valid(text))


def _phone(text: str) -> int:
    return len(text) if 8 <= sum(c.isdigit() for c in text.removeprefix("00")) <= 15 else 0


def _ip(text: str) -> int:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 0
    return len(text)


_NO_WORD = "(?:^|[^0-9A-Za-z])"
_END = "(?:[^0-9A-Za-z]|$)"
DETECTORS: tuple[Detector, ...] = (
    Detector("secret", "|".join(_SECRETS), _SECRET_HINT, "(?:^|[^0-9A-Za-z_])"),
    Detector("secret", r"[^\s\"',;\\]{12,}", _SECRET_KEY, _ASSIGNED, accepts=_assigned),
    Detector(
        "card", _CARD, "(?:^|[^0-9])[2-6][0-9]{3}[ -]?[0-9]{3}", "(?:^|[^0-9A-Za-z.])", _END, _beginning(_is_card, 13)
    ),
    Detector("iban", _IBAN, "[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}", _NO_WORD, _END, _beginning(_is_iban, 15)),
    Detector("email", _EMAIL, "@"),
    # In international form (E.164); a national one cannot be told from other numbers.
    Detector("phone", _PHONE, r"(?:\+|00)[1-9]", "(?:^|[^0-9A-Za-z+])", "(?:[^0-9]|$)", _phone),
    Detector("ip", r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}", r"[0-9]\.[0-9]", "(?:^|[^0-9.])", "(?:[^0-9.]|$)", _ip),
    Detector("ip", _IP6, "[0-9A-Fa-f:]:[0-9A-Fa-f:]*:", "(?:^|[^0-9A-Za-z:])", "(?:[^0-9A-Za-z:]|$)", _ip),
)


def prefilter(names: Sequence[str], custom: Sequence[CustomPattern]) -> str:
    """A quick pattern for whatever the chosen detectors may find; empty where there are none."""
    parts = [detector.hint for detector in DETECTORS if detector.name in names]
    parts += [item.pattern for item in custom]
    return "|".join(f"(?:{part})" for part in [*parts, r"\\u00[0-7]"]) if parts else ""


def wanted(names: Sequence[str], custom: Sequence[CustomPattern]) -> list[tuple[Detector, Any]]:
    """The chosen detectors with their compiled patterns, one's own last."""
    chosen = [(detector, re2.compile(detector.pattern)) for detector in DETECTORS if detector.name in names]
    return chosen + [(Detector(item.name, item.pattern, item.pattern), re2.compile(item.pattern)) for item in custom]
