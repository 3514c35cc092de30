"""Makes texts comparable: removes what two writers of the same words may do differently."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Literal, cast, get_args

from kiku.errors import InputError, MissingExtra

Normalise = Callable[[str], str]
"""A text -> words with single spaces between them."""

Choice = Literal["auto", "english", "basic", "none"]
"""`english` is Whisper's normaliser, which also spells out contractions, writes numbers in digits
and turns British into American spelling; `basic` drops case and punctuation; `none` changes
nothing; `auto` takes `english` for rows in English, or without a language, and `basic` for others.
"""

CHOICES: tuple[Choice, ...] = get_args(Choice)

_APOSTROPHES = str.maketrans("\u2019\u02bc\u2018\uff07", "''''")


def normaliser(choice: str, language: str | None = None) -> Normalise:
    """The function that makes texts of a language comparable.

    Raises:
        InputError: there is no such choice.
        MissingExtra: Whisper's normaliser is needed, and not installed.
    """
    if choice not in CHOICES:
        raise InputError(f"normalise must be one of {', '.join(CHOICES)}, not {choice!r}")
    if choice == "auto":
        spoken = (language or "en").lower().replace("_", "-").partition("-")[0]
        choice = "english" if spoken in ("en", "eng", "english") else "basic"
    if choice == "english":
        return _english()
    return basic if choice == "basic" else _as_it_is


@cache
def _english() -> Normalise:
    try:
        english: Any = import_module("whisper_normalizer.english")
    except ImportError as error:
        raise MissingExtra("Whisper's English normaliser", "evaluate") from error
    whispers = cast("Callable[[str], Any]", english.EnglishTextNormalizer())
    return lambda text: _as_it_is(str(whispers(text)))


def _as_it_is(text: str) -> str:
    return " ".join(text.split())


def basic(text: str) -> str:
    """Lower case, without punctuation and symbols; accents stay, and so do apostrophes inside a
    word."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)
    # Folding may decompose letters again.
    kept = "".join(map(_kept, unicodedata.normalize("NFC", folded)))
    return _as_it_is(re.sub(r"(?<!\w)'+|'+(?!\w)", " ", kept))


def _kept(character: str) -> str:
    kind = unicodedata.category(character)[0]
    return character if kind in "LMN" or character == "'" else " "
