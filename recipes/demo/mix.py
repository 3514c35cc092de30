"""Make strings of words from snippets, with gaps and surroundings."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recipes.demo.bank import MARGIN_AFTER_S, MARGIN_BEFORE_S, Bank, Snippet, WordSpan
from recipes.demo.corpus import SAMPLE_RATE, VOCABULARY
from recipes.demo.sound import Surroundings, change_speed, coloured, faded, noise

FRAME_SIZE = 1920
FRAME_RATE = SAMPLE_RATE / FRAME_SIZE


@dataclass(frozen=True, slots=True)
class Recipe:
    """How often each kind of snippet occurs, and how often the sound is changed.

    Attributes:
        kinds: weights of the kinds of `Snippet`.
        empty: share of strings without any vocabulary word.
        same_speaker: share of words by the speaker of the word before, if the bank has the word by
            this speaker.
        changed: share of words and strings whose sound is changed.
        long_pauses: share of gaps that are a second longer or more.
        plain: share of strings that are just recordings one after the other, with zeros or faint
            noise between them, at any level up to clipping.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "whole": 0.20,
            "real": 0.13,
            "cut": 0.15,
            "voice": 0.14,
            "usual": 0.08,
            "said": 0.11,
            "other": 0.19,
        }
    )
    empty: float = 0.08
    same_speaker: float = 0.5
    changed: float = 0.85
    long_pauses: float = 0.0
    plain: float = 0.5


@dataclass(slots=True)
class Mixed:
    """A string: float32 samples [S], the spans of its vocabulary words, and start and end in
    seconds of all speech.
    """

    samples: np.ndarray
    spans: list[WordSpan]
    voices: list[tuple[float, float]]


class Mixer:
    """Makes strings; the same generator state makes the same string."""

    def __init__(
        self, bank: Bank, surroundings: Surroundings, recipe: Recipe | None = None
    ) -> None:
        """Prepare the snippets; kinds that the recipe asks for and the bank lacks are left out."""
        self.bank, self.surroundings, self.recipe = bank, surroundings, recipe or Recipe()
        self._by_word: dict[tuple[str, int], dict[str, list[Snippet]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._free: dict[str, list[Snippet]] = defaultdict(list)
        for snippet in bank.snippets:
            if snippet.kind in ("said", "other"):
                self._free[snippet.kind].append(snippet)
            else:
                for word in {span.word for span in snippet.spans}:
                    self._by_word[snippet.kind, word][snippet.speaker].append(snippet)
        self._speakers = {key: sorted(value) for key, value in self._by_word.items()}
        present = {s.kind for s in bank.snippets}
        self._kinds = [kind for kind in self.recipe.kinds if kind in present]
        weights = np.array([self.recipe.kinds[kind] for kind in self._kinds])
        self._weights = weights / weights.sum()

    def string(self, rng: np.random.Generator, num_samples: int) -> Mixed:
        """Words and gaps that fill `num_samples`."""
        if rng.random() < self.recipe.plain:
            return self._plain_string(rng, num_samples)
        sound = np.zeros(num_samples, np.float32)
        spans: list[WordSpan] = []
        voices: list[tuple[float, float]] = []
        empty = rng.random() < self.recipe.empty
        usual_gap = rng.choice([0.12, 0.35, 0.6, 1.5], p=[0.25, 0.4, 0.25, 0.1])
        time = float(
            rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0, 2.0)], p=[0.25, 0.5, 0.25])
        )
        before: Snippet | None = None
        while time * SAMPLE_RATE < num_samples and not (empty and rng.random() < 0.5):
            snippet = self._next(rng, before, empty=empty)
            before = snippet
            piece, moved = self._perform(rng, snippet)
            first = int(time * SAMPLE_RATE)
            room = num_samples - first
            if moved and moved[-1].end_s * SAMPLE_RATE > room:
                break  # half a word would be labelled as the whole word
            piece = piece[:room]
            sound[first : first + len(piece)] += piece
            moved = [span.moved(first / SAMPLE_RATE) for span in moved]
            spans.extend(moved)
            if snippet.kind in ("whole", "real", "voice", "usual", "said"):
                voices.extend((span.start_s, span.end_s) for span in moved)
            else:
                voices.append((time, time + len(piece) / SAMPLE_RATE))
            gap = rng.uniform(0.05, 2 * usual_gap)
            if rng.random() < self.recipe.long_pauses:
                gap += rng.uniform(1.0, 5.0)
            time += max(0.1, len(piece) / SAMPLE_RATE - MARGIN_BEFORE_S - MARGIN_AFTER_S + gap)
        return Mixed(self._surround(rng, sound), spans, sorted(voices))

    def _plain_string(self, rng: np.random.Generator, num_samples: int) -> Mixed:
        sound = np.zeros(num_samples, np.float32)
        spans: list[WordSpan] = []
        voices: list[tuple[float, float]] = []
        level_db = rng.uniform(-38, 8)
        uneven_db = rng.choice([2.0, 5.0, 10.0])
        usual_gap = rng.uniform(0.05, 0.9)
        time = float(rng.uniform(0.0, 1.5))
        before: Snippet | None = None
        while time * SAMPLE_RATE < num_samples:
            snippet = before = self._next(rng, before, empty=False)
            piece = self.bank.audio(snippet)[: 4 * SAMPLE_RATE]
            speed = 1.0
            if rng.random() < 0.6:
                speed = float(np.exp(rng.uniform(-0.15, 0.15)))
                piece = change_speed(piece, speed)
            if rng.random() < 0.3:
                piece = coloured(piece, rng, self.surroundings.rooms)
                piece *= 0.7 / (np.abs(piece).max() + 1e-3)
            level = min(level_db + rng.uniform(-uneven_db, uneven_db), 12.0)
            piece = piece * np.float32(10 ** (level / 20))
            first = int(time * SAMPLE_RATE)
            moved = [p.moved(first / SAMPLE_RATE, speed=speed) for p in snippet.spans]
            if not moved:
                piece = piece[: num_samples - first]
            if first + len(piece) > num_samples:
                break
            sound[first : first + len(piece)] = np.clip(piece, -1, 1)
            spans.extend(moved)
            whole = (time, time + len(piece) / SAMPLE_RATE)
            voices.extend([(p.start_s, p.end_s) for p in moved] or [whole])
            time = whole[1] + rng.uniform(0.0, 2 * usual_gap)
            if rng.random() < self.recipe.long_pauses:
                time += rng.uniform(1.0, 5.0)
        if rng.random() < 0.3:
            hiss = rng.standard_normal(num_samples, dtype=np.float32)
            sound = np.clip(sound + hiss * np.float32(10 ** rng.uniform(-4.5, -2.7)), -1, 1)
        return Mixed(sound if rng.random() < 0.5 else -sound, spans, voices)

    def _next(self, rng: np.random.Generator, before: Snippet | None, *, empty: bool) -> Snippet:
        kind = "other" if empty else str(rng.choice(self._kinds, p=self._weights))
        if self._free.get(kind):
            return self._free[kind][rng.integers(len(self._free[kind]))]
        while True:
            word = int(rng.integers(len(VOCABULARY)))
            if before is not None and rng.random() < self.recipe.same_speaker:
                known = self._by_word.get((before.kind, word), {}).get(before.speaker)
                if known:
                    return known[rng.integers(len(known))]
            names = self._speakers.get((kind, word))
            if names is None:
                kind = str(rng.choice([k for k in self._kinds if k not in ("said", "other")]))
                continue
            # For words that few real people say, use synthetic voices and cut words as well.
            if kind in ("whole", "real") and len(names) < 25 and rng.random() < 0.6:
                other = str(rng.choice([k for k in self._kinds if k in ("cut", "voice", kind)]))
                if (other, word) in self._speakers:
                    kind, names = other, self._speakers[other, word]
            choice = self._by_word[kind, word][names[rng.integers(len(names))]]
            return choice[rng.integers(len(choice))]

    def _perform(
        self, rng: np.random.Generator, snippet: Snippet
    ) -> tuple[np.ndarray, list[WordSpan]]:
        sound = self.bank.audio(snippet)
        longest = int(3.5 * SAMPLE_RATE)
        if not snippet.spans and len(sound) > longest:
            at = int(rng.integers(0, len(sound) - longest))
            sound = sound[at : at + int(rng.uniform(0.3, 1.0) * longest)]
        speed = 1.0
        if rng.random() < self.recipe.changed:
            speed = float(np.exp(rng.uniform(-0.18, 0.18)))
            sound = change_speed(sound, speed)
        level = np.sqrt(np.mean(sound**2)) + 1e-3
        sound = faded(sound) * np.float32(0.1 / level * 10 ** (rng.uniform(-4, 4) / 20))
        return sound, [span.moved(0.0, speed=speed) for span in snippet.spans]

    def _surround(self, rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
        if rng.random() < self.recipe.changed * 0.7:
            sound = coloured(sound, rng, self.surroundings.rooms)
            sound *= 0.07 / max(0.02, float(np.sqrt(np.mean(sound**2))))
        if rng.random() < 0.75:
            ratio = 10 ** (-rng.uniform(4, 40) / 20)
            sound = sound + noise(rng, len(sound), self.surroundings.noises) * np.float32(
                0.08 * ratio
            )
        level = 10 ** (rng.uniform(-28, 12) / 20)
        sound = sound * np.float32(level)
        return np.clip(sound, -1, 1).astype(np.float32)


def frame_targets(spans: list[WordSpan], num_frames: int, delay: int) -> Tensor:
    """For each frame the word that was spoken `delay` frames before.

    Returns:
        int64 [T]: 0 for none, else 1 + the word's index.
    """
    targets = torch.zeros(num_frames, dtype=torch.int64)
    for span in spans:
        first = int(span.start_s * FRAME_RATE) + delay
        last = max(first + 3, int(span.end_s * FRAME_RATE) + delay)
        targets[first:last] = 1 + span.word
    return targets


class StringBatches:
    """Strings with frame targets at several delays: the batch of any step."""

    def __init__(
        self, mixer: Mixer, *, size: int, seconds: float, delays: tuple[int, ...], seed: int
    ) -> None:
        """`size` strings of `seconds` a batch."""
        self.mixer, self.size, self.delays, self.seed = mixer, size, delays, seed
        self.num_frames = int(seconds * FRAME_RATE)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """(float32 [B, 1, S], int64 [B, delays, T])"""
        rng = np.random.default_rng([self.seed, step])
        made = [self.mixer.string(rng, self.num_frames * FRAME_SIZE) for _ in range(self.size)]
        targets = [
            torch.stack([frame_targets(m.spans, self.num_frames, delay) for delay in self.delays])
            for m in made
        ]
        return torch.from_numpy(np.stack([m.samples for m in made])).unsqueeze(1), torch.stack(
            targets
        )
