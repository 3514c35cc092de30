"""Alignment of two texts word by word: equal, substituted, deleted and inserted words.

Works on the text of words only: without times and without sound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, cast

from kiku.errors import MissingExtra

if TYPE_CHECKING:
    from jiwer import CharacterOutput, WordOutput

PairKind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True, slots=True)
class WordPair:
    """A word of the reference and the word recognized for it; or one of them alone."""

    kind: PairKind
    reference: int | None
    """Index of the word of the reference; None for an insertion."""
    heard: int | None
    """Index of the word that was recognized; None for a deletion."""


def align_words(reference: Sequence[str], heard: Sequence[str]) -> tuple[WordPair, ...]:
    """Align two texts with the fewest substitutions, deletions and insertions.

    Args:
        reference: words without spaces in them.
        heard: the words that were recognized, likewise.
    """
    found = _words(" ".join(reference), " ".join(heard))
    pairs: list[WordPair] = []
    for chunk in found.alignments[0]:
        kind = cast("PairKind", chunk.type)
        said = range(chunk.ref_start_idx, chunk.ref_end_idx)
        got = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if kind == "delete":
            pairs += [WordPair(kind, i, None) for i in said]
        elif kind == "insert":
            pairs += [WordPair(kind, None, j) for j in got]
        else:
            pairs += [WordPair(kind, i, j) for i, j in zip(said, got, strict=True)]
    return tuple(pairs)


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest substitutions, deletions and insertions of words, which have no spaces."""
    return sum(pair.kind != "equal" for pair in align_words(reference, heard))


def character_errors(reference: str, heard: str) -> int:
    """The fewest substitutions, deletions and insertions of characters; spaces count."""
    found = _characters(reference, heard)
    return found.substitutions + found.deletions + found.insertions


def sources(tokens: Sequence[str], words: Sequence[Sequence[str]]) -> list[range]:
    """Which words each token of a normalised text comes from.

    Normalising may join words ("twenty five" -> "25"), split them ("don't" -> "do not") and drop
    them ("uh"). As whole texts are normalised, this has to be found afterwards.

    Args:
        tokens: of the whole text, normalised.
        words: each word normalised by itself.

    Returns:
        For each token a range of indices of words; empty where it comes from none.
    """
    single = [(token, index) for index, parts in enumerate(words) for token in parts]
    found = [range(0)] * len(tokens)
    pairs = align_words(tokens, [token for token, _ in single])
    for is_equal, run in groupby(pairs, key=lambda pair: pair.kind == "equal"):
        some = list(run)
        if is_equal:
            for pair in some:
                index = single[cast("int", pair.heard)][1]
                found[cast("int", pair.reference)] = range(index, index + 1)
            continue
        # Rewritten tokens come from all the words that they replace.
        of = [single[pair.heard][1] for pair in some if pair.heard is not None]
        for pair in some:
            if pair.reference is not None and of:
                found[pair.reference] = range(of[0], of[-1] + 1)
    return found


def check_extra() -> None:
    """Raise MissingExtra if the extra that `kiku.evaluate` needs is not installed."""
    _words("", "")


def _words(reference: str, heard: str) -> "WordOutput":
    try:
        from jiwer import process_words
    except ImportError as error:
        raise MissingExtra("kiku.evaluate", "evaluate") from error
    return process_words(reference, heard)


def _characters(reference: str, heard: str) -> "CharacterOutput":
    try:
        from jiwer import process_characters
    except ImportError as error:
        raise MissingExtra("kiku.evaluate", "evaluate") from error
    return process_characters(reference, heard)
