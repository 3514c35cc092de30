"""Picking a text token from logits by chance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError, StreamError

_REACH = 42.0
"""How far a score may lie behind the best and still win by chance."""

_LEAST = 2.0**-54
"""Half of the smallest number above 0 that is drawn: in place of 0, which has no logarithm."""


class Sampler:
    """Draws from the softmax at a temperature, among the likeliest tokens.

    The n-th call with a given seed uses the same noise whatever else runs beside it, so a stream's
    words do not depend on its neighbours or on how its sound was cut.
    """

    def __init__(
        self, temperature: float = 1.0, *, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> None:
        """Set the rule.

        Args:
            temperature: above 0; 0.25 is what Kyutai serves its 1B model with.
            top_k: keep the k likeliest tokens; 0 keeps all.
            top_p: keep the likeliest tokens that together hold this probability; in (0, 1].
            seed: of the noise.

        Raises:
            ConfigError: a number is out of its range.
        """
        if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
            raise ConfigError(
                f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, "
                f"not {temperature}, {top_k}, {top_p}; leave the sampler out for greedy decoding"
            )
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.seed = seed
        self._random = np.random.Generator(np.random.Philox(seed))

    def draw(self, num_tokens: int) -> NDArray[np.float64]:
        """[V] numbers from 0 to 1, the chance of the next token; each call moves on."""
        # One number per token of the vocabulary, whatever will be cut: so the chance of call n
        # never depends on logits.
        return self._random.random(num_tokens)

    def pick(self, logits: NDArray[np.float32], drawn: NDArray[np.float64]) -> int:
        """[V] and what `draw` gave -> a token. The same numbers may be used more than once."""
        # Gumbel noise: the largest noisy score is a draw from the softmax. It lies between -4 and
        # 37, so who is further behind cannot win, and most of a vocabulary needs no logarithms.
        best = logits.max()
        near = np.flatnonzero(logits >= best - np.float32(_REACH * self.temperature))
        scores = self.scores(logits[near].astype(np.float64) - float(best))
        noise = -np.log(-np.log1p(-np.maximum(drawn[near], _LEAST)))
        return int(near[np.argmax(scores + noise)])

    def scores(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """[V] -> [V] logits at the temperature; minus infinity where a token was cut."""
        scores = logits.astype(np.float64) / self.temperature
        if 0 < self.top_k < scores.size:
            kth = np.partition(scores, -self.top_k)[-self.top_k]
            scores[scores < kth] = -np.inf
        if self.top_p < 1:
            order = np.argsort(-scores, kind="stable")
            shares = np.exp(scores[order] - scores[order[0]])
            shares /= shares.sum()
            scores[order[np.cumsum(shares) - shares >= self.top_p]] = -np.inf
        return scores

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """[V] -> a token."""
        return self.pick(logits, self.draw(logits.size))

    def __deepcopy__(self, memo: object) -> "Sampler":
        other = Sampler.__new__(Sampler)
        other.temperature, other.top_k, other.top_p = self.temperature, self.top_k, self.top_p
        other.seed = self.seed
        other._random = np.random.Generator(np.random.Philox(0))
        other._random.bit_generator.state = self._random.bit_generator.state
        return other

    def save(self) -> dict[str, Any]:
        """How far the noise has come, in numbers and lists of them."""
        state: dict[str, Any] = dict(self._random.bit_generator.state)
        counter, key = state["state"]["counter"], state["state"]["key"]
        return {
            "counter": counter.tolist(),
            "key": key.tolist(),
            "buffer": state["buffer"].tolist(),
            "place": state["buffer_pos"],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on with the noise where `save` was called.

        Raises:
            StreamError: it is not what `save` gave.
        """
        try:
            counter, key, buffer = (
                np.array(saved[name], np.uint64) for name in ("counter", "key", "buffer")
            )
            if (counter.shape, key.shape, buffer.shape) != ((4,), (2,), (4,)):
                raise ValueError("arrays of another length")
            if saved["place"] not in range(5):
                raise ValueError("a place outside the buffer")
            self._random.bit_generator.state = {
                "bit_generator": "Philox",
                "state": {"counter": counter, "key": key},
                "buffer": buffer,
                "buffer_pos": saved["place"],
                "has_uint32": 0,
                "uinteger": 0,
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StreamError(
                f"the saved noise of a sampler is damaged ({error!r}); open a fresh stream"
            ) from error
