"""A prior over tokens that keeps a stream in one language, made from sentences of two languages."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError, VocabularyError
from kiku.text import Vocabulary

STRENGTH = 4.0
"""Most nats that a piece of the other language loses."""

_MARGIN = 1.0
"""Nats. A piece loses nothing if it is up to e times rarer in the wanted language than in the
other, since texts of one language differ by as much."""

_SMOOTHING = 2.0
"""Occurrences that are added to those of every piece, in both languages."""


def language_prior(
    vocabulary: Vocabulary,
    wanted: Iterable[str],
    other: Iterable[str],
    *,
    strength: float = STRENGTH,
) -> NDArray[np.float32]:
    """The nats that each token loses if it belongs to another language, for
    `DecodingOptions.language_prior`.

    A piece loses the logarithm of how many times rarer it is in the wanted language than in the
    other, beyond a factor of e, and at most `strength`. Pieces of both languages, pieces of
    neither, PAD and markers lose nothing. So the prior affects which text is written, but not
    whether text is written.

    Args:
        vocabulary: the model's, one for both languages.
        wanted: sentences of the language that is spoken, as the model would write them; some
            thousands are enough.
        other: sentences of the other language.
        strength: largest loss in nats; above 0.

    Returns:
        [V] float32, from -strength to 0.

    Raises:
        ConfigError: `strength` is no number above 0, or one of the languages has no sentences that
            the vocabulary can spell.
    """
    if not (np.isfinite(strength) and strength > 0):
        raise ConfigError(f"strength must be a number of nats above 0, not {strength}")
    counts = [_counts(vocabulary, wanted), _counts(vocabulary, other)]
    for what, count in zip(("wanted", "other"), counts, strict=True):
        if not count.any():
            raise ConfigError(f"the vocabulary cannot spell any sentence of the {what} language")
    # Shares of all pieces; a piece that occurs in neither language is equally rare in both.
    least = _SMOOTHING / sum(count.sum() for count in counts)
    shares = [count / count.sum() + least for count in counts]
    rarer = np.log(shares[0] / shares[1])
    return np.clip(rarer + _MARGIN, -strength, 0).astype(np.float32)


def _counts(vocabulary: Vocabulary, sentences: Iterable[str]) -> NDArray[np.float64]:
    """[V] how often each piece occurs; sentences that cannot be spelled are left out."""
    counts = np.zeros(len(vocabulary))
    for sentence in sentences:
        try:
            np.add.at(counts, vocabulary.encode(sentence), 1)
        except VocabularyError:
            continue
    return counts
