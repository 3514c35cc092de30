"""Words and phrases that are expected: what their pieces gain while a stream is being written.

Knows pieces and frames; does not know logits or sound. `engine.steering` asks it for boosts and
tells it what was written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from kiku.errors import ConfigError, StreamError, VocabularyError
from kiku.text import Vocabulary

STRENGTH = 2.0
"""What a word of a phrase gains where nothing else is said, in nats."""

MAX_STRENGTH = 20.0
"""More is surely a mistake: a word e^20 times less likely than another was not said."""

RECOVERY_S = 3.0
"""After so many seconds a phrase that was written has its whole boost again."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One or more words that are expected."""

    text: str
    """As it is to be written."""
    strength: float = STRENGTH
    """What each word of it gains at most, in nats: a word that the model holds more than
    e^strength times likelier still wins. 1 to 3 tip the scales between words that sound alike;
    names that the model would never spell so by itself want 4 to 8."""
    any_case: bool = True
    """Expect it also in small letters and with capitals at the beginning of its words."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"a phrase must be text with letters in it, not {self.text!r}")
        given: Any = self.strength
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if not (is_number and 0 < given <= MAX_STRENGTH):
            raise ConfigError(
                f"the strength of {self.text!r} must be above 0 and at most {MAX_STRENGTH:g} nats, "
                f"not {given!r}"
            )

    def written(self) -> list[str]:
        """The ways in which it may stand in a text; its own comes first."""
        text = " ".join(self.text.split())
        if not self.any_case:
            return [text]
        small = text.lower()
        titled = " ".join(word[:1].upper() + word[1:] for word in small.split())
        ways = [text, small, text[:1].upper() + text[1:], small[:1].upper() + small[1:], titled]
        return list(dict.fromkeys(ways))


@dataclass(slots=True)
class _Node:
    """A beginning of phrases."""

    tokens: tuple[int, ...]
    """What has been written of them."""
    nexts: dict[int, int] = field(default_factory=dict[int, int])
    """By the token that comes next: which node follows."""
    phrases: list[int] = field(default_factory=list[int])
    """Which phrases begin so, or are this; the strongest come first."""
    ends: set[int] = field(default_factory=set[int])
    """Which phrases are this."""


class Spellings:
    """How the phrases are spelled in a vocabulary's pieces, as a tree. Never changes, so streams
    share it.
    """

    def __init__(self, phrases: Sequence[Phrase], vocabulary: Vocabulary, num_tokens: int) -> None:
        """Spell `phrases` in the vocabulary's first `num_tokens` pieces: those that a model writes.

        Raises:
            ConfigError: the vocabulary has no pieces for one of them.
        """
        self.nodes = [_Node(())]
        """Node 0 is where nothing of a phrase has been written."""
        self.phrases = tuple(phrases)
        self.openings: dict[int, float] = {}
        """By the token that begins a phrase: the strength of the strongest."""
        self.openings_of: list[set[int]] = [set() for _ in phrases]
        """By phrase: the tokens that begin it."""
        self._vocabulary, self._num_tokens = vocabulary, num_tokens
        for number, phrase in enumerate(phrases):
            spelled = [tokens for way in phrase.written() if (tokens := self._spell(way))]
            if not spelled:
                raise ConfigError(
                    f"the model's vocabulary cannot spell {phrase.text!r}, so it cannot be "
                    "expected; leave it out, or write it in letters that the model knows"
                )
            for tokens in spelled:
                self._add(tokens, number, phrase.strength)
        for node in self.nodes:
            node.phrases.sort(key=lambda number: -phrases[number].strength)

    def _spell(self, text: str) -> list[int]:
        """The tokens of `text`; none where it cannot be spelled as the beginning of a word."""
        try:
            tokens = self._vocabulary.encode(text)
        except VocabularyError:
            return []
        possible = tokens and self._vocabulary.starts_word(tokens[0])
        return tokens if possible and max(tokens) < self._num_tokens else []

    def _add(self, tokens: Sequence[int], number: int, strength: float) -> None:
        at = 0
        for token in tokens:
            nexts = self.nodes[at].nexts
            if token not in nexts:
                nexts[token] = len(self.nodes)
                self.nodes.append(_Node((*self.nodes[at].tokens, token)))
            at = nexts[token]
            if number not in self.nodes[at].phrases[-1:]:  # phrases come one after the other
                self.nodes[at].phrases.append(number)
        self.nodes[at].ends.add(number)
        self.openings[tokens[0]] = max(self.openings.get(tokens[0], 0.0), strength)
        self.openings_of[number].add(tokens[0])

    def find(self, tokens: Sequence[int]) -> int:
        """The node of a beginning; 0 where no phrase begins so."""
        at = 0
        for token in tokens:
            if token not in self.nodes[at].nexts:
                return 0
            at = self.nodes[at].nexts[token]
        return at

    def begins_word(self, token: int) -> bool:
        """Whether a piece begins a word."""
        return self._vocabulary.starts_word(token)

    def goes_on_with_word(self, node: int) -> bool:
        """Whether a phrase goes on with another word after `node`."""
        return any(map(self.begins_word, self.nodes[node].nexts))

    def is_punctuation(self, token: int) -> bool:
        """Whether a piece is neither a word's beginning nor has letters or digits."""
        piece = self._vocabulary.piece(token)
        return not self.begins_word(token) and not any(map(str.isalnum, piece))

    def __deepcopy__(self, memo: object) -> Self:
        return self


@dataclass(slots=True)
class _Path:
    """A beginning of phrases that has been written."""

    node: int
    spent: float
    """Nats by which the boost carried the pieces of the word that is being written."""
    helped: bool
    """Whether any piece stands there only because of the boost."""
    word_over: bool
    """Only another word may come: no text or a marker has been written since."""


class Bias:
    """What one stream has written of the phrases, and what their next pieces gain.

    A path is a beginning of a phrase that has been written. Its next pieces gain what is left of
    the strength for this word: what the pieces before had needed is gone, so that not even a word
    of many pieces is preferred by more than its strength. No text and word-start markers leave a
    path alone that stands between two words; other text ends it.

    A phrase that has been written gains nothing at first, and its boost comes back evenly, so that
    a name once written wrongly is not written again and again. The same goes for one that the boost
    began and that then was not said: its boost is taken back.
    """

    def __init__(self, spellings: Spellings, frame_rate: float, recovery_s: float) -> None:
        """Stand before the first token of a stream.

        Args:
            spellings: of the phrases.
            frame_rate: tokens per second.
            recovery_s: seconds in which the boost of a phrase comes back; 0 never takes it away.
        """
        self._spellings = spellings
        self._recovery = recovery_s * frame_rate  # in tokens
        self._num_tokens = 0
        self._paths: list[_Path] = []
        self._tired: dict[int, int] = {}  # by phrase: when it was written

    def boosts(self, *, word_begins: bool) -> dict[int, float]:
        """What the next token gains, in nats, by token; those that gain nothing are left out.

        Args:
            word_begins: whether it begins a word, as the model sees it. If not, no other word is
                begun in the middle of one, however strongly it is expected.
        """
        self._recover()
        gains: dict[int, float] = {}
        if word_begins:
            gains.update(self._spellings.openings)
            for phrase in self._tired:
                for token in self._spellings.openings_of[phrase]:
                    gains[token] = self._strength(self._spellings.nodes[0].nexts[token])
        for path in self._paths:
            for token, follower in self._spellings.nodes[path.node].nexts.items():
                begins = self._spellings.begins_word(token)
                if (path.word_over and not begins) or (begins and not word_begins):
                    continue
                gain = self._strength(follower) - (0.0 if begins else path.spent)
                if gain > gains.get(token, 0.0):
                    gains[token] = gain
        return {token: gain for token, gain in gains.items() if gain > 0}

    def _recover(self) -> None:
        for phrase, at in list(self._tired.items()):
            if self._num_tokens - at >= self._recovery:
                del self._tired[phrase]

    def _strength(self, number: int) -> float:
        """Of the strongest phrase below a node, as far as each has recovered."""
        best = 0.0
        for phrase in self._spellings.nodes[number].phrases:
            best = max(best, self._strength_of(phrase))
            if phrase not in self._tired:
                break  # the others are no stronger
        return best

    def _strength_of(self, phrase: int) -> float:
        strength = self._spellings.phrases[phrase].strength
        if phrase not in self._tired:
            return strength
        return strength * (self._num_tokens - self._tired[phrase]) / self._recovery

    def no_text(self, *, ends_word: bool) -> None:
        """Take a token without text; PAD and the word-start marker end a word."""
        if ends_word and self._paths:
            kept: list[_Path] = []
            for path in self._paths:
                if self._spellings.goes_on_with_word(path.node):
                    path.word_over = True
                    kept.append(path)
                else:
                    self._give_up(path)
            self._paths = kept
        self._num_tokens += 1

    def text(self, token: int, carried: float) -> None:
        """Take a token of text.

        Args:
            token: which.
            carried: nats by which the boost made it win; 0 where it would have won anyhow.
        """
        begins = self._spellings.begins_word(token)
        punctuation = self._spellings.is_punctuation(token)
        paths: list[_Path] = []
        for path in (*self._paths, _Path(0, 0.0, helped=False, word_over=True)):
            node = self._spellings.nodes[path.node].nexts.get(token)
            if node is None or (path.word_over and not begins):
                if punctuation and path.node and self._spellings.goes_on_with_word(path.node):
                    path.word_over = True
                    paths.append(path)
                else:
                    self._give_up(path)
                continue
            for phrase in self._spellings.nodes[node].ends:
                self._tire(phrase)
            if self._spellings.nodes[node].nexts:
                spent = carried if begins else path.spent + carried
                helped = path.helped or carried > 0
                paths.append(_Path(node, spent, helped=helped, word_over=False))
        self._paths = paths
        self._num_tokens += 1

    def _give_up(self, path: _Path) -> None:
        node = self._spellings.nodes[path.node]
        if path.helped:
            for phrase in set(node.phrases) - node.ends:
                self._tire(phrase)

    def _tire(self, phrase: int) -> None:
        if self._recovery > 0:
            self._tired[phrase] = self._num_tokens

    def save(self) -> dict[str, Any]:
        """What has been written, in numbers, texts and lists of them."""
        nodes, phrases = self._spellings.nodes, self._spellings.phrases
        return {
            "num_tokens": self._num_tokens,
            "paths": [
                [list(nodes[p.node].tokens), p.spent, p.helped, p.word_over] for p in self._paths
            ],
            "tired": [[phrases[number].text, at] for number, at in self._tired.items()],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called. Phrases that are not expected any more are left out.

        Raises:
            StreamError: it is not what `save` gave.
        """
        try:
            num_tokens = int(saved["num_tokens"])
            paths = [
                _Path(node, float(spent), helped=bool(helped), word_over=bool(over))
                for tokens, spent, helped, over in saved["paths"]
                if (node := self._spellings.find(tokens))
            ]
            written = {str(text): int(at) for text, at in saved["tired"]}
            if not all(0 <= at <= num_tokens for at in written.values()):
                raise ValueError("a time that has not come")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise StreamError(
                f"the saved course of the expected phrases is damaged ({error!r}); "
                "open a fresh stream"
            ) from error
        self._num_tokens, self._paths = num_tokens, paths
        self._tired = {
            number: written[phrase.text]
            for number, phrase in enumerate(self._spellings.phrases)
            if phrase.text in written and self._recovery > 0
        }

    def __deepcopy__(self, memo: object) -> "Bias":
        other = Bias.__new__(Bias)
        other._spellings, other._recovery = self._spellings, self._recovery
        other._num_tokens, other._tired = self._num_tokens, dict(self._tired)
        other._paths = [replace(path) for path in self._paths]
        return other
