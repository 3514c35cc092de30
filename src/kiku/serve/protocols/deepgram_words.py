"""What Deepgram's three endpoints write alike: words, the model, times, ends of connections."""

import hashlib
import unicodedata
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from kiku.serve.protocols.interface import Hangup, ModelCard, Send, round_s
from kiku.text import Word

MAX_ECHO = 1_000
"""Characters of a client's message that come back in an error."""

_ARCHITECTURE = "kyutai-stt"
_MODELS = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # names that are URLs, by RFC 9562
_REASON_BYTES = 120
_ENCODE = msgspec.json.Encoder().encode


def send(message: dict[str, Any]) -> Send:
    """A message as text."""
    return Send(_ENCODE(message).decode())


def hangup(code: int, reason: str = "") -> Hangup:
    """The end of the connection; the reason is cut to the bytes that a close frame can hold."""
    return Hangup(code, reason.encode("ascii", "replace")[:_REASON_BYTES].decode())


def probability(value: float) -> float:
    """A probability as it is written: to four places, which are more than it is worth."""
    return round(value, 4)


def confidence(words: Sequence[Word]) -> float:
    """The confidence of several words: the mean of their probabilities, or 0 for no words."""
    if not words:
        return 0.0
    return probability(sum(word.probability for word in words) / len(words))


def transcript(words: Sequence[Word]) -> str:
    """The words, a space between them."""
    return " ".join(word.text for word in words)


def bare(text: str) -> str:
    """A word in lower case and without the punctuation around it; a text of punctuation alone
    stays as it is."""
    first, last = 0, len(text)
    while first < last and unicodedata.category(text[first])[0] == "P":
        first += 1
    while last > first and unicodedata.category(text[last - 1])[0] == "P":
        last -= 1
    return text[first:last].lower() or text


def word_item(word: Word) -> dict[str, Any]:
    """A word of `/v1/listen`: `word` is bare, `punctuated_word` is as the model wrote it."""
    return {
        "word": bare(word.text),
        "start": round_s(word.start),
        "end": round_s(word.end),
        "confidence": probability(word.probability),
        "punctuated_word": word.text,
    }


def model_uuid(model: ModelCard) -> str:
    """An id that is the same for the same model, wherever it runs."""
    return str(uuid.uuid5(_MODELS, f"{model.name} {model.version}"))


def model_info(model: ModelCard) -> dict[str, str]:
    """The model's name and version."""
    return {"name": model.name, "version": model.version, "arch": _ARCHITECTURE}


def time_of_day(seconds: float) -> str:
    """Seconds since 1970 as Deepgram writes a time."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def new_digest() -> Any:
    """A new digest, for the hash of the sound that stands in the metadata."""
    return hashlib.sha256(usedforsecurity=False)
