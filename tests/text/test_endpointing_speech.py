"""Turns of real speech, as the demo model hears it."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from kiku.audio import read_chunks
from kiku.text import Endpointer, Timing, TurnEnd, TurnPolicy, Word, WordBuilder

if TYPE_CHECKING:
    from kiku import Recognizer

RATE = 24_000
DELAY_S = 0.5
Frame = tuple[float, list[float] | None, float, list[Word], bool]
"""What `Endpointer.push` takes."""


def turns_of() -> Endpointer:
    return Endpointer(TurnPolicy(), frame_rate=12.5, delay_s=DELAY_S)


@pytest.fixture(scope="module")
def recognizer() -> "Recognizer":
    import kiku

    return kiku.load("demo", device="cpu", threads=1)


def frames_of_sound(recognizer: "Recognizer", sound: NDArray[np.float32]) -> list[Frame]:
    """What the model says of a sound."""
    config = recognizer.config
    timing = Timing(config.frame_rate, config.text_delay_s, 0.0)
    builder = WordBuilder(
        recognizer.vocabulary, timing, pad_id=config.pad_id, word_start_id=config.word_start_id
    )
    count = len(sound) // config.frame_size
    pcm = sound[: count * config.frame_size].reshape(count, config.frame_size)
    engine = recognizer.scheduler.engine
    slot, first = engine.open()
    builder.push(int(first.tokens[0]), 0.0)
    frames: list[Frame] = []
    for at in range(0, count, 32):
        part = pcm[at : at + 32]
        out = engine.step([slot], part, [len(part)])
        assert out.pauses is not None
        for i, token in enumerate(out.tokens.tolist()):
            words = builder.push(token, float(out.logprobs[i]))
            level_db = 10 * math.log10(float(np.mean(pcm[at + i] ** 2)) + 1e-12)
            time = (at + i + 1) / config.frame_rate
            is_open = builder.partial is not None
            frames.append((time, out.pauses[i].tolist(), level_db, words, is_open))
    engine.close(slot)
    return frames


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * RATE), np.float32)


def without_heads(frames: Iterable[Frame]) -> list[Frame]:
    return [(frame[0], None, *frame[2:]) for frame in frames]


def sound_of(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(read_chunks(path, RATE)))


def test_two_examples_are_two_turns(recognizer: "Recognizer", repo_root: Path) -> None:
    files = [repo_root / "examples" / name for name in ("digits.wav", "answers.mp3")]
    sound = np.concatenate([part for f in files for part in (sound_of(f), silence(3))])
    frames = frames_of_sound(recognizer, sound)
    expected = [result.text for result in recognizer.transcribe(files)]
    for heads in (True, False):
        turns = turns_of()
        texts: list[str] = []
        for frame in frames if heads else without_heads(frames):
            if any(isinstance(event, TurnEnd) for event in turns.push(*frame)):
                texts.append(" ".join(word.text for word in turns.words))
        assert texts == expected


def test_turns_of_people_that_it_never_heard(recognizer: "Recognizer", shared_data: Path) -> None:
    """As the policy says, with room for so small a sample."""
    said: dict[str, list[str]] = {}
    for line in (shared_data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] == "en-words":
            said.setdefault(row["speaker"], []).append(row["file"])
    random = np.random.default_rng(11)
    speakers = sorted(speaker for speaker, files in said.items() if len(files) >= 6)
    cuts, ends = {True: 0, False: 0}, {True: 0, False: 0}
    for speaker in random.permutation(speakers)[:8]:
        files = [said[speaker][i] for i in random.permutation(len(said[speaker]))[:6]]
        parts, bounds = [silence(1)], list[tuple[float, float]]()
        for turn in (files[:3], files[3:]):
            begin = sum(map(len, parts)) / RATE
            for file in turn:
                parts += [sound_of(shared_data / file), silence(0.1)]
            bounds.append((begin, sum(map(len, parts)) / RATE))
            parts.append(silence(2.5))
        frames = frames_of_sound(recognizer, np.concatenate(parts))
        for heads in (True, False):
            turns = turns_of()
            heard = frames if heads else without_heads(frames)
            told = [e.time for f in heard for e in turns.push(*f) if isinstance(e, TurnEnd)]
            cuts[heads] += sum(any(a < time < b - 0.1 for a, b in bounds) for time in told)
            ends[heads] += sum(any(0 < time - b < 2.6 for time in told) for _, b in bounds)
    assert max(cuts.values()) <= 2, f"of 16 turns, by heads: {cuts}"
    assert min(ends.values()) >= 13, f"of 16 turns, by heads: {ends}"
