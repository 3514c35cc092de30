"""How OpenAI's interfaces write a word: as one token with its log-probability."""

import math
from typing import Any

from kiku.text import Word

_MIN_PROBABILITY = 1e-30
"""Smaller probabilities count as this one, as JSON has no number for the logarithm of 0."""


def spelled(word: Word, *, first: bool) -> str:
    """A word, with the space that parts it from the one before."""
    return word.text if first else f" {word.text}"


def logprob(word: Word) -> float:
    """The log-probability of a word."""
    # In this order, as `max` returns its first argument if the second is NaN.
    return math.log(max(_MIN_PROBABILITY, word.probability))


def token(word: Word, log: float | None, *, first: bool) -> dict[str, Any]:
    """A word as a token with its log-probability `log`; None is one that is not known."""
    text = spelled(word, first=first)
    return {"token": text, "logprob": log, "bytes": list(text.encode())}
