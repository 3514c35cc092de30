"""A text that the model is made to write: only that, each piece when the model wants one."""

import unicodedata

import numpy as np
import pytest

from kiku.decoding.prompt import PromptPicker
from kiku.errors import ConfigError
from kiku.text import Vocabulary
from tests import tiny

CONFIG = tiny.model_config()
PAD, WORD_START = CONFIG.pad_id, CONFIG.word_start_id
ONE, TWO, THREE = (tiny.PIECES.index(piece) for piece in ("▁one", "▁two", "▁three"))


def pick(picker: PromptPicker, *liked: int) -> int:
    """What is picked where the model likes these, the first most."""
    logits = np.full(len(tiny.PIECES), -9.0, np.float32)
    for i, token in enumerate(liked):
        logits[token] = -i
    return picker(logits)


def test_nothing_but_the_text_is_written_when_the_model_wants_it() -> None:
    picker = PromptPicker(" one two ", tiny.vocabulary(), CONFIG)
    assert list(picker.left) == [ONE, TWO]
    assert pick(picker, PAD, ONE) == PAD
    assert pick(picker, WORD_START, ONE) == WORD_START
    assert pick(picker, THREE, TWO, ONE, PAD) == ONE, "of what may come, what the model likes most"
    assert list(picker.left) == [TWO]
    assert pick(picker, ONE, PAD, TWO) == PAD
    assert pick(picker, ONE, TWO) == TWO
    assert list(picker.left) == []
    assert pick(picker, ONE, TWO, PAD) == PAD, "all is written"
    assert pick(picker, ONE, WORD_START, PAD) == WORD_START


def test_accents_may_stand_apart_from_their_letters() -> None:
    vocabulary = Vocabulary.from_pieces([*tiny.PIECES[:4], "▁", "n", "o", "ë", "l"])
    composed, apart = (
        PromptPicker(unicodedata.normalize(form, "noël"), vocabulary, CONFIG).left
        for form in ("NFC", "NFD")
    )
    assert list(apart) == list(composed) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("text", ["", "  "])
def test_a_prompt_needs_a_text(text: str) -> None:
    with pytest.raises(ConfigError, match="needs the text"):
        PromptPicker(text, tiny.vocabulary(), CONFIG)
