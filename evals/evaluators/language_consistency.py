"""Whether the answer is in the language of the question."""

import re
from functools import cache
from threading import Lock

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from evals.evaluator import NOT_APPLICABLE, Better, Sample, Scale, Score

# Code, links and addresses are in no language.
NO_LANGUAGE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,200}`|https?://\S{1,500}|\S{1,100}@\S{1,100}", re.DOTALL)
ANOTHER_WANTED = re.compile(
    r"\b(?:translat|übersetz|tradu[cirz]|перевед|перевод|vertaal|tłumacz)\w*|翻译|翻訳|"
    r"\b(?:in|into|to|auf|ins|en|em|на|по)[ -](?:arabic|chinese|dutch|english|french|german|hindi|italian|japanese|"
    r"korean|polish|portuguese|russian|spanish|turkish|ukrainian|arabisch|chinesisch|deutsch|englisch|französisch|spanisch"
    r"|italienisch|anglais|français|espagnol|allemand|italien|inglés|francés|español|alemán|inglês|английск\w*|русск\w*"
    r"|немецк\w*)\b",
    re.IGNORECASE,
)
# Written languages so close that a sentence cannot tell them apart, and whose speakers read each other's.
TOGETHER = {
    "wuu": "zh", "yue": "zh", "pcm": "en", "lb": "de", "nn": "no", "da": "no", "ms": "id", "bs": "sr", "hr": "sr",
    "gl": "pt", "ext": "es", "an": "es", "fy": "nl", "af": "nl", "wa": "fr", "oc": "ca", "arz": "ar", "ary": "ar",
}  # fmt: skip
LOOKED_AT = 2_000
_lock = Lock()


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class LanguageConsistency:
    """1.0 if the answer's language is that of the user's last message, else 0.0.

    Not applicable unless both languages are certain: at least `min_letters` letters (a third of that in scripts where
    a character is a syllable or a word) and a probability of `min_confidence`, by py3langid; nor to answers that had
    to be JSON, nor where the user or the system prompt asks for a translation or for a language by name.  With these
    bounds none of 7,300 recorded English texts of 15 letters and more was taken for another language.  Close
    relatives (Danish and Norwegian, Croatian and Serbian, ...) count as one.
    The label is the answer's language (ISO 639-1).
    """

    name = "language_consistency"
    version = "1"
    reads = ("output_text", "input_text", "system_text", "response_format")
    scale = Scale(0.0, 1.0, Better.HIGHER)

    def __init__(self, min_letters: int = 15, min_confidence: float = 0.8) -> None:
        if min_letters < 1 or not 0 < min_confidence <= 1:
            raise ValueError(
                f"min_letters {min_letters} must be positive, min_confidence {min_confidence} within 0 to 1"
            )
        self._min_letters = min_letters
        self._min_confidence = min_confidence

    def score(self, sample: Sample) -> Score:
        asked = sample.input_text[:LOOKED_AT]
        if sample.response_format in ("json_object", "json_schema"):
            return NOT_APPLICABLE
        if ANOTHER_WANTED.search(asked) or ANOTHER_WANTED.search(sample.system_text[:LOOKED_AT]):
            return NOT_APPLICABLE
        question, answer = self._language(asked), self._language(sample.output_text[:LOOKED_AT])
        if question is None or answer is None:
            return NOT_APPLICABLE
        if question == answer:
            return Score(1.0, answer)
        return Score(0.0, answer, f"asked in {question}, answered in {answer}")

    def _language(self, text: str) -> str | None:
        """ISO 639-1 code of the text's language; None if that is not certain."""
        text = NO_LANGUAGE.sub(" ", text)
        # A letter of an alphabet counts one, of a syllabary or of Han three: it says as much.
        letters = sum(3 if character >= "\u0e00" else 1 for character in text if character.isalpha())
        if letters < self._min_letters:
            return None
        with _lock:
            ranked = _identifier().rank(text.encode("utf-8", "replace"))
        shares: dict[str, float] = {}
        for code, share in ranked:
            code = TOGETHER.get(code, code)
            shares[code] = shares.get(code, 0.0) + share
        language = max(shares, key=lambda code: shares[code])
        certain = shares[language] >= self._min_confidence and language != "zxx"  # zxx: no language at all
        return str(language) if certain else None
