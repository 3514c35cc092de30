"""Writes a given text as if the model had written it by itself."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from kiku.config import ModelConfig
from kiku.errors import ConfigError
from kiku.text import Vocabulary


class PromptPicker:
    """Lets the model decide when each piece of a given text is written; other text is not allowed.

    Only the logits of PAD, the word-start marker and the next piece count, until all pieces are
    written; after that no text is written. Kyutai's own example of prompting does the same.
    """

    def __init__(self, text: str, vocabulary: Vocabulary, config: ModelConfig) -> None:
        """Prepare for the first frame.

        Raises:
            ConfigError: the text is empty, or the vocabulary cannot spell it.
        """
        pieces = vocabulary.encode(text) if text.strip() else []
        if not pieces:
            raise ConfigError("a prompt needs the text of its recording")
        self.left = deque(pieces)
        """Pieces that have not been written yet."""
        self._others = [config.pad_id, config.word_start_id]

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """[V] -> a token."""
        allowed = [*self._others, self.left[0]] if self.left else self._others
        token = allowed[int(np.argmax(logits[allowed]))]
        if self.left and token == self.left[0]:
            self.left.popleft()
        return token
