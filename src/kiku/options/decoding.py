"""How the text of a stream is picked: temperature, codebooks, hotwords, language prior."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError
from kiku.options.base import Options, check_bool, check_number, check_whole
from kiku.serial import from_plain, plain_numbers, shown, to_plain

MAX_HOTWORDS = 1_000
"""Largest number of phrases of one stream: their cost grows with their number."""

MAX_HOTWORD_CHARACTERS = 200
"""Largest number of characters of one phrase."""

MAX_BOOST = 20.0
"""Largest boost, in nats. More is surely a mistake: a word e^20 times less likely than another was
not spoken."""


@dataclass(frozen=True, slots=True)
class Hotword:
    """One or more words that are expected in the sound."""

    text: str
    """The hotword as it should be written."""
    boost: float = 2.0
    """Nats that each of its words gains at most: another word that is more than e^boost times
    likelier to the model still wins. 1 to 3 decide between words that sound alike; names that the
    model would never spell like this by itself need 4 to 8."""
    any_case: bool = True
    """Expect it also in small letters, and with a capital at the beginning of each word."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        if not isinstance(self.text, str) or not self.text.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"a hotword must be text with letters in it, not {self.text!r}")
        if len(self.text) > MAX_HOTWORD_CHARACTERS:
            raise ConfigError(
                f"a hotword may have at most {MAX_HOTWORD_CHARACTERS} characters, not "
                f"{len(self.text)}: {self.text[:40]!r}..."
            )
        wanted = f"above 0 and at most {MAX_BOOST:g} nats"
        check_number(f"the boost of {self.text!r}", self.boost, wanted, math.ulp(0.0), MAX_BOOST)
        check_bool("any_case", self.any_case)


_PRIOR = "language_prior"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodingOptions(Options):
    """How the text of a stream is picked. The default picks the model's own likeliest token.

    The options can be changed while a stream runs. `Word.probability` comes from the model alone,
    at temperature 1, without boosts and prior: a word that was written only because it was expected
    has a low probability.
    """

    WHAT: ClassVar[str] = "the decoding options"

    temperature: float = 0.0
    """0 takes the likeliest token. Kyutai serves its 1B model with 0.25: sampling gets a stream out
    of silence or repetition, where the likeliest token would keep it."""
    top_k: int = 0
    """Sample among the k likeliest tokens only; 0 allows all. Needs a temperature, like `top_p`."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability; 1 allows all."""
    seed: int = 0
    """Seed of the random numbers. The same seed and sound give the same words."""
    num_codebooks: int | None = None
    """Read only this many codebooks of each frame, from the first; None reads all. The published
    models have 32, of which Kyutai serves 20."""
    hotwords: Sequence[str | Hotword] = ()
    """Words and phrases that are expected, each as text or as a `Hotword` with a boost of its own;
    at most `MAX_HOTWORDS`."""
    cooldown_s: float = 3.0
    """Seconds in which the boost of a phrase returns after the phrase was written. This keeps a
    name that was written wrongly from being written again and again. 0 keeps the boost as it is."""
    language_prior: NDArray[np.float32] | None = None
    """[V] nats that are added to the logits (see `kiku.decoding.language_prior`). Values of text
    tokens favour one text over another. Values of tokens that are not text (PAD, the word-start
    marker) favour text or no text."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        plain_numbers(self)
        check_number("temperature", self.temperature, "a number from 0 to 10", 0.0, 10.0)
        check_number("top_p", self.top_p, "a number above 0, at most 1", math.ulp(0.0), 1.0)
        check_number("cooldown_s", self.cooldown_s, "a number of seconds, at least 0", 0.0, 1e9)
        check_whole("top_k", self.top_k, 0)
        check_whole("seed", self.seed, 0)
        if self.num_codebooks is not None:
            check_whole("num_codebooks", self.num_codebooks, 1)
        object.__setattr__(self, "hotwords", _hotwords(self.hotwords))
        if self.language_prior is not None:
            object.__setattr__(self, "language_prior", _prior(self.language_prior))

    def __eq__(self, other: object) -> bool:
        # The method that dataclass makes would ask whether an array is true, which raises.
        if not isinstance(other, DecodingOptions):
            return NotImplemented
        mine, theirs = self.language_prior, other.language_prior
        if mine is None or theirs is None:
            return self._plain_values() == other._plain_values() and mine is theirs
        return self._plain_values() == other._plain_values() and np.array_equal(mine, theirs)

    def __hash__(self) -> int:
        return hash(self._plain_values())

    def _plain_values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one.name) for one in fields(self) if one.name != _PRIOR)

    @property
    def phrases(self) -> tuple[Hotword, ...]:
        """The hotwords, each as a `Hotword`."""
        return cast("tuple[Hotword, ...]", self.hotwords)

    @property
    def is_plain(self) -> bool:
        """Whether the model's own likeliest token is always taken."""
        return self.temperature == 0 and not self.hotwords and self.language_prior is None

    def to_dict(self) -> dict[str, Any]:
        """See `Options.to_dict`."""
        prior = self.language_prior
        return to_plain(self) | {"language_prior": None if prior is None else prior.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `Options.from_dict`."""
        prior = values.get("language_prior") if isinstance(values, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if prior is None or isinstance(prior, np.ndarray):
            return from_plain(cls, values, what=cls.WHAT, defaults=True, lenient=True)
        return from_plain(
            cls,
            {**values, "language_prior": _prior(prior)},
            what=cls.WHAT,
            defaults=True,
            lenient=True,
        )


def _hotwords(given: Any) -> tuple[Hotword, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ConfigError(
            f"hotwords must be a list of phrases, not {shown(given)}: {_listed(given)}"
        )
    items = cast("Sequence[Any]", given)
    if len(items) > MAX_HOTWORDS:
        raise ConfigError(
            f"a stream may have at most {MAX_HOTWORDS} hotwords, not {len(items)}: give those "
            "that matter in this talk"
        )
    for one in items:
        if not isinstance(one, Hotword | str):
            raise ConfigError(
                f"a hotword must be text or a Hotword, not {shown(one)}: write 'Kyutai', or "
                "Hotword('Kyutai', boost=3.0)"
            )
    return tuple(one if isinstance(one, Hotword) else Hotword(one) for one in items)


def _listed(given: Any) -> str:
    """What to write instead of a value that is not a list of hotwords."""
    if given is None:
        return "leave them out for none"
    if isinstance(given, str):
        return f"write [{shown(given)}]"
    if isinstance(given, Mapping):
        return "write [Hotword(text, boost), ...]"
    return "write list(...) around it" if isinstance(given, Iterable) else "write ['Kyutai', ...]"


def _prior(given: object) -> NDArray[np.float32]:
    try:
        array = np.asarray(given, np.float32).copy()
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"language_prior must be numbers, one for each token ({error})"
        ) from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ConfigError(
            "language_prior must be finite numbers [V], one for each token, but has shape "
            f"{list(array.shape)}, and {int((~np.isfinite(array)).sum())} of them are not finite"
        )
    array.setflags(write=False)
    return array
