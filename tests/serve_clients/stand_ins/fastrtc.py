"""Stands in for the module `fastrtc` beside Unmute's client, which takes one function from it."""

import numpy as np


def audio_to_float32(audio: np.ndarray) -> np.ndarray:
    """int16 samples as numbers from -1 to 1."""
    return audio.astype(np.float32) / 32_768
