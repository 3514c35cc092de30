"""A model of words: how likely each is after the two before it, as counted in texts."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
"""What stands before the first word of a text, after its last, and for every word not known."""

Gram = tuple[str, ...]
"""One to three words in a row."""

_DISCOUNTS = (0.1, 0.9)
"""Least and largest share of a count of one that goes to what was not counted."""


class WordModel:
    """A trigram model with interpolated Kneser-Ney smoothing, one discount for each length.

    What is taken off the counts of single words is the probability of a word that is not known:
    words that the texts have once tell how often there is a new one.
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        """Count texts, each a row of words; those without words are passed over."""
        triples, firsts = Counter[Gram](), Counter[Gram]()
        for words in texts:
            if words:
                row = (START, *words, END)
                triples.update(zip(row, row[1:], row[2:], strict=False))
                firsts[row[:2]] += 1
        # Of shorter n-grams it counts how many different words stand before them. Before START
        # there is none, so the first words of texts are counted as often as they occur.
        pairs = firsts + Counter(gram[1:] for gram in triples)
        singles = Counter(gram[1:] for gram in pairs)
        self._levels = tuple(map(_Level, (singles, pairs, triples)))
        self._found: dict[tuple[Gram, str], float] = {}
        self.words = frozenset(word for (word,) in singles) - {END}
        self.starts: dict[str, float] = {}
        """Beginnings of known words; the logarithm of how likely the likeliest word is that begins
        so, whatever is before it."""
        for word in self.words:
            found = self.log_probability((), word)
            for end in range(1, len(word) + 1):
                self.starts[word[:end]] = max(found, self.starts.get(word[:end], found))

    def __contains__(self, word: str) -> bool:
        """Whether the texts have the word."""
        return word in self.words

    def log_probability(self, history: Gram, word: str) -> float:
        """The logarithm of the probability that `word` comes next.

        Args:
            history: the words before it, `START` first; the last two of them count.
            word: a word, `END`, or `UNKNOWN` for all words together that are not known.
        """
        key = history, word
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = math.log(self._probability(*key))
        return found

    def _probability(self, history: Gram, word: str) -> float:
        probability = float(word == UNKNOWN)
        for length, level in enumerate(self._levels[: len(history) + 1]):
            before = history[len(history) - length :]
            probability = level.probability(before, word, probability)
        return probability


class _Level:
    """N-grams of one length."""

    def __init__(self, counts: Mapping[Gram, int]) -> None:
        self.counts = counts
        self.totals, self.kinds = Counter[Gram](), Counter[Gram]()
        for gram, count in counts.items():
            self.totals[gram[:-1]] += count
            self.kinds[gram[:-1]] += 1
        often = Counter(counts.values())
        low, high = _DISCOUNTS
        self.discount = min(high, max(low, often[1] / max(1, often[1] + 2 * often[2])))

    def probability(self, history: Gram, word: str, shorter: float) -> float:
        """That of `word` after `history`, if it is `shorter` after a history of one word less."""
        total = self.totals.get(history)
        if total is None:
            return shorter
        count = self.counts.get((*history, word), 0)
        left = self.discount * self.kinds[history]
        return (max(0.0, count - self.discount) + left * shorter) / total
