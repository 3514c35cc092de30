"""The kind of piece of each token of a vocabulary, as masks over all tokens."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kiku.text import Vocabulary


@dataclass(frozen=True, slots=True, eq=False)
class PieceKinds:
    """Masks [V] over the tokens of a vocabulary; they are shared and never change."""

    is_text: NDArray[np.bool_]
    """Whether the token stands for text, whatever the model uses it for."""
    begins_word: NDArray[np.bool_]
    """Whether the token is text that begins with a space."""
    is_punctuation: NDArray[np.bool_]
    """Whether the token is text that neither begins a word nor has letters or digits."""


@lru_cache(maxsize=4)  # going through all pieces takes milliseconds; streams share vocabularies
def piece_kinds(vocabulary: Vocabulary, num_tokens: int) -> PieceKinds:
    """The kinds of the vocabulary's first `num_tokens` pieces, those that a model writes."""
    tokens = range(num_tokens)
    is_text = np.array([vocabulary.is_text(token) for token in tokens], np.bool_)
    begins_word = np.array([vocabulary.starts_word(token) for token in tokens], np.bool_)
    has_letters = np.zeros(num_tokens, np.bool_)
    for token in np.flatnonzero(is_text).tolist():
        has_letters[token] = any(map(str.isalnum, vocabulary.piece(token)))
    kinds = PieceKinds(is_text, begins_word, is_text & ~begins_word & ~has_letters)
    for mask in (kinds.is_text, kinds.begins_word, kinds.is_punctuation):
        mask.setflags(write=False)
    return kinds
