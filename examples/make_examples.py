"""Make the recordings of this folder with the synthetic voices of espeak-ng, from Debian.

    apt-get install espeak-ng
    python examples/make_examples.py

Each word is spoken alone and joined to the others with pauses of changing length.
"""

import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One recording: what is said, by whom, and how it is stored."""

    file: str
    text: str
    command: Callable[[str, str], list[str]]
    """From the text and the path of a wav to the command that speaks it."""
    rate: int
    codec: str


def espeak(voice: str, speed: int) -> Callable[[str, str], list[str]]:
    """The command of espeak-ng; `speed` in words per minute."""
    return lambda text, path: ["espeak-ng", "-v", voice, "-s", str(speed), "-w", path, text]


EXAMPLES = (
    Example(
        "answers.mp3",
        "yes no go stop yes start no stop",
        espeak("en-gb-scotland", 150),
        16_000,
        "libmp3lame",
    ),
    Example(
        "digits.wav", "seven three zero one nine four", espeak("en-us", 150), 16_000, "pcm_s16le"
    ),
    Example("directions.flac", "left right up down on off", espeak("en-gb", 140), 22_050, "flac"),
)


def speak(word: str, example: Example) -> Samples:
    """One word without silence around it, [S] at the example's rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/word.wav"
        subprocess.run(example.command(word, path), check=True)
        with av.open(path) as file:
            rate = file.streams.audio[0].rate
            frames = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    samples = soxr.resample(np.concatenate(frames) / np.float32(32_768), rate, example.rate)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1].astype(np.float32)


def join(words: Sequence[Samples], rate: int, seed: int) -> Samples:
    """Words, all equally loud, with pauses of 0.25 to 0.6 s after each and some quiet before."""
    chance = random.Random(seed)
    parts: list[Samples] = [np.zeros(int(0.4 * rate), np.float32)]
    for word in words:
        pause = np.zeros(int(chance.uniform(0.25, 0.6) * rate), np.float32)
        parts += [0.5 * word / np.abs(word).max(), pause]
    # A little noise: perfect digital silence is not what microphones give.
    sound = np.concatenate(parts)
    noise = np.random.default_rng(seed).standard_normal(len(sound)) * 0.0005
    return (sound + noise).astype(np.float32)


def write(path: Path, samples: Samples, example: Example) -> None:
    """Store samples in the container that the path's ending names."""
    with av.open(str(path), "w") as file:
        track = file.add_stream(example.codec, rate=example.rate, layout="mono")
        whole = np.round(samples * 32_767).astype(np.int16)
        for first in range(0, len(whole), 4_096):
            frame = av.AudioFrame.from_ndarray(whole[None, first : first + 4_096], "s16", "mono")
            frame.sample_rate, frame.pts = example.rate, first
            for piece in resampled(frame, track):
                file.mux(track.encode(piece))
        file.mux(track.encode(None))


def resampled(frame: av.AudioFrame, track: av.AudioStream) -> list[av.AudioFrame]:
    """The frame in the sample format that the codec takes."""
    return av.AudioResampler(track.format, track.layout, track.rate).resample(frame)


def main() -> None:
    """Make them all, beside this script."""
    for seed, example in enumerate(EXAMPLES):
        words = [speak(word, example) for word in example.text.split()]
        path = Path(__file__).parent / example.file
        write(path, join(words, example.rate, seed), example)
        print(f"{path.name}: {example.text}")


if __name__ == "__main__":
    main()
