"""Strings of words, spoken by voices of espeak-ng, with the times of each word."""

import json
import wave
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from recipes.demo.corpus import SAMPLE_RATE, VOCABULARY, decode
from recipes.demo.voices import ACCENTS, HELD_OUT_VARIANTS, VARIANTS, espeak

FRENCH = (
    "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "oui", "non",
    "bonjour", "merci", "au revoir", "bonne nuit", "s'il vous plaît", "je ne sais pas",
)  # fmt: skip
FRENCH_ACCENTS = ("fr", "fr", "fr-be", "fr-ch")
NEW_WORD = "hello"

CHOOSING_VARIANTS = ("Alicia", "Denis", "grandpa", "f2", "m3", "quincy")
"""Variants of the split dev, which are in no training data either. Settings are chosen with them,
so that those of the split test are used only once, in the end."""
PEOPLE = {"train": 1500, "dev": 120, "test": 120}
"""Number of strings of people's words, by split."""
_CHOOSING_SPEAKERS = 10
"""Of this many speakers with few clips, one is held back for the split dev."""
_FEW_CLIPS = 100

HABIT_S = 0.08
"""Seconds added to the times of words in training. The demo model writes words of these voices a
frame later than their times ask for (the median; 98 of 122 words), so new words have to be as late.
"""

SPLITS = ("train", "test", "dev")
"""The splits, in the order of their seeds."""

Said = tuple[np.ndarray, list[tuple[str, float, float]]]
"""Sound at 24 kHz, and its words with start and end in seconds."""


@dataclass(frozen=True, slots=True)
class Group:
    """Phrases that are spoken together, and how often."""

    name: str
    language: str
    phrases: tuple[str, ...]
    accents: tuple[str, ...]
    train: int
    dev: int
    always: str = ""
    """A word that is in every string."""
    keep: bool = False
    """Whether the model should keep the output that it has for these strings."""

    def count(self, split: str) -> int:
        """How many strings there are in a split; dev and test have the same number."""
        return self.train if split == "train" else self.dev


GROUPS = (
    Group("french", "fr", FRENCH, FRENCH_ACCENTS, 1500, 80),
    Group("hello", "en", tuple(VOCABULARY), ACCENTS, 400, 60, always=NEW_WORD),
    Group("old", "en", tuple(VOCABULARY), ACCENTS, 400, 80, keep=True),
)


def variants_of(split: str) -> tuple[str, ...]:
    """The variants that speak in a split."""
    held = {"dev": CHOOSING_VARIANTS, "test": HELD_OUT_VARIANTS}
    return held.get(split) or tuple(one for one in VARIANTS if one not in CHOOSING_VARIANTS)


def rows_of(group: Group, split: str, seed: int) -> Iterator[tuple[str, str, Said]]:
    """Speaker, language and sound of every string of a group; no variant is in two splits."""
    rng = np.random.default_rng([seed, *group.name.encode(), SPLITS.index(split)])
    variants = variants_of(split)
    wanted = group.count(split)
    while wanted:
        phrases = [str(one) for one in rng.choice(group.phrases, int(rng.integers(1, 5)))]
        if group.always:
            phrases.insert(int(rng.integers(len(phrases) + 1)), group.always)
        variant = str(rng.choice(variants))
        voice = str(rng.choice(group.accents)) + (f"+{variant}" if variant else "")
        said = _said(phrases, voice, rng)
        if said is not None:
            wanted -= 1
            yield f"espeak-{variant or 'plain'}", group.language, said


def _said(phrases: Sequence[str], voice: str, rng: np.random.Generator) -> Said | None:
    """Phrases spoken by a voice; None if it does not tell when each word begins."""
    spoken = espeak().say(
        str(rng.choice([" ", ", ", ". "])).join(phrases), voice,
        words_per_minute=int(rng.integers(110, 200)), pitch=int(rng.integers(20, 85)),
        pitch_range=int(rng.integers(20, 80)), gap=int(rng.choice((0, 0, 2, 5, 12))),
    )  # fmt: skip
    words = " ".join(phrases).split()
    if len(spoken.starts_s) != len(words):
        return None
    lead, tail = rng.uniform(0.1, 0.6, 2)
    samples = np.pad(spoken.samples, [int(s * SAMPLE_RATE) for s in (lead, tail)])
    starts = [start + lead for start in spoken.starts_s]
    bounds = [*starts, len(samples) / SAMPLE_RATE - tail]
    placed = [_placed(samples, *bound) for bound in pairwise(bounds)]
    return samples, [(word, *place) for word, place in zip(words, placed, strict=True)]


def _placed(samples: np.ndarray, start: float, end: float) -> tuple[float, float]:
    """Where the sound between two times begins and ends."""
    part = np.abs(samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])
    loud = np.flatnonzero(part > 0.03 * part.max(initial=1e-6))
    if not len(loud):
        return round(start, 3), round(max(end, start + 0.05), 3)
    first, last = start + loud[0] / SAMPLE_RATE, start + (loud[-1] + 1) / SAMPLE_RATE
    return round(first, 3), round(max(last, first + 0.05), 3)


def _clips(data: Path, split: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Recordings of single words, by speaker.

    The split test has the speakers of the data's own dev list; the split dev has some of the
    others.
    """
    by_speaker: dict[str, list[Mapping[str, Any]]] = {}
    file = "dev.jsonl" if split == "test" else "train.jsonl"
    for line in (data / file).read_text().splitlines():
        row = json.loads(line)
        if row["group"] == "en-words":
            by_speaker.setdefault(row["speaker"], []).append(row)
    if split == "test":
        return by_speaker
    few = sorted(name for name, clips in by_speaker.items() if len(clips) < _FEW_CLIPS)
    held = set(few[::_CHOOSING_SPEAKERS])
    return {name: clips for name, clips in by_speaker.items() if (name in held) == (split == "dev")}


def people(data: Path, split: str, count: int, seed: int) -> Iterator[tuple[str, str, Said]]:
    """Single words of people, several of one speaker in a row, with pauses between them."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    by_speaker = _clips(data, split)
    speakers = sorted(by_speaker)
    for _ in range(count):
        speaker = speakers[int(rng.integers(len(speakers)))]
        held = by_speaker[speaker]
        parts, words, at = list[np.ndarray](), list[tuple[str, float, float]](), 0.0
        for i in rng.permutation(len(held))[: int(rng.integers(2, 6))]:
            sound = decode(data / held[i]["file"]).astype(np.float32) / 32768.0
            sound = 0.4 * sound / max(float(np.abs(sound).max()), 1e-3)
            gap = np.zeros(int(rng.uniform(0.15, 0.6) * SAMPLE_RATE), np.float32)
            at += len(gap) / SAMPLE_RATE
            first, last = _placed(sound, 0.0, len(sound) / SAMPLE_RATE)
            words.append((held[i]["text"].lower(), round(at + first, 3), round(at + last, 3)))
            at += len(sound) / SAMPLE_RATE
            parts += [gap, sound]
        yield speaker, "en", (np.concatenate([*parts, np.zeros(12_000, np.float32)]), words)


def write(
    folder: Path,
    name: str,
    split: str,
    rows: Iterable[tuple[str, str, Said]],
    *,
    keep: bool = False,
) -> Iterator[dict[str, Any]]:
    """Write a wav file for each string, and give its row of a manifest.

    Rows to keep have no words. The words of rows to learn are as late as the model writes.
    """
    habit = HABIT_S if split == "train" else 0.0
    for number, (speaker, language, (samples, words)) in enumerate(rows):
        path = folder / split / f"{name}-{number:04}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, len(samples), "NONE", ""))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        later = [(word, round(a + habit, 3), round(b + habit, 3)) for word, a, b in words]
        told: dict[str, Any] = {"keep": True} if keep else {"words": later}
        yield {
            "path": f"{split}/{path.name}", **told, "speaker": speaker, "language": language,
            "split": split,
        }  # fmt: skip


def speak(folder: Path, data: Path | None, seed: int = 0) -> None:
    """Write recordings, train.jsonl and, for each group, GROUP-dev.jsonl and GROUP-test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    train: list[dict[str, Any]] = []
    for split in SPLITS:
        learned = split == "train"
        said = {
            group.name: write(
                folder, group.name, split, rows_of(group, split, seed),
                keep=learned and group.keep,
            )
            for group in GROUPS
        }  # fmt: skip
        if data is not None:
            strings = people(data, split, PEOPLE[split], seed)
            said["people"] = write(folder, "people", split, strings, keep=learned)
        for name, rows in said.items():
            if learned:
                train += rows
            else:
                _write_lines(folder / f"{name}-{split}.jsonl", rows)
    _write_lines(folder / "train.jsonl", train)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
