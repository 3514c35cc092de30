"""A recording and its text that a model has heard and written before a stream begins.

The model then goes on as if it had always written so: names in their spelling, a language, a
style. What it remembers of a prompt is read once and given to any number of streams.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kiku.audio import AudioInput, Chunk
from kiku.config import ModelConfig
from kiku.decoding import PromptPicker
from kiku.errors import ConfigError
from kiku.options import Prompt
from kiku.scheduler import Member, Opening, Scheduler, SlotOptions
from kiku.stream import TokenSession
from kiku.text import Vocabulary

_SILENCE_S = 0.8
"""Of silence between a prompt and what follows it, as in Kyutai's example; beyond the delay of the
text, so that none of it comes late."""

_MOST_S = 60.0
"""Of a prompt's recording: more than any model remembers."""


def read_prompt(
    scheduler: Scheduler,
    config: ModelConfig,
    vocabulary: Vocabulary,
    text: str,
    chunks: Iterable[Chunk],
) -> Prompt:
    """Have the model hear the recording and write the text; takes a free slot for the while.

    Raises:
        ConfigError: no text, one that the vocabulary cannot spell, one that the recording has no
            room for, or a recording that is too long.
        AudioError: the recording cannot be read.
        NoFreeSlot: there is none.
    """
    picker = PromptPicker(text, vocabulary, config)
    session = TokenSession(_frames(config, chunks), stays=True)
    (binding,) = scheduler.open(Opening([Member(session, SlotOptions(picker))]), None)
    try:
        scheduler.drive(lambda: session.has_heard_all or session.failure is not None)
        if session.failure is not None:
            raise session.failure
        if picker.left:
            rest = vocabulary.decode(list(picker.left))
            raise ConfigError(
                f"the prompt's recording ended before {rest!r} of its text was written: give the "
                "text of this very recording"
            )
        return Prompt(text, scheduler.call(lambda: scheduler.engine.save(binding.slot)))
    finally:
        scheduler.release(binding)


def _frames(config: ModelConfig, chunks: Iterable[Chunk]) -> NDArray[np.float32]:
    """[T, frame_size] the model's silence, the recording, and silence until all text is there."""
    sound, rate = AudioInput(config.sample_rate), config.sample_rate
    parts = [np.zeros(int(config.silence_prefix_s * rate), np.float32)]
    for chunk in chunks:
        parts.append(sound.feed(chunk))
        if sound.duration > _MOST_S:
            raise ConfigError(f"a prompt's recording may last {_MOST_S:g} s: cut it")
    parts.append(sound.end())
    silence_s = config.text_delay_s + _SILENCE_S
    num_samples = sum(part.size for part in parts) + math.ceil(silence_s * rate)
    frames = np.zeros((-(-num_samples // config.frame_size), config.frame_size), np.float32)
    whole = np.concatenate(parts)
    frames.ravel()[: whole.size] = whole
    return frames
