"""Picks the text tokens of a stream: the likeliest or by chance, with hotwords, with a prior.

The model alone decides whether there is text in a frame; hotwords only make one text likelier than
another. So nothing is written on silence, however strong the boosts are.
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
    """The picker of one stream's tokens; None if each token is to be the likeliest one, which the
    engines pick themselves, and faster.

    Args:
        options: how to pick; only the engine uses `num_codebooks`.
        vocabulary: the model's.
        config: the model's.

    Raises:
        ConfigError: the vocabulary cannot spell a hotword, there are too many hotwords, the prior
            has another size, or the model has fewer codebooks.
    """
    most = config.lm.num_codebooks
    if (options.num_codebooks or 1) > most:
        raise ConfigError(
            f"num_codebooks must be in 1..{most} for this model, not {options.num_codebooks}"
        )
    return None if options.is_plain else TokenPicker(options, vocabulary, config)


def plain_sampler(picker: Picker | None) -> Sampler | None:
    """The sampler of a picker that does nothing but sample; None for any other picker. If an engine
    draws in place of the sampler, it must move the sampler on (`Sampler.row`, `Sampler.skip`)."""
    # A subclass may do more.
    if isinstance(picker, TokenPicker) and type(picker) is TokenPicker:
        return picker.only_sampler
    return picker if isinstance(picker, Sampler) and type(picker) is Sampler else None


@dataclass(frozen=True, slots=True)
class PickerState:
    """The whole state of a picker, without its options."""

    sampler: SamplerState | None
    hotwords: BoostsState | None


class TokenPicker:
    """Picks the tokens of one stream, in order; a `Picker` with a state.

    First it picks as if there were no hotwords. If this token is no text, it is the result. If it
    is text, the picker picks once more, among text tokens only, with the boosts and the prior, and
    with the same random numbers.

    A copy (`copy.deepcopy`) goes on by itself, exactly as the original would, and costs little:
    everything that never changes is shared.
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
        """The sampler, if there are neither hotwords nor a prior; otherwise None."""
        setting = self._setting
        plain = self._hotwords is None and setting.besides is None and setting.among is None
        return self._sampler if plain else None

    def _pick(self, logits: NDArray[np.float32], drawn: NDArray[np.float64] | None) -> int:
        if self._sampler is None or drawn is None:
            return int(np.argmax(logits))
        return self._sampler.pick(logits, drawn)

    def state(self) -> PickerState:
        """A copy of the present state, for `go_on`."""
        return PickerState(
            None if self._sampler is None else deepcopy(self._sampler.state),
            None if self._hotwords is None else self._hotwords.state(),
        )

    def go_on(self, state: PickerState) -> None:
        """Go on where `state` was taken; exactly, if the options are the same.

        With other options, the parts that still apply are taken over: the place in the random
        numbers, if the seed is the same; and what was written of hotwords that are still there.
        """
        sampler, noise = self._sampler, state.sampler
        if sampler is not None and noise is not None and noise.seed == sampler.params.seed:
            sampler.go_on(noise)
        if self._hotwords is not None and state.hotwords is not None:
            self._hotwords.go_on(state.hotwords)

    def save(self) -> dict[str, Any]:
        """The present state, in values for JSON."""
        return to_plain(self.state())

    def restore(self, saved: Any) -> None:
        """Go on where `save` was called, as `go_on` does.

        Raises:
            StreamError: `saved` is not from `save`; nothing is changed then.
        """
        self.go_on(from_plain(PickerState, saved, what="the saved picker", error=StreamError))


class _PickerSetting:
    """The part of a `TokenPicker` that never changes while its options stay; copies share it."""

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
        """[V] the prior of tokens that are no text, 0 elsewhere; None if it is 0 everywhere."""
        self.among: NDArray[np.float32] | None = None
        """[V] the prior of text tokens, 0 elsewhere; None if it is 0 everywhere."""
        prior = options.language_prior
        if prior is not None:
            if prior.shape != (num_tokens,):
                raise ConfigError(
                    f"the prior has {prior.size} numbers, but the model has {num_tokens} text "
                    "tokens; give one for each"
                )
            besides = np.where(self.is_text, np.float32(0), prior)
            among = np.where(self.is_text, prior, np.float32(0))
            self.besides = besides if besides.any() else None
            self.among = among if among.any() else None

    def __deepcopy__(self, memo: object) -> "_PickerSetting":
        return self
