"""Decoding options in a vocabulary of 8000 pieces for two languages, as the 1B has one: what a
choice costs, and how well a prior over pieces tells the languages apart. `decoding.py` runs it.

The vocabulary is made here from sentences: the published one is not needed.
"""

import gzip
import io
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from kiku.checkpoint.model_shapes import SHAPES
from kiku.decoding import language_prior, token_picker
from kiku.options import DecodingOptions
from kiku.text import Vocabulary


def measure(data: Path) -> dict[str, Any]:
    """Costs and languages, for a row of results."""
    texts = {language: sentences(data, language, 20_000) for language in ("en", "fr")}
    vocabulary = bilingual(texts)
    words = sorted({word for line in texts["en"] for word in line.split() if word.isalpha()})
    return {
        "microseconds_at_8000_tokens": costs(vocabulary, words[:: len(words) // 1000]),
        "language_prior": two_languages(texts, vocabulary),
    }


def seconds(call: Callable[[], object]) -> float:
    """Of a processor, in the fastest of some rounds: others may use the machine."""
    rounds: list[float] = []
    for _ in range(20):
        begun = time.thread_time()
        for _ in range(50):
            call()
        rounds.append((time.thread_time() - begun) / 50)
    return min(rounds)


def costs(vocabulary: Vocabulary, words: Sequence[str]) -> dict[str, Any]:
    """Microseconds of a choice among 8000 tokens, where no text is picked and where text is."""
    config = SHAPES["1b"]
    logits = np.random.default_rng(0).normal(0, 2.5, config.lm.text_vocab_size).astype(np.float32)
    silent, text = logits.copy(), logits.copy()
    silent[config.pad_id] = 20
    text[vocabulary.encode("the")[0]] = 16
    rows: dict[str, Any] = {}
    for name, options in {
        "temperature": DecodingOptions(temperature=0.25),
        "100 phrases": DecodingOptions(hotwords=words[:100]),
        "1000 phrases": DecodingOptions(hotwords=words[:1000]),
        "100 phrases and temperature": DecodingOptions(hotwords=words[:100], temperature=0.25),
    }.items():
        picker = token_picker(options, vocabulary, config)
        assert picker is not None
        rows[name] = {
            "no text": round(1e6 * seconds(lambda: picker(silent)), 1),  # noqa: B023
            "text": round(1e6 * seconds(lambda: picker(text)), 1),  # noqa: B023
        }
    return rows


def sentences(data: Path, language: str, number: int) -> list[str]:
    """The first sentences of a language."""
    with gzip.open(data / f"text/sentences.{language}.txt.gz", "rt") as lines:
        return [line.strip() for line in islice(lines, number)]


def two_languages(texts: dict[str, list[str]], vocabulary: Vocabulary) -> dict[str, Any]:
    """What sentences that the prior was not made from lose, in nats a piece, in a vocabulary of
    both languages as the 1B has one; and of how many the right language loses less."""
    known = {name: lines[: len(lines) // 2] for name, lines in texts.items()}
    priors = {
        "en": language_prior(vocabulary, known["en"], known["fr"]),
        "fr": language_prior(vocabulary, known["fr"], known["en"]),
    }
    rows: dict[str, Any] = {"sentences": len(known["en"])}
    for spoken, lines in texts.items():
        pieces = [vocabulary.encode(line) for line in lines[len(lines) // 2 :][:2000]]
        lost = {
            name: np.array([-prior[tokens].sum() for tokens in pieces])
            for name, prior in priors.items()
        }
        other = "fr" if spoken == "en" else "en"
        number = sum(map(len, pieces))
        rows[spoken] = {
            "nats_lost_if_wanted": round(float(lost[spoken].sum()) / number, 3),
            "nats_lost_if_not": round(float(lost[other].sum()) / number, 3),
            "loses_less_if_wanted": round(float(np.mean(lost[spoken] < lost[other])), 4),
        }
    return rows


def bilingual(texts: dict[str, list[str]]) -> Vocabulary:
    """8000 pieces of two languages, with the special ones of the published models."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for lines in texts.values() for line in lines]),
        model_writer=made, vocab_size=8000, unk_id=0, bos_id=1, eos_id=2, pad_id=3,
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    return Vocabulary.from_bytes(made.getvalue())
