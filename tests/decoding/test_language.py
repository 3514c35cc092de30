"""A prior over tokens that keeps a stream in a language."""

import numpy as np
import pytest

from kiku.decoding import language_prior
from kiku.errors import ConfigError
from kiku.text import Vocabulary


def test_a_prior_for_one_of_two_languages() -> None:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁the", "▁le", "▁a", "t", "▁", "e", "h", "l", "x"]
    vocabulary = Vocabulary.from_pieces(pieces)
    english, french = ["the a the at"] * 50, ["le a le at le"] * 50
    prior = language_prior(vocabulary, english, french, strength=2.0)
    assert prior.shape == (len(pieces),)
    assert prior.dtype == np.float32
    lost = {piece for piece, loss in zip(pieces, prior, strict=True) if loss < 0}
    assert lost == {"▁le"}
    assert prior.min() == -2.0
    other = language_prior(vocabulary, french, english)
    assert {piece for piece, loss in zip(pieces, other, strict=True) if loss < 0} == {"▁the"}
    # A sentence that cannot be spelled is left out; if all are, that is told.
    same = language_prior(vocabulary, [*english, "zebra"], french, strength=2.0)
    np.testing.assert_array_equal(same, prior)
    with pytest.raises(ConfigError, match="cannot spell any sentence of the other language"):
        language_prior(vocabulary, english, ["zebra"])
    for strength in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="strength must be"):
            language_prior(vocabulary, english, french, strength=strength)
