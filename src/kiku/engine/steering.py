"""How a stream's text tokens are picked: by chance or not, with words that are expected, with a
prior over tokens, from how many codebooks.

Whether there is text in a frame, the model says alone: what is expected only weighs one text
against another. So nothing is written on silence, however strong the wish.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kiku.config import ModelConfig
from kiku.engine.bias import RECOVERY_S, Bias, Phrase, Spellings
from kiku.engine.sampling import Sampler
from kiku.errors import ConfigError, StreamError
from kiku.text import Vocabulary

_LIMITS: Mapping[str, tuple[str, float, float]] = {
    "temperature": ("a number from 0 to 10", 0.0, 10.0),
    "top_p": ("a number above 0, at most 1", math.ulp(0.0), 1.0),
    "recovery_s": ("a number of seconds, at least 0", 0.0, 1e9),
}
_WHOLE: Mapping[str, int] = {"top_k": 0, "seed": 0, "num_codebooks": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """What a user wants of a stream's text. The default is the model's own likeliest token.

    It can be changed while a stream runs: see `Engine.steer`. How sure a word is (`logprobs` of
    `StepOutput`) is always what the model says, at temperature 1, without boosts and prior: a word
    that stands there only because it was expected shows its low probability.
    """

    temperature: float = 0.0
    """0 takes the likeliest token. 0.25 is what Kyutai serves its 1B model with: by chance a stream
    gets out of silence or repetition where the likeliest token would keep it."""
    top_k: int = 0
    """Draw among the k likeliest tokens only; 0 does not cut. Needs a temperature, as `top_p`."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together hold this probability; 1 does not cut."""
    seed: int = 0
    """Of what is drawn: the same seed and sound give the same words."""
    num_codebooks: int | None = None
    """Read only the first codebooks of each frame; None reads all. Of the 32 of the published
    models Kyutai serves 20. It belongs to the engine: pass it to `Engine.open` or `steer`."""
    bias: Sequence[Phrase | str] = ()
    """Words and phrases that are expected, each as text or as a `Phrase`, which says how much."""
    recovery_s: float = RECOVERY_S
    """A phrase that has been written is not expected again at once: its boost comes back within so
    many seconds. So a name that was written wrongly is not written again and again. 0 leaves the
    boost as it is."""
    prior: NDArray[np.float32] | None = None
    """[V] what is added to the logits, in nats (see `language.language_prior`). What it gives text
    weighs one text against another; what it gives tokens that are no text (PAD, the word-start
    marker) weighs whether there is text."""

    def __post_init__(self) -> None:
        for name, (wanted, least, most) in _LIMITS.items():
            value: Any = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and least <= value <= most):
                raise ConfigError(f"{name} must be {wanted}, not {value!r}")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if name == "num_codebooks" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be a whole number, at least {least}, not {value!r}")
        object.__setattr__(self, "bias", _phrases(self.bias))
        if self.prior is not None:
            object.__setattr__(self, "prior", _checked(self.prior))

    def chooser(
        self, vocabulary: Vocabulary, config: ModelConfig, *, after: "Chooser | None" = None
    ) -> "Chooser | None":
        """What picks the tokens of one stream; None where that is the likeliest one, which engines
        take by themselves, and faster.

        Args:
            vocabulary: the model's.
            config: the model's.
            after: what picked them so far, where a stream is steered anew: what makes sense goes on
                (see `Chooser.restore`).

        Raises:
            ConfigError: the vocabulary cannot spell an expected phrase, or the prior is of another
                size.
        """
        if self.temperature == 0 and not self.bias and self.prior is None:
            return None
        chooser = Chooser(self, vocabulary, config)
        if after is not None:
            chooser.restore(after.save())
        return chooser

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["bias"] = [
            {"text": phrase.text, "strength": phrase.strength, "any_case": phrase.any_case}
            for phrase in _phrases(self.bias)
        ]
        values["prior"] = None if self.prior is None else self.prior.tolist()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s values; those that are missing are as by default.

        Raises:
            ConfigError: a name that is not known, or a value that cannot be.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"Steering has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
        given: dict[str, Any] = {**values, "bias": values.get("bias", ())}
        try:
            if isinstance(given["bias"], str):
                raise TypeError("one text")
            given["bias"] = [
                one if isinstance(one, str) else Phrase(**one) for one in given["bias"]
            ]
        except TypeError as error:
            raise ConfigError(
                "bias must be a list of texts or of objects with text, strength and any_case, "
                f"not {given['bias']!r}"
            ) from error
        return cls(**given)


def _phrases(bias: Sequence[Phrase | str]) -> tuple[Phrase, ...]:
    if isinstance(bias, str):
        raise ConfigError(f"bias must be a list of phrases, not {bias!r}; write [{bias!r}]")
    try:
        given = tuple(bias)
    except TypeError as error:
        raise ConfigError(f"bias must be a list of phrases, not {bias!r}") from error
    for one in given:
        if not isinstance(one, Phrase | str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"an expected phrase must be text or a Phrase, not {one!r}")
    return tuple(one if isinstance(one, Phrase) else Phrase(one) for one in given)


def _checked(prior: object) -> NDArray[np.float32]:
    try:
        array = np.array(prior, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the prior must be numbers, one for each token ({error})") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ConfigError(
            f"the prior must be finite numbers [V], one for each token, not {list(array.shape)} "
            f"of which {int((~np.isfinite(array)).sum())} are not finite"
        )
    array.setflags(write=False)
    return array


class Chooser:
    """Picks the tokens of one stream, in order; it is a `Choose`, and remembers.

    First it picks as if nothing were expected. If that is no text, it stays. If it is text, it
    picks once more, among the texts alone, with the boosts and the prior, and with the same chance.

    A copy (`copy.deepcopy`) goes on by itself, exactly so, and costs little: what never changes is
    shared.
    """

    def __init__(self, steering: Steering, vocabulary: Vocabulary, config: ModelConfig) -> None:
        """Stand before the first token; `Steering.chooser` makes one.

        Raises:
            ConfigError: see `Steering.chooser`.
        """
        self._setting = _Setting(steering, vocabulary, config)
        self._sampler: Sampler | None = None
        if steering.temperature > 0:
            self._sampler = Sampler(
                steering.temperature,
                top_k=steering.top_k,
                top_p=steering.top_p,
                seed=steering.seed,
            )
        self._bias: Bias | None = None
        if (spellings := self._setting.spellings) is not None:
            self._bias = Bias(spellings, config.frame_rate, steering.recovery_s)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """[V] -> a token."""
        setting, bias = self._setting, self._bias
        drawn = None if self._sampler is None else self._sampler.draw(logits.size)
        if setting.besides is not None:
            logits = logits + setting.besides
        token = self._pick(logits, drawn)
        if not setting.is_text[token]:
            if bias is not None:
                bias.no_text(ends_word=token in setting.boundaries)
            return token
        boosts = {} if bias is None else bias.boosts(word_begins=setting.begins_word(token))
        carried = 0.0
        if boosts or setting.among is not None:
            texts = np.where(setting.is_text, logits, np.float32(-np.inf))
            if setting.among is not None:
                texts += setting.among
            plain_best = float(texts.max())
            expected = list(boosts)
            plain = texts[expected]
            texts[expected] = plain + np.array(list(boosts.values()), np.float32)
            token = self._pick(texts, drawn)
            if token in boosts:
                carried = max(0.0, plain_best - float(plain[expected.index(token)]))
        if bias is not None:
            bias.text(token, carried)
        return token

    def _pick(self, logits: NDArray[np.float32], drawn: NDArray[np.float64] | None) -> int:
        if self._sampler is None or drawn is None:
            return int(np.argmax(logits))
        return self._sampler.pick(logits, drawn)

    def save(self) -> dict[str, Any]:
        """All that it remembers, in values for JSON; how it is steered is not in it."""
        sampler = self._sampler
        return {
            "seed": None if sampler is None else sampler.seed,
            "sampler": None if sampler is None else sampler.save(),
            "bias": None if self._bias is None else self._bias.save(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` was called: exactly so on one that is steered alike.

        On one that is steered otherwise, what still makes sense goes on: chance, if the seed is the
        same; what has been written of phrases that are still expected.

        Raises:
            StreamError: it is damaged.
        """
        try:
            seed, sampler, bias = saved["seed"], saved["sampler"], saved["bias"]
        except (KeyError, TypeError) as error:
            raise StreamError(
                f"the saved choice of tokens is damaged ({error!r}); open a fresh stream"
            ) from error
        other = deepcopy(self)  # all or nothing
        if other._sampler is not None and sampler is not None and seed == other._sampler.seed:
            other._sampler.restore(sampler)
        if other._bias is not None and bias is not None:
            other._bias.restore(bias)
        self._sampler, self._bias = other._sampler, other._bias


class _Setting:
    """What never changes while a stream is steered so; copies of a `Chooser` share it."""

    def __init__(self, steering: Steering, vocabulary: Vocabulary, config: ModelConfig) -> None:
        num_tokens = config.lm.text_vocab_size
        self.begins_word = vocabulary.starts_word
        self.is_text = np.array([vocabulary.is_text(token) for token in range(num_tokens)])
        self.boundaries = (config.pad_id, config.word_start_id)
        self.is_text[[token for token in self.boundaries if token < num_tokens]] = False
        phrases = _phrases(steering.bias)
        self.spellings = Spellings(phrases, vocabulary, num_tokens) if phrases else None
        self.besides: NDArray[np.float32] | None = None
        """[V] the prior of what is no text, 0 elsewhere; None where it is 0 everywhere."""
        self.among: NDArray[np.float32] | None = None
        """[V] the prior of texts, 0 elsewhere."""
        if steering.prior is not None:
            if steering.prior.shape != (num_tokens,):
                raise ConfigError(
                    f"the prior has {steering.prior.size} numbers, the model {num_tokens} text "
                    "tokens; give one for each"
                )
            besides = np.where(self.is_text, np.float32(0), steering.prior)
            among = np.where(self.is_text, steering.prior, np.float32(0))
            self.besides = besides if besides.any() else None
            self.among = among if among.any() else None

    def __deepcopy__(self, memo: object) -> "_Setting":
        return self
