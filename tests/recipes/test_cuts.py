"""Words cut out of sentences, with an aligner that is always right."""

from dataclasses import replace

import numpy as np
import torch

from recipes.demo.align import Phones
from recipes.demo.bank import Bank
from recipes.demo.corpus import Recording
from recipes.demo.cuts import other_words

RATE = 24_000
PHONES = Phones(
    ("a", "b", "c", "d"), {"house": (1, 2), "go": (3,), "to": (4,), "green": (2, 3), "a": (4,)}
)
ROWS = {"house": (8, 12), "go": (25,), "to": (35,), "green": (45, 50), "a": (60,)}
"""Of 40 ms: where each phone of each word is heard."""


class FakeCorpus:
    """Sentences of 3 s; each word's sound is a level of its own."""

    def audio(self, recording: Recording) -> np.ndarray:
        sound = np.full(3 * RATE, 0.01, np.float32)
        for i, word in enumerate(recording.words):
            first, last = ROWS[word][0] - 2, ROWS[word][-1] + 4
            sound[first * 960 : last * 960] = 0.1 * (i + 1)
        return sound


def aligner(pcm: torch.Tensor) -> torch.Tensor:
    """Hears every word of `ROWS` where it is."""
    logits = torch.full((len(pcm), pcm.shape[-1] // 960, 5), -9.0)
    logits[..., 0] = 0.0
    for word, rows in ROWS.items():
        for row, phone in zip(rows, PHONES.words[word], strict=True):
            logits[:, row, 0], logits[:, row, phone] = -9.0, 0.0
    return logits


def sentences(count: int, words: str) -> list[Recording]:
    return [
        Recording(
            f"{words} {i}", tuple(words.split()), f"s{i}", "en-read", "en", "train", 0, 72_000
        )
        for i in range(count)
    ]


def cut_from(recordings: list[Recording], **how: int) -> Bank:
    return other_words(
        FakeCorpus(),  # pyright: ignore[reportArgumentType]
        recordings,
        aligner,  # pyright: ignore[reportArgumentType]
        PHONES,
        **how,
    )


def test_words_outside_the_vocabulary_are_cut_out_alone() -> None:
    bank = cut_from(sentences(20, "house go to green a"))
    # Left out: "go" (of the vocabulary), "to" (it sounds like "two"); four in ten at random.
    assert 14 < len(bank.snippets) < 56
    lengths = {round(snippet.seconds, 2) for snippet in bank.snippets}
    assert all(snippet.kind == "other" and not snippet.spans for snippet in bank.snippets)
    house, green, a = 10 * 0.04, 11 * 0.04, 6 * 0.04  # two rows before, three after
    assert lengths == {round(length + 0.09, 2) for length in (house, green, a)}
    for snippet in bank.snippets:
        middle = bank.audio(snippet)[int(0.1 * RATE) : int(-0.1 * RATE)]
        assert np.ptp(middle) < 1e-3  # of one word alone


def test_no_more_sentences_are_read_than_asked_for() -> None:
    few = cut_from(sentences(50, "house go to green a"), most=10)
    assert len({snippet.speaker for snippet in few.snippets}) <= 5


def test_sentences_of_one_word_and_long_ones_are_left_alone() -> None:
    (long,) = sentences(1, "house go to green a")
    long = replace(long, end=9 * RATE)
    assert not cut_from([*sentences(5, "house"), long]).snippets
