"""Picking a text token from logits by chance."""

import numpy as np
from numpy.typing import NDArray

from kiku.errors import ConfigError


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
        self._random = np.random.Generator(np.random.Philox(seed))

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
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
        # Gumbel noise: the largest noisy score is a draw from the softmax. One number per token of
        # the vocabulary is drawn whatever was cut, so the noise of call n never depends on logits.
        scores = self.scores(logits)
        return int(np.argmax(scores + self._random.gumbel(size=scores.size)))
