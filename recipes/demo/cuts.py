"""Snippets from sentences: words of the vocabulary cut out, sentences with these, and without."""

import numpy as np
import torch

from recipes.demo.align import LATENT_S, Aligner, Phones, force
from recipes.demo.bank import WORD_INDEX, Bank, BankWriter, WordSpan, cut
from recipes.demo.corpus import SAMPLE_RATE, Corpus, Recording
from recipes.demo.precision import lowered
from recipes.demo.speak import HOMOPHONES

CONFUSABLE = frozenset(["won", "ate", "know", "write", "knows", "too", "nigh", "fore"])
"""Words that sound like one of the vocabulary's: sentences with them are left out."""

_WORST_PATH = -1.5
_LEAST_S, _MOST_S = 0.12, 1.0


def word_spans(
    log_probs: np.ndarray, words: tuple[str, ...], phones: Phones
) -> list[tuple[float, float, float]] | None:
    """Start, end and confidence of every word of a sentence, by forced alignment.

    Args:
        log_probs: [T, 1 + phones] from the aligner.
        words: the transcript.
        phones: how each word is pronounced.

    Returns:
        seconds, seconds and the mean log-probability of the word's phones at their rows; None if
        the transcript does not fit.
    """
    labels = phones.of_words(words)
    rows, score = force(log_probs, labels)
    if score < _WORST_PATH:
        return None
    sizes = [len(phones.words[word]) for word in words]
    ends = np.cumsum(sizes)
    spans: list[tuple[float, float, float]] = []
    for i, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        if size == 0:
            return None
        first, last = rows[end - size, 0], rows[end - 1, 1]
        before = rows[end - size - 1, 1] if i else -10
        after = rows[end, 0] if end < len(rows) else len(log_probs) + 10
        # CTC marks the middle of a phone: a word extends half way to its neighbour, or by two rows
        # before and three after if no neighbour is near.
        start_s = max((before + 1 + first) / 2, first - 2.0) * LATENT_S
        end_s = min((last + 1 + after) / 2, last + 1 + 3.0) * LATENT_S
        picked = [log_probs[rows[j, 0], labels[j]] for j in range(end - size, end)]
        spans.append(
            (max(0.0, start_s), min(end_s, len(log_probs) * LATENT_S), float(np.mean(picked)))
        )
    return spans


@torch.no_grad()
def log_probabilities(aligner: Aligner, sounds: list[np.ndarray]) -> list[np.ndarray]:
    """Log-probabilities [T, 1 + phones] of each sound (float32 [S])."""
    length = -(-max(len(sound) for sound in sounds) // 1920) * 1920
    pcm = torch.zeros(len(sounds), 1, length)
    for row, sound in zip(pcm, sounds, strict=True):
        level = float(np.sqrt(np.mean(sound**2))) + 1e-4
        row[0, : len(sound)] = torch.from_numpy(sound) * (0.07 / level)
    with lowered():
        logits = aligner(pcm)
    given = logits.float().log_softmax(-1).numpy()
    return [row[: max(1, len(sound) // 960)] for row, sound in zip(given, sounds, strict=True)]


def cut_words(
    corpus: Corpus, recordings: list[Recording], aligner: Aligner, phones: Phones
) -> Bank:
    """Snippets from sentences that contain words of the vocabulary.

    Each vocabulary word is cut out alone; a sentence of at most 7 s is also kept whole, if all of
    its vocabulary words are placed well.
    """
    wanted = [
        r
        for r in recordings
        if len(r.words) > 1
        and r.seconds < 16
        and not CONFUSABLE & set(r.words)
        and WORD_INDEX.keys() & set(r.words)
    ]
    wanted.sort(key=lambda r: r.seconds)
    writer = BankWriter()
    for first in range(0, len(wanted), 16):
        group = wanted[first : first + 16]
        sounds = [corpus.audio(r) for r in group]
        for recording, sound, given in zip(
            group, sounds, log_probabilities(aligner, sounds), strict=True
        ):
            aligned = word_spans(given, recording.words, phones)
            if aligned is not None:
                _keep(writer, recording, sound, aligned)
    return writer.finish()


def _keep(
    writer: BankWriter,
    recording: Recording,
    sound: np.ndarray,
    aligned: list[tuple[float, float, float]],
) -> None:
    spans: list[WordSpan] = []
    good = True
    for word, (start, end, score) in zip(recording.words, aligned, strict=True):
        if word not in WORD_INDEX:
            continue
        span = WordSpan(WORD_INDEX[word], start, end)
        if score < -2.0 or not _LEAST_S <= end - start <= _MOST_S:
            good = False
            continue
        spans.append(span)
        # The cut keeps little of the neighbours: enough to sound natural, too little to be
        # recognised as words.
        piece, moved = cut(sound, [span], before_s=0.04, after_s=0.05)
        writer.add("cut", recording.speaker, piece, moved)
    if good and spans and recording.seconds <= 7.0:
        writer.add("cut", recording.speaker, sound, spans)


def other_words(
    corpus: Corpus,
    recordings: list[Recording],
    aligner: Aligner,
    phones: Phones,
    *,
    most: int = 4000,
) -> Bank:
    """Single words outside the vocabulary, cut out of sentences, for the model to ignore."""
    rng = np.random.default_rng(8)
    short = [r for r in recordings if len(r.words) > 1 and r.seconds < 8]
    chosen = [short[i] for i in rng.permutation(len(short))[: most // 2]]
    chosen.sort(key=lambda r: r.seconds)
    writer = BankWriter()
    for first in range(0, len(chosen), 16):
        group = chosen[first : first + 16]
        sounds = [corpus.audio(r) for r in group]
        for recording, sound, given in zip(
            group, sounds, log_probabilities(aligner, sounds), strict=True
        ):
            aligned = word_spans(given, recording.words, phones) or []
            for word, (start, end, score) in zip(recording.words, aligned, strict=False):
                known = word in WORD_INDEX or word in CONFUSABLE or word in HOMOPHONES
                if known or score < -2.0 or not 0.2 <= end - start <= 1.0 or rng.random() < 0.4:
                    continue
                piece, _ = cut(sound, [WordSpan(0, start, end)], before_s=0.04, after_s=0.05)
                writer.add("other", recording.speaker, piece, [])
    return writer.finish()


def other_speech(
    corpus: Corpus, recordings: list[Recording], *, most_s: float = 5400.0, seed: int = 3
) -> Bank:
    """Pieces of at most 4 s of sentences without vocabulary words, or in another language."""
    rng = np.random.default_rng(seed)
    free = [r for r in recordings if not (WORD_INDEX.keys() | CONFUSABLE) & set(r.words)]
    writer = BankWriter()
    total = 0.0
    for i in rng.permutation(len(free)):
        recording = free[i]
        sound = corpus.audio(recording)[: 4 * SAMPLE_RATE]
        writer.add("other", recording.speaker, sound, [])
        total += len(sound) / SAMPLE_RATE
        if total > most_s:
            break
    return writer.finish()
