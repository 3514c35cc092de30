"""How a stream's text tokens are picked: by chance or not, with words that are expected, with a
prior over tokens.

The model alone decides whether there is text in a frame: expected words only weigh one text against
another. So nothing is written on silence, however strong the boosts.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.config import ModelConfig
from kiku.decoding.hotwords import BoostsState, HotwordBoosts, PhraseTrie
from kiku.decoding.pieces import piece_kinds
from kiku.decoding.sampling import Picker, Sampler, SamplerState
from kiku.errors import ConfigError, StreamError
from kiku.options import DecodingOptions
from kiku.serial import from_plain, to_plain
from kiku.text import Vocabulary


def token_picker(
    options: DecodingOptions, vocabulary: Vocabulary, config: ModelConfig
) -> "TokenPicker | None":
    """The picker of one stream's tokens; None where each token is the likeliest one, which engines
    pick by themselves, and faster.

    Args:
        options: how to pick; `num_codebooks` is not used here, but by the engine.
        vocabulary: the model's.
        config: the model's.

    Raises:
        ConfigError: the vocabulary cannot spell a hotword, they are too many, the prior is of
            another size, or the model has fewer codebooks.
    """
    most = config.lm.num_codebooks
    if (options.num_codebooks or 1) > most:
        raise ConfigError(
            f"num_codebooks must be in 1..{most} for this model, not {options.num_codebooks}"
        )
    return None if options.is_plain else TokenPicker(options, vocabulary, config)


def plain_sampler(picker: Picker | None) -> Sampler | None:
    """The sampler that is all of `picker`: it weighs nothing else. None for any other picker. Who
    draws in its place has to move it on (`Sampler.row`, `Sampler.skip`)."""
    # A class made from one of these may do more.
    if isinstance(picker, TokenPicker) and type(picker) is TokenPicker:
        return picker.only_sampler
    return picker if isinstance(picker, Sampler) and type(picker) is Sampler else None


@dataclass(frozen=True, slots=True)
class PickerState:
    """All that a picker remembers; its options are not in it."""

    sampler: SamplerState | None
    hotwords: BoostsState | None


class TokenPicker:
    """Picks the tokens of one stream, in order; a `Picker` that remembers.

    First it picks as if no words were expected. If the token is no text, that is the result. If it
    is text, it picks once more, among the texts alone, with the boosts and the prior, and with the
    same random numbers.

    A copy (`copy.deepcopy`) goes on by itself, exactly as the original would, and costs little:
    what never changes is shared.
    """

    def __init__(
        self, options: DecodingOptions, vocabulary: Vocabulary, config: ModelConfig
    ) -> None:
        """Stand before the first token; `token_picker` makes one.

        Raises:
            ConfigError: see `token_picker`.
        """
        self._setting = _PickerSetting(options, vocabulary, config)
        self._sampler: Sampler | None = None
        if options.temperature > 0:
            self._sampler = Sampler(
                options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed
            )
        self._hotwords: HotwordBoosts | None = None
        if options.phrases:
            trie = PhraseTrie(options.phrases, vocabulary, config.lm.text_vocab_size)
            self._hotwords = HotwordBoosts(trie, config.frame_rate, options.cooldown_s)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """[V] -> a token."""
        setting, hotwords = self._setting, self._hotwords
        drawn = None if self._sampler is None else self._sampler.draw(logits.size)
        if setting.besides is not None:
            logits = logits + setting.besides
        token = self._pick(logits, drawn)
        if not setting.is_text[token]:
            if hotwords is not None:
                hotwords.no_text(ends_word=token in setting.boundaries)
            return token
        gains = None
        if hotwords is not None:
            gains = hotwords.boosts(word_begins=bool(setting.begins_word[token]))
        carried = 0.0
        if gains is not None or setting.among is not None:
            texts = np.where(setting.is_text, logits, np.float32(-np.inf))
            if setting.among is not None:
                texts += setting.among
            boosted = texts if gains is None else texts + gains
            token = self._pick(boosted, drawn)
            if gains is not None and gains[token] > 0:
                carried = float(texts.max()) - float(texts[token])
        if hotwords is not None:
            hotwords.text(token, carried)
        return token

    @property
    def only_sampler(self) -> Sampler | None:
        """The sampler, where there are neither hotwords nor a prior."""
        setting = self._setting
        plain = self._hotwords is None and setting.besides is None and setting.among is None
        return self._sampler if plain else None

    def _pick(self, logits: NDArray[np.float32], drawn: NDArray[np.float64] | None) -> int:
        if self._sampler is None or drawn is None:
            return int(np.argmax(logits))
        return self._sampler.pick(logits, drawn)

    def state(self) -> PickerState:
        """What it remembers now, for `go_on`."""
        return PickerState(
            None if self._sampler is None else deepcopy(self._sampler.state),
            None if self._hotwords is None else self._hotwords.state(),
        )

    def go_on(self, state: PickerState) -> None:
        """Go on from where `state` was taken, exactly if the options are the same.

        With other options, it takes over what still makes sense: the place in the random numbers,
        if the seed is the same; what has been written of hotwords that are still expected.
        """
        sampler, noise = self._sampler, state.sampler
        if sampler is not None and noise is not None and noise.seed == sampler.params.seed:
            sampler.go_on(noise)
        if self._hotwords is not None and state.hotwords is not None:
            self._hotwords.go_on(state.hotwords)

    def save(self) -> dict[str, Any]:
        """All that it remembers, in values for JSON."""
        return to_plain(self.state())

    def restore(self, saved: Any) -> None:
        """As `go_on`, with what `save` gave.

        Raises:
            StreamError: `saved` is not what `save` gave; nothing has changed then.
        """
        self.go_on(from_plain(PickerState, saved, what="the saved picker", error=StreamError))


class _PickerSetting:
    """What never changes while a stream's options stay; copies of a `TokenPicker` share it."""

    def __init__(
        self, options: DecodingOptions, vocabulary: Vocabulary, config: ModelConfig
    ) -> None:
        num_tokens = config.lm.text_vocab_size
        kinds = piece_kinds(vocabulary, num_tokens)
        self.begins_word = kinds.begins_word
        self.boundaries = (config.pad_id, config.word_start_id)
        self.is_text = kinds.is_text.copy()
        self.is_text[[token for token in self.boundaries if token < num_tokens]] = False
        self.besides: NDArray[np.float32] | None = None
        """[V] prior of the tokens that are no text, 0 elsewhere; None where it is 0 everywhere."""
        self.among: NDArray[np.float32] | None = None
        """[V] prior of the text tokens, 0 elsewhere; None where it is 0 everywhere."""
        prior = options.language_prior
        if prior is not None:
            if prior.shape != (num_tokens,):
                raise ConfigError(
                    f"the prior has {prior.size} numbers, the model {num_tokens} text tokens; give "
                    "one for each"
                )
            besides = np.where(self.is_text, np.float32(0), prior)
            among = np.where(self.is_text, prior, np.float32(0))
            self.besides = besides if besides.any() else None
            self.among = among if among.any() else None

    def __deepcopy__(self, memo: object) -> "_PickerSetting":
        return self
