"""Hotwords, which are words and phrases that are expected: how much their pieces gain.

Knows pieces and frames; does not know logits or sound. `picker` asks for the boosts, and reports
each token that was written. The work for a token does not grow with the square of anything: the
strengths of all phrases are one array, and one pass over it finds the strongest below each piece.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kiku.decoding.pieces import piece_kinds
from kiku.errors import ConfigError, VocabularyError
from kiku.options import Hotword
from kiku.text import Vocabulary

MAX_TRIE_PIECES = 100_000
"""Most pieces of all spellings of a stream's hotwords together. A thousand names of two words, each
spelled in five ways, have 60,000; with more than the limit, building would take seconds and a
stream tens of megabytes."""

_MAX_PATHS = 16
"""Most beginnings of phrases that are followed at once; the longest are kept. Names begin inside
one another two or three times; a phrase that repeats one word would do so at every word."""

_NEVER = -(2**61)
"""Token index that stands for a phrase that was never written."""

_ROOT = 0


def written_ways(hotword: Hotword) -> list[str]:
    """The ways in which a hotword may be written in a text; the caller's spelling comes first."""
    text = unicodedata.normalize("NFC", " ".join(hotword.text.split()))
    if not hotword.any_case:
        return [text]
    small = text.lower()
    titled = " ".join(word[:1].upper() + word[1:] for word in small.split())
    ways = [text, small, text[:1].upper() + text[1:], small[:1].upper() + small[1:], titled]
    return list(dict.fromkeys(ways))


class PhraseTrie:
    """The spellings of hotwords in a vocabulary's pieces, as a trie. It never changes, so that
    streams share it.

    Spellings are sorted, so the spellings that go through a node are a range (`low` to `high`), and
    those that end at the node come first (`num_ends`). Nodes are numbered level by level, so the
    children of a node are a range of nodes (`first_child` to `end_child`), in the order of their
    tokens.
    """

    def __init__(
        self, hotwords: Sequence[Hotword], vocabulary: Vocabulary, num_tokens: int
    ) -> None:
        """Spell `hotwords` in the vocabulary's first `num_tokens` pieces, which are those that a
        model writes.

        Raises:
            ConfigError: the vocabulary has no pieces for a hotword, or there are too many hotwords.
        """
        self.hotwords = tuple(hotwords)
        self.boosts = np.array([hotword.boost for hotword in hotwords], np.float64)
        """[P] the boost of each phrase, in nats."""
        self.kinds = piece_kinds(vocabulary, num_tokens)
        spellings = sorted(_spellings(hotwords, vocabulary, num_tokens))
        self.phrase_of = np.array([phrase for _, phrase in spellings], np.int64)
        """[Z] by spelling: the index of the phrase that it spells."""
        self._build([tokens for tokens, _ in spellings])
        begins = self.kinds.begins_word[self.token]
        begins[_ROOT] = False
        words = np.bincount(self.parent[begins], minlength=len(self.token))
        self.goes_on_with_word: list[bool] = (words > 0).tolist()
        """By node: whether a phrase goes on there with another word."""
        self.whole = self.strongest_below(_ROOT, self.boosts)
        """[C] by child of the root: boost of the strongest phrase that begins with its token."""

    def _build(self, spellings: Sequence[tuple[int, ...]]) -> None:
        """Make the nodes of sorted spellings, level by level. A node begins where a spelling
        differs from the one before it."""
        lengths = np.array([len(tokens) for tokens in spellings], np.int64)
        flat = np.concatenate([np.array(tokens, np.int64) for tokens in spellings])
        starts = np.cumsum(lengths) - lengths
        at = np.zeros(len(spellings), np.int64)  # by spelling: the node that it has reached
        # For each level, rows over its nodes: token, parent, first and last spelling, ends there.
        levels = [np.array([[0], [_ROOT], [0], [len(spellings) - 1], [0]])]
        num_nodes = 1
        for depth in range(int(lengths.max())):
            rows = np.flatnonzero(lengths > depth)
            token, parent = flat[starts[rows] + depth], at[rows]
            new = np.ones(len(rows), np.bool_)
            new[1:] = (token[1:] != token[:-1]) | (parent[1:] != parent[:-1])
            firsts = np.flatnonzero(new)
            lasts = np.append(firsts[1:] - 1, len(rows) - 1)
            place = np.cumsum(new) - 1
            ends = np.bincount(place[lengths[rows] == depth + 1], minlength=len(firsts))
            levels.append(
                np.stack([token[firsts], parent[firsts], rows[firsts], rows[lasts], ends])
            )
            at[rows] = num_nodes + place
            num_nodes += len(firsts)
        self.token, self.parent, self.low, high, ends = np.concatenate(levels, axis=1)
        self.high: list[int] = (high + 1).tolist()
        self.num_ends: list[int] = ends.tolist()
        counts = np.bincount(self.parent[1:], minlength=num_nodes)
        ends = 1 + np.cumsum(counts)  # children come in the order of their parents
        self.first_child: list[int] = (ends - counts).tolist()
        self.end_child: list[int] = ends.tolist()

    def child(self, node: int, token: int) -> int:
        """The node to which `token` leads from a node; the root if no phrase goes on with it."""
        first, end = self.first_child[node], self.end_child[node]
        place = first + int(np.searchsorted(self.token[first:end], token))
        return place if place < end and self.token[place] == token else _ROOT

    def find(self, tokens: Sequence[int]) -> int:
        """The node to which `tokens` lead; the root if no phrase begins with them."""
        node = _ROOT
        for token in tokens:
            node = self.child(node, token)
            if node == _ROOT:
                break
        return node

    def tokens_to(self, node: int) -> list[int]:
        """The tokens from the root to a node."""
        tokens: list[int] = []
        while node != _ROOT:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return tokens[::-1]

    def strongest_below(self, node: int, strengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """[P] strengths of the phrases -> [C] by child of a node: the strength of the strongest
        phrase that goes through it."""
        lows = self.low[self.first_child[node] : self.end_child[node]]
        start = int(lows[0])
        return np.maximum.reduceat(strengths[self.phrase_of[start : self.high[node]]], lows - start)

    def phrases_at(self, node: int) -> NDArray[np.int64]:
        """The indices of the phrases that end at a node."""
        low = int(self.low[node])
        return self.phrase_of[low : low + self.num_ends[node]]

    def phrases_through(self, node: int) -> NDArray[np.int64]:
        """The indices of the phrases that begin with the tokens of a node, or consist of them."""
        return self.phrase_of[int(self.low[node]) : self.high[node]]

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _spellings(
    hotwords: Sequence[Hotword], vocabulary: Vocabulary, num_tokens: int
) -> list[tuple[tuple[int, ...], int]]:
    """The tokens and the index of the phrase, for every spelling of every phrase."""
    found: list[tuple[tuple[int, ...], int]] = []
    num_pieces = 0
    for number, hotword in enumerate(hotwords):
        ways = {_spell(way, vocabulary, num_tokens) for way in written_ways(hotword)} - {()}
        if not ways:
            raise ConfigError(
                f"the model's vocabulary cannot spell {hotword.text!r}, so it cannot be a "
                "hotword; leave it out, or write it in letters that the model knows"
            )
        num_pieces += sum(map(len, ways))
        if num_pieces > MAX_TRIE_PIECES:
            raise ConfigError(
                f"the hotwords up to {hotword.text[:40]!r} have {num_pieces} pieces in all their "
                f"spellings, but at most {MAX_TRIE_PIECES} are possible: give fewer or shorter "
                "ones, or any_case=False"
            )
        found += [(way, number) for way in ways]
    return found


def _spell(text: str, vocabulary: Vocabulary, num_tokens: int) -> tuple[int, ...]:
    """The tokens of `text`; none if it cannot be spelled as the beginning of a word."""
    try:
        tokens = vocabulary.encode(text)
    except VocabularyError:
        return ()
    possible = tokens and vocabulary.starts_word(tokens[0])
    return tuple(tokens) if possible and max(tokens) < num_tokens else ()


@dataclass(slots=True)
class _Path:
    """A beginning of one or more phrases that the stream has written."""

    node: int
    spent: float
    """Nats of the boost that the pieces of the present word have needed to win."""
    helped: bool
    """Whether any piece was written only because of the boost."""
    word_over: bool
    """Whether only another word may follow, because PAD, a word-start marker or punctuation was
    written after the last piece."""


@dataclass(frozen=True, slots=True)
class SavedPath:
    """A `_Path` with tokens in place of its node, so that it can be found in another trie."""

    tokens: list[int]
    spent: float
    helped: bool
    word_over: bool

    def __post_init__(self) -> None:
        if self.spent < 0:
            raise ValueError(f"a path cannot have spent {self.spent} nats")


@dataclass(frozen=True, slots=True)
class BoostsState:
    """The hotwords that a stream has written or begun, in terms that do not depend on the trie."""

    num_tokens: int
    paths: list[SavedPath]
    written: dict[str, int]
    """The index of the token at which a phrase was written, by the text of the phrase."""

    def __post_init__(self) -> None:
        if self.num_tokens < 0 or not all(0 <= at <= self.num_tokens for at in
                                          self.written.values()):  # fmt: skip
            raise ValueError("a phrase was written at a time in the future")


class HotwordBoosts:
    """The boosts of one stream: follows which hotwords are written, and boosts their next pieces.

    A path is a beginning of a phrase that has been written. Its next pieces gain the rest of the
    boost for the present word: the nats that the earlier pieces of this word needed to win are
    subtracted, so that even a word of many pieces is preferred by no more than its boost. PAD and
    word-start markers keep a path that stands between two words; other text ends it.

    A phrase that has just been written has no boost at first, and its boost returns linearly (its
    cooldown), so that a name that was written wrongly is not written again and again. The same
    holds for a phrase that was begun because of the boost and then not completed.
    """

    def __init__(self, trie: PhraseTrie, frame_rate: float, cooldown_s: float) -> None:
        """Prepare for the first token of a stream.

        Args:
            trie: the hotwords.
            frame_rate: tokens per second.
            cooldown_s: seconds until a phrase that was written has its full boost again; 0 never
                lowers it.
        """
        self._trie = trie
        self._cooldown = cooldown_s * frame_rate  # in tokens
        self._num_tokens = 0
        self._paths: list[_Path] = []
        self._written = np.full(len(trie.hotwords), _NEVER, np.int64)  # [P] when

    def boosts(self, *, word_begins: bool) -> NDArray[np.float32] | None:
        """[V] the boosts for the next token in nats, each at least 0; None if all are 0.

        Args:
            word_begins: whether the model alone would begin a word with this token. If not, no
                boost, however strong, begins a word in the middle of another.
        """
        if not word_begins and not self._paths:
            return None
        trie = self._trie
        strengths = self._strengths()
        gains = np.zeros(len(trie.kinds.is_text), np.float64)
        if word_begins:
            openings = trie.token[trie.first_child[_ROOT] : trie.end_child[_ROOT]]
            cool = strengths is trie.boosts
            gains[openings] = trie.whole if cool else trie.strongest_below(_ROOT, strengths)
        for path in self._paths:
            tokens = trie.token[trie.first_child[path.node] : trie.end_child[path.node]]
            begins = trie.kinds.begins_word[tokens]
            gain = trie.strongest_below(path.node, strengths) - np.where(begins, 0.0, path.spent)
            barred = (path.word_over & ~begins) | (begins & (not word_begins))
            gain[barred] = 0.0
            gains[tokens] = np.maximum(gains[tokens], gain)
        return gains.astype(np.float32) if gains.any() else None

    def _strengths(self) -> NDArray[np.float64]:
        """[P] the boost of each phrase, as far as it has returned in its cooldown."""
        boosts = self._trie.boosts
        ages = self._num_tokens - self._written
        cooling = ages < self._cooldown
        if not cooling.any():
            return boosts
        strengths = boosts.copy()
        strengths[cooling] = boosts[cooling] * ages[cooling] / self._cooldown
        return strengths

    def no_text(self, *, ends_word: bool) -> None:
        """Take a token without text; PAD and the word-start marker end a word."""
        if ends_word and self._paths:
            kept: list[_Path] = []
            for path in self._paths:
                if self._trie.goes_on_with_word[path.node]:
                    path.word_over = True
                    kept.append(path)
                else:
                    self._give_up(path)
            self._paths = kept
        self._num_tokens += 1

    def text(self, token: int, carried: float) -> None:
        """Take a token of text.

        Args:
            token: the token.
            carried: nats of boost that it needed to win; 0 if it would have won without a boost.
        """
        trie = self._trie
        begins = bool(trie.kinds.begins_word[token])
        paths: list[_Path] = []
        for path in (*self._paths, _Path(_ROOT, 0.0, helped=False, word_over=True)):
            node = trie.child(path.node, token)
            if node == _ROOT or (path.word_over and not begins):
                goes_on = path.node != _ROOT and trie.goes_on_with_word[path.node]
                if goes_on and trie.kinds.is_punctuation[token]:
                    path.word_over = True
                    paths.append(path)
                else:
                    self._give_up(path)
                continue
            self._written[trie.phrases_at(node)] = self._num_tokens
            if trie.first_child[node] < trie.end_child[node]:
                spent = carried if begins else path.spent + carried
                helped = path.helped or carried > 0
                paths.append(_Path(node, spent, helped=helped, word_over=False))
        self._paths = paths[:_MAX_PATHS]
        self._num_tokens += 1

    def _give_up(self, path: _Path) -> None:
        """Start the cooldown of the phrases that the boost began and that were not completed."""
        if path.helped:
            whole = self._trie.phrases_at(path.node)
            kept = self._written[whole]
            self._written[self._trie.phrases_through(path.node)] = self._num_tokens
            self._written[whole] = kept

    def state(self) -> BoostsState:
        """The state, for `go_on`."""
        trie = self._trie
        cooling = np.flatnonzero(self._num_tokens - self._written < self._cooldown)
        return BoostsState(
            self._num_tokens,
            [SavedPath(trie.tokens_to(p.node), p.spent, p.helped, p.word_over)
             for p in self._paths],
            {trie.hotwords[phrase].text: int(self._written[phrase]) for phrase in cooling},
        )  # fmt: skip

    def go_on(self, state: BoostsState) -> None:
        """Go on where `state` was taken. Phrases that are not in this trie are left out."""
        trie = self._trie
        found = [(trie.find(path.tokens), path) for path in state.paths[:_MAX_PATHS]]
        self._paths = [
            _Path(node, path.spent, path.helped, path.word_over)
            for node, path in found
            if trie.first_child[node] < trie.end_child[node] and node != _ROOT
        ]
        self._num_tokens = state.num_tokens
        written = [state.written.get(hotword.text, _NEVER) for hotword in trie.hotwords]
        self._written = np.array(written, np.int64)

    def __deepcopy__(self, memo: object) -> "HotwordBoosts":
        other = HotwordBoosts.__new__(HotwordBoosts)
        other._trie, other._cooldown = self._trie, self._cooldown
        other._num_tokens, other._written = self._num_tokens, self._written.copy()
        other._paths = [replace(path) for path in self._paths]
        return other
