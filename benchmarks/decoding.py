"""What decoding options do to the demo model on real speech: hotwords, chance, fewer codebooks.

    python benchmarks/decoding.py --data FOLDER          # about 5 minutes on two cores

FOLDER holds recordings of people (`dev.jsonl`, `speech/`), noises (`noise/noise/`) and sentences
(`text/`). Single words of speakers whom the model never heard are joined to strings of five, as
they were recorded, and heard three times: as they are, and in noise 10 and 3 dB below the speech.

Of an expected word two numbers count: how many of the times that it was said it was heard (recall),
and the errors elsewhere: other words not heard right, and all that was put in, for each other word
that was said. The rest is plain word error rates, what is written where nobody speaks, the time of
a choice among 8000 tokens, and how well a prior over pieces tells two languages apart. One line is
appended to results/decoding.jsonl; with --no-record it is only printed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pieces
from numpy.typing import NDArray

from kiku import Recognizer, load
from kiku.audio import read_chunks
from kiku.decoding import token_picker
from kiku.engine import SlotEngine
from kiku.evaluate.aligning import align_words
from kiku.options import DecodingOptions, Hotword

RATE = 24_000
SLOTS = 8
STRINGS = 60
STRENGTHS = (1.0, 2.0, 4.0, 6.0)
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "yes", "no",
    "up", "down", "left", "right", "on", "off", "stop", "go", "start",
]  # fmt: skip
LEVELS = {"as recorded": None, "noise at 10 dB": 10.0, "noise at 3 dB": 3.0}

Sound = NDArray[np.float32]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Count:
    """Of strings that were heard."""

    said: int
    """How often the expected words were said."""
    heard: int
    """How often of these they were heard."""
    others: int
    """How many other words were said."""
    wrong: int
    """Errors elsewhere: others not heard right, and words that were put in."""

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.said + other.said, self.heard + other.heard,
            self.others + other.others, self.wrong + other.wrong,
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """For JSON: counts and rates."""
        return {
            "said": self.said, "recall": round(self.heard / max(self.said, 1), 4),
            "others": self.others, "errors_elsewhere": round(self.wrong / max(self.others, 1), 4),
        }  # fmt: skip


def count(said: Sequence[str], heard: Sequence[str], expected: Iterable[str]) -> Count:
    """Align as `kiku evaluate` does, and count."""
    wanted = set(expected)
    num_wanted = sum(word in wanted for word in said)
    found = wrong = 0
    for pair in align_words(said, heard):
        expects = pair.reference is not None and said[pair.reference] in wanted
        found += expects and pair.kind == "equal"
        wrong += not expects and pair.kind != "equal"
    return Count(num_wanted, found, len(said) - num_wanted, wrong)


def sound_of(path: Path) -> Sound:
    """All of a file."""
    return np.concatenate(list(read_chunks(path, RATE)))


def strings(data: Path, number: int) -> list[tuple[Sound, list[str]]]:
    """Five words of one speaker each, gaps of 0.3 to 0.7 s; speakers take turns."""
    by_speaker: dict[str, list[tuple[str, str]]] = {}
    for line in (data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] == "en-words":
            by_speaker.setdefault(row["speaker"], []).append((row["file"], row["text"]))
    random = np.random.default_rng(17)
    speakers = sorted(speaker for speaker, rows in by_speaker.items() if len(rows) >= 5)
    made: list[tuple[Sound, list[str]]] = []
    while len(made) < number:
        for speaker in random.permutation(speakers)[: number - len(made)]:
            rows = by_speaker[speaker]
            picked = [rows[k] for k in random.permutation(len(rows))[:5]]
            parts = [np.zeros(RATE // 2, np.float32)]
            for file, _ in picked:
                gap = np.zeros(random.integers(7200, 16800), np.float32)
                parts += [sound_of(data / file), gap]
            made.append((np.concatenate(parts), [word for _, word in picked]))
    return made


def noisy(sound: Sound, noises: Sequence[Sound], level_db: float, seed: int) -> Sound:
    """The sound with a noise so many dB below it."""
    random = np.random.default_rng(seed)
    noise = noises[seed % len(noises)]
    noise = np.roll(np.resize(noise, len(sound)), random.integers(len(sound)))
    power = np.mean(sound[np.abs(sound) > 0.01] ** 2)  # of speech, not of the gaps
    scale = np.sqrt(power / np.mean(noise**2) / 10 ** (level_db / 10))
    return (sound + scale * noise).astype(np.float32)


def encoded(engine: SlotEngine, sounds: Sequence[Sound], frame_size: int) -> list[Codes]:
    """The codes of each sound and of two seconds of silence after it: what the options leave
    alone is computed once."""
    codes: list[Codes] = []
    for first in range(0, len(sounds), SLOTS):
        group = sounds[first : first + SLOTS]
        length = max(map(len, group)) + 2 * RATE
        length += -length % frame_size
        frames = np.stack([np.pad(sound, (0, length - len(sound))) for sound in group])
        frames = frames.reshape(len(group), -1, frame_size)
        slots = [engine.open()[0] for _ in group]
        parts: list[Codes] = []
        for at in range(0, frames.shape[1], engine.max_block):
            block = frames[:, at : at + engine.max_block]
            n, T, _ = block.shape
            packed = engine.encode(slots, block.reshape(n * T, frame_size), [T] * n)
            parts.append(packed.reshape(n, T, -1))
        for slot in slots:
            engine.close(slot)
        for sound, row in zip(group, np.concatenate(parts, axis=1), strict=True):
            codes.append(row[: -(-(len(sound) + 2 * RATE) // frame_size)])
    return codes


def texts_of(
    model: Recognizer, sounds: Sequence[Codes], options: DecodingOptions
) -> list[list[str]]:
    """The words of each sound."""
    engine = model.scheduler.engine
    texts: list[list[str]] = []
    for first in range(0, len(sounds), SLOTS):
        group = sounds[first : first + SLOTS]
        length = max(map(len, group))
        # What is repeated at the end of the shorter ones is silence.
        codes = np.stack([np.pad(one, ((0, length - len(one)), (0, 0)), "edge") for one in group])
        tokens: list[list[int]] = []
        slots: list[int] = []
        for _ in group:
            picker = token_picker(options, model.vocabulary, model.config)
            slot, out = engine.open(picker, num_codebooks=options.num_codebooks)
            slots.append(slot)
            tokens.append(out.tokens.tolist())
        for at in range(0, length, engine.max_block):
            block = codes[:, at : at + engine.max_block]
            n, T, K = block.shape
            out = engine.decode(slots, block.reshape(n * T, K), [T] * n).raise_failure()
            for row, new in zip(tokens, out.tokens.reshape(n, T).tolist(), strict=True):
                row += new
        for slot in slots:
            engine.close(slot)
        texts += [model.vocabulary.decode(row).split() for row in tokens]
    return texts


def counted(
    model: Recognizer,
    sounds: Sequence[Codes],
    said: Sequence[list[str]],
    options: DecodingOptions,
    expected: Iterable[str] = (),
) -> Count:
    """Transcribe sounds, and count."""
    words = list(expected)
    heard = texts_of(model, sounds, options)
    counts = (count(*pair, words) for pair in zip(said, heard, strict=True))
    return sum(counts, Count(0, 0, 0, 0))


def expected_words(
    model: Recognizer, sets: dict[str, list[Codes]], said: Sequence[list[str]]
) -> dict[str, Any]:
    """Each word of the strings is expected alone: in the strings in which it is said, and in as
    many others."""
    jobs: list[tuple[str, list[int]]] = []
    for word in sorted({word for one in said for word in one}):
        holds = [i for i, one in enumerate(said) if word in one]
        lacks = [i for i, one in enumerate(said) if word not in one]
        jobs.append((word, holds + lacks[: len(holds)]))
    rows: dict[str, Any] = {}
    for level, sounds in sets.items():
        rows[level] = {}
        for strength in (None, *STRENGTHS):
            total = Count(0, 0, 0, 0)
            for word, which in jobs:
                hotwords = [] if strength is None else [Hotword(word, strength)]
                part, texts = [sounds[i] for i in which], [said[i] for i in which]
                options = DecodingOptions(hotwords=hotwords)
                total += counted(model, part, texts, options, [word])
            rows[level]["none" if strength is None else f"{strength:g} nats"] = total.row()
    return rows


def error_rates(
    model: Recognizer, sets: dict[str, list[Codes]], said: Sequence[list[str]]
) -> dict[str, Any]:
    """Word error rates with chance and with fewer codebooks; nothing is expected."""
    ways = {
        "greedy, all codebooks": [DecodingOptions()],
        "temperature 0.25 (3 seeds)": [DecodingOptions(temperature=0.25, seed=i) for i in range(3)],
        **{f"{k} codebooks": [DecodingOptions(num_codebooks=k)] for k in (2, 4, 6, 8)},
    }
    rows: dict[str, Any] = {}
    for name, several in ways.items():
        rows[name] = {}
        for level, sounds in sets.items():
            counts = [counted(model, sounds, said, options) for options in several]
            rows[name][level] = round(
                sum(c.wrong for c in counts) / sum(c.others for c in counts), 4
            )
    return rows


def invented(model: Recognizer, engine: SlotEngine, noises: Sequence[Sound]) -> dict[str, Any]:
    """Words that are written where nobody speaks."""
    hiss = np.random.default_rng(4).standard_normal(60 * RATE).astype(np.float32)
    sounds = [np.zeros(120 * RATE, np.float32), 0.003 * hiss, 0.03 * hiss]
    sounds += [(level * noise).astype(np.float32) for noise in noises for level in (0.1, 1.0)]
    codes = encoded(engine, sounds, model.config.frame_size)
    everything = [Hotword(word, 6.0) for word in WORDS]
    ways = {
        "nothing expected": DecodingOptions(),
        "temperature 0.25": DecodingOptions(temperature=0.25),
        "all words expected, 6 nats": DecodingOptions(hotwords=everything),
        "all words expected, 6 nats, temperature 0.25": DecodingOptions(
            hotwords=everything, temperature=0.25
        ),
    }
    words = {name: sum(map(len, texts_of(model, codes, one))) for name, one in ways.items()}
    return {"minutes": round(sum(map(len, sounds)) / RATE / 60, 1), "words": words}


def measure(data: Path) -> dict[str, Any]:
    """All of it."""
    model = load("demo", device="cpu", slots=SLOTS)
    engine = model.scheduler.engine
    noises = [sound_of(path) for path in sorted((data / "noise/noise").glob("*.wav"))]
    made = strings(data, STRINGS)
    said = [words for _, words in made]
    sets: dict[str, list[Codes]] = {}
    for level, below in LEVELS.items():
        sounds = [
            sound if below is None else noisy(sound, noises, below, i)
            for i, (sound, _) in enumerate(made)
        ]
        sets[level] = encoded(engine, sounds, model.config.frame_size)
    return {
        "strings": STRINGS,
        "speakers": "never heard by the model",
        "expected_words": expected_words(model, sets, said),
        "word_error_rates": error_rates(model, sets, said),
        "invented": invented(model, engine, noises),
        **pieces.measure(data),
    }


if __name__ == "__main__":
    machine.measured(__doc__ or "", "decoding", measure)
