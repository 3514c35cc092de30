"""Rows -> shards: the codes of each piece of sound, and the decoder's targets for it.

The manifest becomes a list of units (a row, or several rows that a changed copy joins). Each unit
has its own random generator, so a run that was killed goes on as if it had not been.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from kiku.checkpoint import Loaded
from kiku.checkpoint.identity import digest_of
from kiku.errors import TrainingError
from kiku.serial import to_plain
from kiku.text import Vocabulary
from kiku.train.atomic_files import locked_folder
from kiku.train.columns import TextLayout
from kiku.train.examples import Made, Packer, PackOptions, Unit, kind_of
from kiku.train.identity import codec_digest, vocabulary_digest
from kiku.train.manifest import TrainingRow, refuse_shared_splits, refuse_untimed
from kiku.train.places import check_pack_folder
from kiku.train.shards import (
    SOUND,
    Dropped,
    Index,
    UnknownLetter,
    read_index,
    write_index,
    write_shard,
)

TRAIN = "train"


@dataclass(slots=True)
class Packed:
    """The result of a run of `pack`."""

    folder: Path
    index: Index
    rows: int
    seconds: float = 0.0
    """Seconds of sound of all examples."""
    resumed_at: int = 0
    """Number of units that were packed before this run."""
    examples: dict[str, int] = field(default_factory=dict[str, int])
    """Number of examples by split."""

    def to_dict(self) -> dict[str, Any]:
        """The values of the report."""
        return {
            "rows": self.rows,
            "examples": self.examples,
            "hours": round(self.seconds / 3600, 4),
            "dropped": [asdict(one) for one in self.index.dropped],
            "unknown": [asdict(one) for one in self.index.unknown],
        }


def units_of(rows: Sequence[TrainingRow], options: PackOptions) -> list[Unit]:
    """Every row as it is, then the changed copies; only rows of the split train are copied."""
    units = [Unit(0, (i,)) for i in range(len(rows))]
    how = options.augmentation
    if how is None:
        return units
    train = [i for i, row in enumerate(rows) if row.split == TRAIN]
    for copy in range(1, how.copies + 1):
        rng = np.random.default_rng([options.seed, copy])
        shuffled: list[int] = rng.permutation(train).tolist()
        order = train if how.join == 1 else shuffled
        # Only rows of one kind are joined; the sort leaves each kind in its order.
        order = sorted(order, key=lambda i: kind_of(rows[i]))
        at = 0
        while at < len(order):
            count = int(rng.integers(1, how.join + 1)) if how.join > 1 else 1
            units.append(Unit(copy, tuple(order[at : at + count])))
            at += count
    return units


def unknown_letters(rows: Sequence[TrainingRow], vocabulary: Vocabulary) -> list[UnknownLetter]:
    """Every letter that the words of a manifest need and a vocabulary lacks.

    The most frequent comes first; each has the word in which it occurs first.
    """
    found: dict[str, UnknownLetter] = {}
    lacking: dict[str, tuple[str, ...]] = {}
    for row in rows:
        for word in row.words or ():
            if word.text not in lacking:
                lacking[word.text] = vocabulary.lacking(word.text)
            for letter in lacking[word.text]:
                first = found.get(letter)
                found[letter] = (
                    UnknownLetter(letter, 1, word.text, word.start, row.label)
                    if first is None
                    else replace(first, words=first.words + 1)
                )
    return sorted(found.values(), key=lambda one: (-one.words, one.letter))


def pack(
    rows: Sequence[TrainingRow],
    loaded: Loaded,
    folder: Path,
    options: PackOptions,
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int, float], None] = lambda done, of, seconds: None,
) -> Packed:
    """Pack a manifest, or resume a pack that was begun.

    Args:
        rows: rows of the manifest.
        loaded: the model whose codec and vocabulary are used.
        folder: folder of the pack.
        options: how to pack.
        device: where the codec runs.
        on_progress: is called after each example and each unit, with the units done, the number of
            units, and the seconds of sound so far.

    Raises:
        TrainingError: rows have no times, a speaker or a part of a recording is in two splits, the
            folder holds another pack or anything else, or cannot be written.
    """
    check_pack_folder(folder)
    refuse_untimed(rows)
    refuse_shared_splits(rows)
    _refuse_without_text(rows, loaded, options)
    units = units_of(rows, options)
    settings = _settings(rows, loaded, options)
    with locked_folder(folder):
        unknown = unknown_letters(rows, loaded.vocabulary)
        recordings = _recordings(rows)
        index = read_index(folder) or Index(settings, len(units), recordings, unknown=unknown)
        _refuse_other(index.settings, settings, folder)
        if index.recordings and index.recordings != recordings:  # older packs do not have it
            raise TrainingError(
                f"{folder} was begun with other recordings of the same names (their sizes or times "
                "differ, or some came or went): pack into another folder, or delete this one"
            )
        done = Packed(folder, index, len(rows), resumed_at=index.next_unit)
        packer = Packer(rows, loaded, options, device)
        packer.bad.update(one.number for one in index.dropped)
        writer = _Writer(folder, index, round(options.shard_s * loaded.config.frame_rate))
        for number in range(index.next_unit, len(units)):
            first = index.next_example if number == index.next_unit else 0
            dropped: list[Dropped] = []
            for made in packer.unit(units[number], dropped, first):
                writer.add(number, first, made)
                on_progress(number, len(units), writer.frames / loaded.config.frame_rate)
                first += 1
            writer.end_unit(units[number], dropped, number + 1)
            on_progress(number + 1, len(units), writer.frames / loaded.config.frame_rate)
        done.seconds = writer.frames / loaded.config.frame_rate
        for shard in index.shards:
            done.examples[shard.split] = done.examples.get(shard.split, 0) + shard.examples
        return done


class _Writer:
    """Keeps examples until they fill a shard."""

    def __init__(self, folder: Path, index: Index, shard_frames: int) -> None:
        self._folder, self._index, self._shard_frames = folder, index, shard_frames
        self.frames = sum(shard.frames for shard in index.shards)
        """Frames of all examples so far."""
        self._waiting: list[Made] = []
        self._waiting_frames = 0
        self._of_unit = 0
        """How many of those waiting are of the present unit."""

    def add(self, unit: int, number: int, made: Made) -> None:
        """Add the example with this number of a unit."""
        if self._waiting_frames >= self._shard_frames:  # inside a long recording
            self._write(unit, number)
        self._waiting.append(made)
        self._count(made, 1)

    def end_unit(self, unit: Unit, dropped: list[Dropped], next_unit: int) -> None:
        """Note what was dropped; of a dropped row only examples that are in a shard are kept."""
        if dropped and not unit.copy:
            while self._of_unit:
                self._count(self._waiting.pop(), -1)
            if kept := self._index.next_example if next_unit - 1 == self._index.next_unit else 0:
                why = f"{dropped[0].why} (its first {kept} examples are kept)"
                dropped = [replace(dropped[0], why=why)]
        self._of_unit = 0
        self._index.dropped += dropped
        if self._waiting_frames >= self._shard_frames or next_unit == self._index.num_units:
            self._write(next_unit, 0)

    def _count(self, made: Made, sign: int) -> None:
        self.frames += sign * len(made[1].text)
        self._waiting_frames += sign * len(made[1].text)
        self._of_unit += sign

    def _write(self, next_unit: int, next_example: int) -> None:
        """Write shards, then the index that names them; a kill in between makes them again."""
        for split in sorted({split for split, _ in self._waiting}):
            number = sum(shard.split == split for shard in self._index.shards)
            examples = [one for of, one in self._waiting if of == split]
            file = f"{split}-{number:05}.safetensors"
            self._index.shards.append(write_shard(self._folder, file, split, examples))
        self._waiting, self._waiting_frames, self._of_unit = [], 0, 0
        self._index.next_unit, self._index.next_example = next_unit, next_example
        write_index(self._folder, self._index)


def _refuse_without_text(rows: Sequence[TrainingRow], loaded: Loaded, options: PackOptions) -> None:
    has, wanted = loaded.config.text_delay_s, options.delay_s
    without_text = [row for row in rows if row.has_no_text]
    if without_text and wanted not in (None, has):
        raise TrainingError(
            f"{len(without_text)} of {len(rows)} rows are marked and have no words (the first is "
            f"{without_text[0].label}): the model writes them itself, {has:g} s after the sound "
            f"and not {wanted:g} s; leave --delay out, or give them words"
        )


def _settings(rows: Sequence[TrainingRow], loaded: Loaded, options: PackOptions) -> dict[str, Any]:
    config = loaded.config
    layout = TextLayout.of(config, delay_s=options.delay_s, lead=options.lead)
    how = options.augmentation
    found = {
        "manifest": digest_of([row.to_dict() for row in rows]),
        "codec": codec_digest(loaded.codec),
        "vocabulary": vocabulary_digest(loaded.vocabulary),
        "frame_rate": layout.frame_rate,
        "num_codebooks": config.lm.num_codebooks,
        "codebook_size": config.lm.codebook_size,
        "text_vocab_size": config.lm.text_vocab_size,
        "pad_id": layout.pad_id,
        "word_start_id": layout.word_start_id,
        "delay_s": layout.delay_s,
        "lead": layout.lead,
        "silence_prefix_s": config.silence_prefix_s,
        "most_s": options.most_s,
        "shard_s": options.shard_s,
        "seed": options.seed,
        "augmentation": None if how is None else to_plain(how),
    }
    # The key is left out if there is no sound: older packs do not have it.
    return {**found, SOUND: True} if options.sound else found


def _recordings(rows: Sequence[TrainingRow]) -> str:
    """Digest of what changes if a recording is replaced, without reading any."""
    found: dict[str, list[int]] = {}
    for path in {row.path.absolute() for row in rows}:
        with suppress(OSError):  # one that is missing is dropped when its row is packed
            stat = path.stat()
            found[str(path)] = [stat.st_size, stat.st_mtime_ns]
    return digest_of(sorted(found.items()))


def _refuse_other(begun: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    begun, asked = {SOUND: False, **begun}, {SOUND: False, **asked}
    for key, value in asked.items():
        if begun.get(key) != value:
            raise TrainingError(
                f"{folder} was begun with another {', '.join(_changes(key, begun.get(key), value))}"
                ": pack into another folder, or delete this one"
            )


def _changes(key: str, begun: Any, asked: Any) -> list[str]:
    """The keys in which a value differs, each with its earlier and its new value."""
    if not (isinstance(begun, dict) and isinstance(asked, dict)):
        return [f"{key} ({_short(begun)}, now {_short(asked)})"]
    old, new = cast("dict[str, Any]", begun), cast("dict[str, Any]", asked)
    return [
        one
        for name in {**new, **old}
        if old.get(name) != new.get(name)
        for one in _changes(f"{key}.{name}", old.get(name), new.get(name))
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
