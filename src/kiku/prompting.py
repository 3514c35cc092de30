"""`read_prompt`: a recording and its text that the model processes before a stream begins.

The model then continues in the same way: with these spellings of names, this language, this style.
A prompt is processed once; what the model remembers of it is given to any number of streams.
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
"""Seconds of silence between a prompt and the sound that follows, as in Kyutai's example. The text
delay is added, so that all of the prompt's text is written before the sound."""

_MOST_S = 60.0
"""Longest recording of a prompt, in seconds: more than any model remembers."""


def read_prompt(
    scheduler: Scheduler,
    config: ModelConfig,
    vocabulary: Vocabulary,
    text: str,
    chunks: Iterable[Chunk],
) -> Prompt:
    """Let the model process the recording and make it write the text, in a free slot.

    Raises:
        ConfigError: the text is empty, the vocabulary cannot spell it, or the recording has no room
            for it; or the recording is too long.
        AudioError: the recording cannot be read.
        NoFreeSlot: no slot is free.
    """
    picker = PromptPicker(text, vocabulary, config)
    session = TokenSession(_frames(config, chunks), stays=True)
    opening = Opening([Member(session, SlotOptions(picker))], timeout=None)
    (binding,) = scheduler.open(opening)
    try:
        scheduler.drive(lambda: session.has_heard_all or session.failure is not None)
        if session.failure is not None:
            raise session.failure
        if picker.left:
            rest = vocabulary.decode(list(picker.left))
            raise ConfigError(
                f"the prompt's recording ended before {rest!r} of its text was written: give the "
                "text of exactly this recording"
            )
        copied = scheduler.call(lambda: scheduler.engine.copy(binding.slot))
        return Prompt(text, copied.to_bytes())
    finally:
        scheduler.release(binding)


def _frames(config: ModelConfig, chunks: Iterable[Chunk]) -> NDArray[np.float32]:
    """Frames [T, frame_size]: the silence that the model expects first, the recording, and silence
    until all text is written."""
    sound, rate = AudioInput(config.sample_rate), config.sample_rate
    parts = [np.zeros(int(config.silence_prefix_s * rate), np.float32)]
    for chunk in chunks:
        parts.append(sound.feed(chunk))
        if sound.duration > _MOST_S:
            raise ConfigError(f"a prompt's recording may last at most {_MOST_S:g} s: cut it")
    parts.append(sound.end())
    silence_s = config.text_delay_s + _SILENCE_S
    num_samples = sum(part.size for part in parts) + math.ceil(silence_s * rate)
    frames = np.zeros((-(-num_samples // config.frame_size), config.frame_size), np.float32)
    whole = np.concatenate(parts)
    frames.ravel()[: whole.size] = whole
    return frames
