"""Guesses whether more words follow: in a number that is being dictated, or after an open word.

For English and French. Knows words; does not know sound, time or turns. Since it is a guess, a
caller may wait a little longer because of it, but never for ever.
"""

from collections.abc import Sequence
from typing import Literal

Unfinished = Literal["number", "word"]
"""`number`: a number or a spelling that may go on. `word`: a word that does not end a sentence."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LONGEST_NUMBER = 16
"""Digits of the longest number, that of a bank card; a telephone number has 15 at most. After this
many digits a number is complete."""

_LEAST_NUMBER = 3
"""Digits, number words or letters; fewer are an answer ("two", "twenty five") and no dictation."""

_STRAYS = 1
"""How many words may stand in a number without belonging to it: a misheard word, or "then"."""

_CLOSING = ".,;:!?…\"'\u201d\u2019»)]}-\u2013\u2014"
_OPENING = "\"'\u201c\u2018\u2019«([{+-#"
_GOES_ON = (",", ":", ";", "-", "\u2013", "\u2014", "…", "...", "'", "\u2019")
"""Endings of a word that by themselves show that more follows."""

_OPEN_EN = _set(
    "a an the my your our their every of from into onto at for to than with without between "
    "during and or but because if whether although unless until while i we they i'm you're "
    "we're they're i'll you'll we'll they'll i'd we'd gonna wanna um uh er erm uhm"
)
_OPEN_FR = _set(
    "le la les un une des du de l d au aux ce cette ces mon ma mes ton ta tes son sa ses "
    "notre votre nos vos leurs chaque à dans sur sous pour par chez en vers entre depuis "
    "pendant et ou mais car que qui parce puisque lorsque quand comme je tu il on ils j'ai "
    "c'est qu euh heu euhm ben"
)
"""Words that hardly ever end a sentence. Words that may well end one are left out ("on" in "turn it
on", "avec")."""

_FOREIGN = _set("an but for or i a on son ton car par pour en comme sur qui me")
"""Open words of one language that may end a sentence in the other ("my son", "un an", "le but")."""

_UNITS_EN = "zero oh one two three four five six seven eight nine"
_TEENS_EN = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS_EN = "twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million"
_UNITS_FR = "zéro un une deux trois quatre cinq six sept huit neuf"
_TEENS_FR = "dix onze douze treize quatorze quinze seize"
_TENS_FR = "vingt vingts trente quarante cinquante soixante septante huitante nonante cent mille"
_NUMBERS = _set(" ".join((_UNITS_EN, _TEENS_EN, _TENS_EN, _UNITS_FR, _TEENS_FR, _TENS_FR)))

_REPEATS = _set("double triple")
_BETWEEN = _REPEATS | frozenset(["plus", "dash", "dot", "point", "and", "tiret", "virgule", "et"])
"""Words that may stand within a dictated number without being part of it."""


def unfinished(texts: Sequence[str]) -> Unfinished | None:
    """Whether more words are likely to follow, and why; None where the words look complete.

    "number": the words end in at least three digits, number words or spelled letters, or in two
    letters, but in fewer than the longest numbers have; or they end in a word such as "double" or
    "plus" that belongs to a number. A full stop does not show the end of a number, since the models
    write one at any hesitation; but a single number with a full stop is complete ("in 1998.").

    "word": the last word hardly ever ends a sentence (an article, a preposition, a conjunction, a
    filler), or its own punctuation shows that more follows (a comma, an apostrophe).

    Args:
        texts: the words of the turn so far, in order.
    """
    if not texts:
        return None
    if _is_open_number(texts):
        return "number"
    last = texts[-1]
    if last.endswith(("!", "?")):
        return None
    if last.endswith(_GOES_ON) or _bare(last) in _open_words(texts):
        return "word"
    return None


def _is_open_number(texts: Sequence[str]) -> bool:
    """Whether the words end in a number, or a spelling, that may go on."""
    last = _bare(texts[-1])
    if texts[-1].endswith(("!", "?")):
        return False
    size, groups, letters, strays = 0, 0, 0, 0
    for text in reversed(texts):
        bare = _bare(text)
        if found := _size(bare):
            size, groups = size + found, groups + 1
            letters += len(bare) == 1 and bare.isalpha() and bare not in _OPEN_EN | {"y", "à"}
        elif bare not in _BETWEEN:
            strays += 1
            if strays > _STRAYS or not size:
                break
    if last in _BETWEEN:
        return size > 0 or last in _REPEATS or (last == "plus" and len(texts) == 1)
    if groups == 1 and texts[-1].endswith("."):
        return False
    return (size >= _LEAST_NUMBER or letters > 1) and size < _LONGEST_NUMBER


def _size(bare: str) -> int:
    """How many digits, number words or letters a word stands for; 0 where it is none of those."""
    if any(char.isdigit() for char in bare):
        return sum(char.isdigit() for char in bare)
    if len(bare) == 1 and bare.isalpha():
        return 1
    parts = [part for part in bare.split("-") if part != "et"]
    return len(parts) if all(part in _NUMBERS for part in parts) else 0


def _open_words(texts: Sequence[str]) -> frozenset[str]:
    """The open words of the language that the words seem to be in. If the words do not show the
    language: the open words of both, without those that may end a sentence in the other."""
    said = [_bare(text) for text in texts[:-1]]
    english = sum(word in _OPEN_EN - _FOREIGN for word in said)
    french = sum(word in _OPEN_FR - _FOREIGN for word in said)
    if english != french:
        return _OPEN_EN if english > french else _OPEN_FR
    return (_OPEN_EN | _OPEN_FR) - _FOREIGN


def _bare(text: str) -> str:
    """A word in small letters, without the punctuation around it."""
    return text.lower().replace("\u2019", "'").strip(_CLOSING + _OPENING)
