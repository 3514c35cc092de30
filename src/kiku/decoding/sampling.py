"""Draws a text token from logits by chance."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError
from kiku.serial import MAX_INT

Picker = Callable[[NDArray[np.float32]], int]
"""Picks a text token from logits [V] (float32, a copy that may be changed). Each stream has one of
its own, which may have a state."""

_REACH = 42.0
"""A score can be this many nats below the best and still win by chance."""

_LEAST = 2.0**-54
"""Half of the smallest number above 0 that is drawn. It replaces 0, which has no logarithm."""

_BLOCK = 4
"""Numbers in a block of the generator Philox, which can only be advanced by whole blocks."""

DRAW = np.dtype(
    [
        ("temperature", np.float64),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("key", np.uint64, (2,)),
        ("drawn", np.int64),
    ]
)
"""How a token is drawn, in plain numbers, for an engine that draws in place of a `Sampler`: the
sampler's parameters, the key of its noise, and how many numbers of the noise were used before. If
all are zero, the likeliest token is taken."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The parameters of a `Sampler`, as plain numbers; an engine can draw with them on a device."""

    temperature: float = 1.0
    """Temperature of the softmax, above 0. Kyutai serves its 1B model with 0.25."""
    top_k: int = 0
    """Draw among the k likeliest tokens; 0 draws among all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together hold this probability; in (0, 1]."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        """Raise ConfigError for impossible values."""
        if not (self.temperature > 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise ConfigError(
                f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, not "
                f"{self.temperature}, {self.top_k}, {self.top_p}; leave the sampler out for greedy "
                "decoding"
            )
        if not 0 <= self.seed <= MAX_INT:
            raise ConfigError(
                f"the seed must be from 0 to 2^62, not a number of {self.seed.bit_length()} bits"
            )


@dataclass(slots=True)
class SamplerState:
    """The whole state of a sampler: which noise it uses, and how much of it was used."""

    seed: int
    drawn: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0 or self.drawn < 0:
            raise ValueError("the seed and the numbers drawn must be at least 0")


class Sampler:
    """Draws from the softmax at a temperature, among the likeliest tokens.

    The n-th call with a given seed uses the same noise, whatever else runs. So the words of a
    stream do not depend on other streams, or on how its sound is cut.
    """

    def __init__(
        self, temperature: float = 1.0, *, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> None:
        """Set the parameters; see `SamplingParams`.

        Raises:
            ConfigError: a number is out of its range.
        """
        self.params = SamplingParams(temperature, top_k, top_p, seed)
        self.go_on(SamplerState(seed))

    @classmethod
    def of(cls, params: SamplingParams) -> "Sampler":
        """A sampler with these parameters."""
        return cls(**asdict(params))

    def go_on(self, state: SamplerState) -> None:
        """Go on with the noise of `state`, whatever the seed of this sampler was. `state` is not
        copied; every draw changes it."""
        low, high = np.random.Philox(state.seed).state["state"]["key"].tolist()
        self.state = state
        self._key: tuple[int, int] = low, high
        self._random: np.random.Generator | None = None

    def _placed(self) -> np.random.Generator:
        """A generator of the noise, which stands at the first number that was not used."""
        bits = np.random.Philox(self.state.seed)
        bits.advance(self.state.drawn // _BLOCK)
        random = np.random.Generator(bits)
        random.random(self.state.drawn % _BLOCK)
        return random

    def draw(self, num_tokens: int) -> NDArray[np.float64]:
        """[V] random numbers from 0 to 1 for the next token; each call gives the next ones."""
        # One number per token of the vocabulary, even if tokens are cut later, so that the numbers
        # of the n-th call never depend on logits.
        if self._random is None:
            self._random = self._placed()
        self.state.drawn += num_tokens
        return self._random.random(num_tokens)

    @property
    def row(self) -> tuple[float, int, float, tuple[int, int], int]:
        """The parameters of the next draw, as an element of an array of `DRAW`."""
        params = self.params
        top_k = min(params.top_k, MAX_INT)
        return params.temperature, top_k, params.top_p, self._key, self.state.drawn

    def skip(self, num_tokens: int) -> None:
        """Go on as after `draw`, since an engine drew a token according to `row`."""
        self.state.drawn += num_tokens
        self._random = None

    def pick(self, logits: NDArray[np.float32], drawn: NDArray[np.float64]) -> int:
        """[V] and numbers from `draw` -> a token. The same numbers may be used more than once."""
        # Gumbel noise: the largest score with noise is a draw from the softmax. The noise lies
        # between -4 and 37, so a token that is further below the best cannot win, and most tokens
        # of a vocabulary need no logarithm.
        best = logits.max()
        near = np.flatnonzero(logits >= best - np.float32(_REACH * self.params.temperature))
        scores = self.scores(logits[near].astype(np.float64) - float(best))
        noise = -np.log(-np.log1p(-np.maximum(drawn[near], _LEAST)))
        return int(near[np.argmax(scores + noise)])

    def scores(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """[V] -> [V] logits at the temperature; minus infinity where a token was cut."""
        scores = logits.astype(np.float64) / self.params.temperature
        if 0 < (k := self.params.top_k) < scores.size:
            kth = np.partition(scores, -k)[-k]
            scores[scores < kth] = -np.inf
        if self.params.top_p < 1:
            order = np.argsort(-scores, kind="stable")
            shares = np.exp(scores[order] - scores[order[0]])
            shares /= shares.sum()
            scores[order[np.cumsum(shares) - shares >= self.params.top_p]] = -np.inf
        return scores

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """[V] -> a token."""
        return self.pick(logits, self.draw(logits.size))

    def __deepcopy__(self, memo: object) -> "Sampler":
        other = Sampler.of(self.params)
        other.go_on(replace(self.state))
        return other
