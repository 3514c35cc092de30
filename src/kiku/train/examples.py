# pyright: basic
# What torch gives is only partly typed.
"""Units of a manifest -> examples: the codec encodes the sound, words are laid out over frames."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kiku.checkpoint import Loaded
from kiku.errors import AudioError, ConfigError, VocabularyError
from kiku.nn.state import all_active
from kiku.train.augment import Augmentation, Augmenter, Rng
from kiku.train.columns import (
    PAUSES_S,
    UNKNOWN,
    Lead,
    TextLayout,
    frames_for,
    pause_targets,
    text_column,
)
from kiku.train.manifest import TrainingRow, problem_of
from kiku.train.own_text import OwnText
from kiku.train.shards import FULL_SCALE, KEEP, Dropped, Example
from kiku.train.sounds import SpokenPiece, UnusableRow, pieces_of

FRAMES_A_CALL = 128
"""Frames that the codec encodes at once: its memory does not grow with a recording."""


_MOST_S = 3600.0
"""Seconds; an example, and how far its text is behind, are no longer."""


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How a manifest is packed."""

    delay_s: float | None = None
    """Seconds by which text lags sound; None is the model's own."""
    lead: Lead = "zero"
    most_s: float = 60.0
    """Seconds of an example; longer recordings are cut between words."""
    shard_s: float = 3600.0
    """Seconds of sound in a shard: at most this much work is repeated after a kill."""
    seed: int = 0
    augmentation: Augmentation | None = None
    sound: bool = False
    """Keep the sound as well as the codes, for a run that trains the codec."""

    def __post_init__(self) -> None:
        """Raise ConfigError for seconds with which nothing could be packed."""
        delay_s = 0.0 if self.delay_s is None else self.delay_s
        for name, seconds, least in (
            ("delay_s (--delay)", delay_s, 0.0),
            ("most_s (--most-s)", self.most_s, 1.0),
        ):
            if not least <= seconds <= _MOST_S:
                raise ConfigError(
                    f"{name} must be from {least:g} to {_MOST_S:g} seconds, not {seconds:g}"
                )


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are packed together with one random generator.

    Copy 0 is rows as they are; other numbers are changed copies of rows.
    """

    copy: int
    rows: tuple[int, ...]


def kind_of(row: TrainingRow) -> tuple[bool, bool]:
    """What must be equal in rows that are joined: whether they are kept, and have no text."""
    return row.keep, row.has_no_text


Split = str
Made = tuple[Split, Example]


class Packer:
    """Turns units into examples."""

    def __init__(
        self, rows: Sequence[TrainingRow], loaded: Loaded, options: PackOptions, device: str
    ) -> None:
        """Put the codec on the device, read noises and rooms."""
        self.rows, self.options, self.device = rows, options, device
        self.config, self.loaded = loaded.config, loaded
        self.codec = loaded.codec.to(device)
        self.vocabulary = loaded.vocabulary
        self.layout = TextLayout.of(self.config, delay_s=options.delay_s, lead=options.lead)
        how = options.augmentation
        self.augmenter = None if how is None else Augmenter(how, self.config.sample_rate)
        self.bad: set[int] = set()
        """Numbers of rows that were dropped; their copies are skipped."""

    def unit(self, unit: Unit, dropped: list[Dropped], first: int = 0) -> Iterator[Made]:
        """The examples of a unit, one at a time.

        Args:
            unit: which rows.
            dropped: rows that turn out to be unusable are added here; the fault may be found after
                some of their examples.
            first: how many examples to skip.
        """
        pieces = self._pieces_of_unit(unit, dropped)
        if unit.copy:
            rng = np.random.default_rng([self.options.seed, unit.copy, *unit.rows])
            pieces = self._surrounded(pieces, rng)
        for row, piece in islice(pieces, first, None):
            yield row.split, self.example(row, piece)

    def _pieces_of_unit(
        self, unit: Unit, dropped: list[Dropped]
    ) -> Iterator[tuple[TrainingRow, SpokenPiece]]:
        """The pieces of all rows that were not dropped before, one at a time."""
        for number in unit.rows:
            if number in self.bad:
                continue
            try:
                for piece in self._pieces(self.rows[number]):
                    yield self.rows[number], piece
            except (AudioError, UnusableRow, VocabularyError) as error:
                self.bad.add(number)
                dropped.append(Dropped(number, self.rows[number].label, str(error)))

    def _pieces(self, row: TrainingRow) -> Iterator[SpokenPiece]:
        problem = problem_of(row)
        if problem is not None:
            raise UnusableRow(problem)
        for word in row.words or ():
            self.vocabulary.encode(word.text)  # raises for a word that it cannot spell
        count = 0
        for piece in pieces_of(row, self.config.sample_rate, self.options.most_s):
            # The last piece of a long recording may be shorter than a frame.
            if len(piece.samples) >= self.config.frame_size or piece.words:
                count += 1
                yield piece
        if not count:
            raise UnusableRow("shorter than one frame of the codec")

    def _surrounded(
        self, pieces: Iterable[tuple[TrainingRow, SpokenPiece]], rng: Rng
    ) -> Iterator[tuple[TrainingRow, SpokenPiece]]:
        if self.augmenter is None:
            return
        # One after the other: memory holds one example, even of a recording of hours.
        changed = ((row, self.augmenter.changed(piece, rng)) for row, piece in pieces)
        for group in self._groups(changed):
            row = group[0][0]
            whole = self.augmenter.joined([piece for _, piece in group], rng)
            yield row, self.augmenter.surrounded(whole, rng)

    def _groups(
        self, pieces: Iterable[tuple[TrainingRow, SpokenPiece]]
    ) -> Iterator[list[tuple[TrainingRow, SpokenPiece]]]:
        """Groups of pieces that fit into one example; "keep" is the same for all of an example."""
        group: list[tuple[TrainingRow, SpokenPiece]] = []
        length, most = 0, self.options.most_s * self.config.sample_rate
        for one in pieces:
            other = group and kind_of(group[0][0]) != kind_of(one[0])
            if other or (group and length + len(one[1].samples) > most):
                yield group
                group, length = [], 0
            group.append(one)
            length += len(one[1].samples)
        if group:
            yield group

    def example(self, row: TrainingRow, piece: SpokenPiece) -> Example:
        """The example of a piece, as the decoder reads it.

        The model's silence prefix comes before the sound. After the sound comes as much silence as
        the text needs to be emitted, as at the end of a stream.

        Raises:
            VocabularyError: a word cannot be spelled.
        """
        prefix_s, rate = self.config.silence_prefix_s, self.config.sample_rate
        if row.has_no_text:
            return self._example_without_text(row, piece)
        words = [word.moved(prefix_s) for word in piece.words]
        spelled = [(word.start, self.vocabulary.encode(word.text)) for word in words]
        sound_s = prefix_s + len(piece.samples) / rate
        frames = ceil((sound_s + self.layout.delay_s) * self.layout.frame_rate - 1e-6)
        frames = max(frames, frames_for(spelled, self.layout))
        voices = [(word.start, word.end) for word in words]
        pauses = pause_targets(voices, frames, self.layout.frame_rate)
        samples, sound = self._codec_input(piece, frames)
        return Example(
            self.codes(samples),
            text_column(spelled, frames, self.layout).astype(np.int32),
            pauses.astype(np.int8),
            _about(row, piece, " ".join(word.text for word in piece.words)),
            sound,
        )

    def _example_without_text(self, row: TrainingRow, piece: SpokenPiece) -> Example:
        """The example of a piece without text: the model writes it; pauses are unknown."""
        sound_s = self.config.silence_prefix_s + len(piece.samples) / self.config.sample_rate
        frames = ceil((sound_s + self.layout.delay_s) * self.layout.frame_rate - 1e-6)
        samples, sound = self._codec_input(piece, frames)
        codes = self.codes(samples)
        text = self.own_text.column(codes)
        return Example(
            codes,
            text.astype(np.int32),
            np.full((frames, len(PAUSES_S)), UNKNOWN, np.int8),
            _about(row, piece, self.vocabulary.decode(text.tolist())),
            sound,
        )

    def _samples(self, piece: SpokenPiece, frames: int) -> NDArray[np.float32]:
        """Samples of `frames` frames: the model's silence prefix, the piece, then silence."""
        samples = np.zeros(frames * self.config.frame_size, np.float32)
        first = round(self.config.silence_prefix_s * self.config.sample_rate)
        samples[first : first + len(piece.samples)] = piece.samples
        return samples

    def _codec_input(
        self, piece: SpokenPiece, frames: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
        """The samples of a piece for the codec, and their int16 form if the sound is kept."""
        samples = self._samples(piece, frames)
        if not self.options.sound:
            return samples, None
        kept = np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        # Codes are made of the rounded samples that are kept: a run hears these at its first step.
        return kept.astype(np.float32) / np.float32(FULL_SCALE), kept

    @cached_property
    def own_text(self) -> OwnText:
        """Writes texts with the model's decoder, which only some manifests need."""
        return OwnText(self.loaded, self.layout, self.device)

    @torch.no_grad()
    def codes(self, samples: NDArray[np.float32]) -> NDArray[np.uint16]:
        """[T * frame_size] samples -> [K, T] codes of the codebooks that the decoder reads."""
        pcm = torch.from_numpy(samples).view(1, 1, -1)
        state = self.codec.init_state(1, self.device, torch.float32)
        active = all_active(1, self.device)
        parts = [
            self.codec(part.to(self.device), state, active).cpu()
            for part in pcm.split(FRAMES_A_CALL * self.config.frame_size, dim=-1)
        ]
        codes = torch.cat(parts, dim=-1)[0, : self.config.lm.num_codebooks]
        return codes.numpy().astype(np.uint16)


def _about(row: TrainingRow, piece: SpokenPiece, text: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "path": str(row.path),
        "from_s": round(piece.from_s, 3),
        "speaker": row.speaker,
        "language": row.language,
        "text": text,
    }
    return {**about, KEEP: True} if row.keep else about
