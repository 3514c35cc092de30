"""What live streams make of people, on the demo model: turns, recovery, finalize.

    python benchmarks/people.py --data FOLDER          # about 5 minutes on two cores

FOLDER holds recordings of people (`dev.jsonl`, `speech/`) and noises (`noise/noise/`). None of the
speakers was in the model's training. Everything goes through the scheduler, driven by hand.

Turns: single words, cut out and of even level, joined to turns of one to five words with 0.2 to 0.6
s between them, and 1.5 to 3 s between turns; a quarter of the sounds clean, the others in noise 12
to 30 dB below. At every level of eagerness, with the model's pause heads and without: ends inside a
turn, turns without an end before the next one, and seconds from the end of the speech to the eager
end and to the end. Recovery and finalize: strings of five words as they were recorded, joined to
half a minute and more: word errors with and without recovery, and the words that change when
`finalize` is called twenty times a minute. One line is appended to results/people.jsonl; with
--no-record it is only printed.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import numpy as np
from decoding import RATE, sound_of, strings
from numpy.typing import NDArray
from talk import noises_of

from kiku import Event, Recognizer, TurnEnd, TurnEndEager, TurnPolicy, Word, load
from kiku.engine import StepOutput
from kiku.evaluate.aligning import word_errors
from kiku.evaluate.manifest import Span
from kiku.evaluate.scoring import TurnErrors, turn_errors
from kiku.options import Eagerness, StreamOptions
from kiku.scheduler import Member, Opening
from kiku.stream import FinalizeRequest, WordSession
from recipes.demo.bank import find_word

LEVELS: tuple[Eagerness, ...] = ("high", "medium", "low")
SOUNDS, TURNS = 50, 8
STRINGS, JOINED = 240, 12
LOUDNESS = 0.05

Sound = NDArray[np.float32]


class WithoutHeads:
    """An engine whose pause heads nobody is told of."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(
        self, slots: Sequence[int], frames: Sound, counts: Sequence[int] | None = None
    ) -> StepOutput:
        """See `SlotEngine.step`."""
        return replace(self._engine.step(slots, frames, counts), pauses=None)


def without_heads(recognizer: Recognizer) -> Recognizer:
    """The same model, as if it had none."""
    engine: Any = WithoutHeads(recognizer.scheduler.engine)
    return Recognizer(engine, recognizer.config, recognizer.vocabulary, name="without heads")


def words_of(data: Path) -> list[list[Sound]]:
    """Of each speaker with four words or more, each cut out and as loud as the others."""
    found: dict[str, list[Sound]] = {}
    for line in (data / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] != "en-words":
            continue
        sound = sound_of(data / row["file"])
        place = find_word(sound)
        if place is None or place[1] - place[0] < 0.12:
            continue
        word = sound[round(place[0] * RATE) : round(place[1] * RATE)].copy()
        fade = np.linspace(0, 1, 240, dtype=np.float32)
        word[:240] *= fade
        word[-240:] *= fade[::-1]
        word *= LOUDNESS / np.sqrt(np.mean(word**2) + 1e-9)
        found.setdefault(row["speaker"], []).append(np.clip(word, -0.9, 0.9))
    return [words for words in found.values() if len(words) >= 4]


def conversation(
    speakers: Sequence[Sequence[Sound]], noises: Sequence[Sound], seed: int
) -> tuple[Sound, list[Span]]:
    """One sound, and where in it the turns begin and end."""
    random = np.random.default_rng([1, seed])
    words = speakers[int(random.integers(len(speakers)))]

    def silence(least: float, most: float) -> Sound:
        return np.zeros(round(random.uniform(least, most) * RATE), np.float32)

    parts, turns = [silence(0.5, 1.5)], list[Span]()
    at = len(parts[0])
    for _ in range(TURNS):
        begins = at
        for number in range(count := int(random.integers(1, 6))):
            new = [words[int(random.integers(len(words)))]]
            new += [silence(0.2, 0.6)] if number + 1 < count else []
            parts += new
            at += sum(map(len, new))
        turns.append(Span(begins / RATE, at / RATE))
        parts.append(silence(1.5, 3.0))
        at += len(parts[-1])
    sound = np.concatenate([*parts, np.zeros(2 * RATE, np.float32)])
    kind = random.integers(4)
    if kind == 0:
        return sound, turns
    noise = random.standard_normal(len(sound))
    if kind > 1:
        recorded = noises[int(random.integers(len(noises)))]
        noise = np.resize(np.roll(recorded, random.integers(len(recorded))), len(sound))
    level = LOUDNESS / 10 ** (random.uniform(12, 30) / 20)
    noise = noise * level / np.sqrt(np.mean(noise**2) + 1e-12)
    return sound + noise.astype(np.float32), turns


def events_of(
    recognizer: Recognizer, sound: Sound, options: StreamOptions, points: Sequence[int] = ()
) -> list[Event]:
    """All that a stream says of a sound, with a `finalize` at each of the samples `points`."""
    session = WordSession(recognizer.config, recognizer.vocabulary, options)
    scheduler = recognizer.scheduler
    scheduler.open(Opening([Member(session)]))
    at = 0
    for point in sorted(points):
        session.push(session.input.check(sound[at:point]))
        at = point
        while scheduler.step():
            pass
        session.finalize(FinalizeRequest(None, False))
    session.push(session.input.check(sound[at:]))
    session.close()
    while scheduler.step():
        pass
    return list(session.events)


def turns_found(
    recognizer: Recognizer, level: Eagerness, sounds: Sequence[tuple[Sound, list[Span]]]
) -> dict[str, Any]:
    """See the top of this file."""
    found: list[TurnErrors] = []
    for sound, turns in sounds:
        events = events_of(recognizer, sound, StreamOptions(turns=TurnPolicy.of(level)))
        told = [event for event in events if isinstance(event, TurnEnd | TurnEndEager)]
        # Closing the stream ends its last turn, too, which says nothing of the policy.
        told = [event for event in told if event.time < len(sound) / RATE]
        ends = [event.time for event in told if isinstance(event, TurnEnd)]
        eager = [event.time for event in told if isinstance(event, TurnEndEager)]
        one = turn_errors(turns, ends, eager)
        found += [] if one is None else [one]
    number = sum(one.turns for one in found)
    to_eager = [seconds for one in found for seconds in one.eager_delays]
    to_end = [seconds for one in found for seconds in one.end_delays]
    return {
        "turns": number,
        "false_ends_per_100": _of_100(sum(one.false_ends for one in found), number),
        "false_eager_ends_per_100": _of_100(sum(one.false_eager_ends for one in found), number),
        "misses_per_100": _of_100(sum(one.misses for one in found), number),
        "eager_s": [round(float(np.quantile(to_eager, q)), 2) for q in (0.5, 0.9)],
        "end_s": [round(float(np.quantile(to_end, q)), 2) for q in (0.5, 0.9)],
    }


def _of_100(count: int, number: int) -> float:
    return round(100 * count / number, 1)


def texts(events: Sequence[Event]) -> list[str]:
    """The words."""
    return [event.text for event in events if isinstance(event, Word)]


def recovery_and_finalize(recognizer: Recognizer, data: Path) -> dict[str, Any]:
    """See the top of this file."""
    found = strings(data, STRINGS)
    order = np.random.default_rng(0).permutation(len(found))
    wrong = {"with recovery": 0, "without recovery": 0}
    kept, left_alone = StreamOptions(), StreamOptions(recovery=None)
    words = finalizes = changed = 0
    seconds = 0.0
    for first in range(0, len(found), JOINED):
        part = [found[i] for i in order[first : first + JOINED]]
        sound = np.concatenate([one for one, _ in part])
        said = [word for _, words_said in part for word in words_said]
        found_words = texts(events_of(recognizer, sound, kept))
        wrong["with recovery"] += word_errors(said, found_words)
        alone = texts(events_of(recognizer, sound, left_alone))
        wrong["without recovery"] += word_errors(said, alone)
        count = round(20 * len(sound) / RATE / 60)
        points = np.random.default_rng(first).integers(0, len(sound), count).tolist()
        changed += word_errors(found_words, texts(events_of(recognizer, sound, kept, points)))
        words, finalizes, seconds = (
            words + len(said),
            finalizes + count,
            seconds + len(sound) / RATE,
        )
    return {
        "words": words,
        "minutes": round(seconds / 60, 1),
        "word_errors": {name: round(count / words, 4) for name, count in wrong.items()},
        "finalizes": finalizes,
        "words_changed_by_them": changed,
    }


def measure(data: Path) -> dict[str, Any]:
    """All of it."""
    recognizer = load("demo", engine="onnx")
    speakers, noises = words_of(data), noises_of(data)
    sounds = [conversation(speakers, noises, seed) for seed in range(SOUNDS)]
    evidence = {"heads": recognizer, "quiet": without_heads(recognizer)}
    return {
        "turns": {
            name: {level: turns_found(model, level, sounds) for level in LEVELS}
            for name, model in evidence.items()
        },
        "strings": recovery_and_finalize(recognizer, data),
    }


if __name__ == "__main__":
    machine.measured(__doc__ or "", "people", measure)
