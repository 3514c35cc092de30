"""How fast a recording is transcribed: in blocks, as kiku does it, and frame by frame, as if it
were live."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiku.audio import read_chunks
from kiku.measure.times import Clock
from kiku.options import StreamOptions
from kiku.recognizer import Recognizer
from kiku.scheduler import Member, Opening
from kiku.stream import WordSession


@dataclass(frozen=True, slots=True)
class FileSpeed:
    """How long one recording took in blocks, and frame by frame."""

    sound_s: float
    block_s: float
    """Seconds that it took in blocks."""
    single_s: float
    """Seconds that it took frame by frame."""
    speed: float
    """Seconds of sound in a second, in blocks."""
    ratio: float
    """How many times faster blocks are."""
    frames_per_pass: float
    """Frames that a pass of the decoder brought on average, in blocks."""
    words: int
    same_words: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def capped(recognizer: Recognizer, max_block: int) -> Recognizer:
    """The same model, with at most `max_block` frames of a session in a step."""
    return Recognizer(
        recognizer.scheduler.engine,
        recognizer.config,
        recognizer.vocabulary,
        name=recognizer.name,
        max_block=max_block,
    )


def joined_sound(paths: Sequence[str | Path], sample_rate: int) -> NDArray[np.float32]:
    """[S] the sound of all recordings, one after the other.

    Raises:
        AudioError: one cannot be read.
    """
    chunks = [chunk for path in paths for chunk in read_chunks(str(path), sample_rate)]
    return np.concatenate(chunks)


def file_speed(
    recognizer: Recognizer,
    samples: NDArray[np.float32],
    *,
    rounds: int = 3,
    clock: Clock = perf_counter,
) -> FileSpeed:
    """Transcribe a recording in turn in blocks and frame by frame; the medians of `rounds`.

    Args:
        recognizer: with a free slot.
        samples: [S] at the model's rate.
        rounds: how often it is transcribed each way, after one round that is not counted.
        clock: gives seconds.
    """
    single = capped(recognizer, 1)
    rate = recognizer.config.sample_rate
    block_s: list[float] = []
    single_s: list[float] = []
    texts: set[tuple[str, ...]] = set()
    for number in range(rounds + 1):
        for who, seconds in ((recognizer, block_s), (single, single_s)):
            started = clock()
            words = tuple(word.text for word in who.transcribe(samples, rate=rate))
            if number:
                seconds.append(clock() - started)
            texts.add(words)
    sound_s = len(samples) / rate
    block, one = float(np.median(block_s)), float(np.median(single_s))
    return FileSpeed(
        sound_s=round(sound_s, 3),
        block_s=round(block, 4),
        single_s=round(one, 4),
        speed=round(sound_s / block, 1),
        ratio=round(one / block, 2),
        frames_per_pass=acceptance(recognizer, samples, recognizer.scheduler.max_block),
        words=len(next(iter(texts))),
        same_words=len(texts) == 1,
    )


def acceptance(recognizer: Recognizer, samples: NDArray[np.float32], max_block: int) -> float:
    """Frames that one pass of the decoder brings on average in blocks of at most `max_block`."""
    engine = recognizer.scheduler.engine
    before = engine.num_passes
    with engine.widths.holding(min(max_block, engine.backend.width)):  # not the quickest here
        frames = _count_frames(capped(recognizer, max_block), samples)
    return round(frames / (engine.num_passes - before), 2)


def _count_frames(recognizer: Recognizer, samples: NDArray[np.float32]) -> int:
    options = StreamOptions(recovery=None)  # recovery would cut blocks short
    session = WordSession(recognizer.config, recognizer.vocabulary, options)
    counts: list[int] = []
    member = Member(session, on_output=lambda out: counts.append(len(out.tokens)))
    recognizer.scheduler.open(Opening([member]))
    session.push(session.input.check(samples))
    session.close()
    recognizer.scheduler.drive(lambda: session.done)
    return sum(counts[1:])  # the first output belongs to no frame


def product(
    single_ms: float, pass_ms: Callable[[int], float], frames_per_pass: dict[int, float]
) -> tuple[int, float]:
    """How many times faster blocks would be than single steps: from one model's times, and the
    frames per pass that were measured on another.

    Args:
        single_ms: the time of a step of one frame.
        pass_ms: block size -> the time of a whole pass over a block of that size.
        frames_per_pass: block size -> frames that a pass brings.

    Returns:
        The best block size, and the ratio there.
    """
    ratios = {size: single_ms * got / pass_ms(size) for size, got in frames_per_pass.items()}
    best = max(ratios, key=ratios.__getitem__)
    return best, round(ratios[best], 2)
