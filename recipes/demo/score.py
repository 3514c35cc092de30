"""The fixed test strings on which word errors are counted."""

from collections import defaultdict

import numpy as np

from recipes.demo.bank import MARGIN_AFTER_S, MARGIN_BEFORE_S, Bank, Snippet, WordSpan
from recipes.demo.corpus import SAMPLE_RATE
from recipes.demo.sound import faded

Test = tuple[np.ndarray, list[WordSpan]]
"""float32 samples [S], and the words in them."""


def person_strings(bank: Bank, *, count: int, seed: int, level: float = 0.1) -> list[Test]:
    """Strings of 3 to 8 words with gaps of 0.15 to 0.8 s, each string of one speaker.

    Speakers take turns, string by string.

    Args:
        bank: snippets of single words.
        count: how many strings.
        seed: the same seed gives the same strings.
        level: root mean square of every word.
    """
    rng = np.random.default_rng(seed)
    said: dict[str, list[Snippet]] = defaultdict(list)
    for snippet in bank.snippets:
        if len(snippet.spans) == 1 and snippet.kind in ("real", "voice", "usual"):
            said[snippet.speaker].append(snippet)
    speakers = sorted(said)
    tests: list[Test] = []
    for number in range(count):
        words = said[speakers[number % len(speakers)]]
        picked = [words[i] for i in rng.integers(0, len(words), int(rng.integers(3, 9)))]
        parts: list[np.ndarray] = [np.zeros(int(0.4 * SAMPLE_RATE), np.float32)]
        spans: list[WordSpan] = []
        position = len(parts[0])
        for snippet in picked:
            sound = bank.audio(snippet)
            sound = faded(sound) * np.float32(level / (np.sqrt(np.mean(sound**2)) + 1e-4))
            spans.append(snippet.spans[0].moved(position / SAMPLE_RATE))
            gap_s = max(0.0, rng.uniform(0.15, 0.8) - MARGIN_BEFORE_S - MARGIN_AFTER_S)
            parts += [sound, np.zeros(int(gap_s * SAMPLE_RATE), np.float32)]
            position += len(sound) + len(parts[-1])
        parts.append(np.zeros(int(1.0 * SAMPLE_RATE), np.float32))
        sound = np.concatenate(parts)
        hiss = rng.standard_normal(len(sound), dtype=np.float32) * np.float32(1e-3)
        tests.append((np.clip(sound + hiss, -1, 1), spans))
    return tests
