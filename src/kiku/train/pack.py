"""Rows -> shards: the codes of each piece of sound, and the decoder's targets for it.

The manifest becomes a list of units (a row, or several rows that a changed copy joins). Each unit
has its own random generator, so a run that was killed goes on as if it had not been.
"""

from collections.abc import Callable, Sequence
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
from kiku.train.examples import Packer, PackOptions, Unit, kind_of
from kiku.train.identity import codec_digest, vocabulary_digest
from kiku.train.manifest import TrainingRow, refuse_shared_splits, refuse_untimed
from kiku.train.places import check_pack_folder
from kiku.train.shards import (
    SOUND,
    Example,
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
    on_unit: Callable[[int, int, float], None] | None = None,
) -> Packed:
    """Pack a manifest, or resume a pack that was begun.

    Args:
        rows: rows of the manifest.
        loaded: the model whose codec and vocabulary are used.
        folder: folder of the pack.
        options: how to pack.
        device: where the codec runs.
        on_unit: is called with the units done, the number of units, and the seconds of sound so
            far.

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
        index = read_index(folder) or Index(settings, len(units), unknown=unknown)
        _refuse_other(index.settings, settings, folder)
        done = Packed(folder, index, len(rows), resumed_at=index.next_unit)
        packer = Packer(rows, loaded, options, device)
        packer.bad.update(one.number for one in index.dropped)
        waiting: list[tuple[str, Example]] = []
        rate = loaded.config.frame_rate
        for number in range(index.next_unit, len(units)):
            examples, dropped = packer.unit(units[number])
            waiting += examples
            index.dropped += dropped
            seconds = sum(len(one.text) for _, one in waiting) / rate
            if seconds >= options.shard_s or number + 1 == len(units):
                _write(folder, index, waiting, number + 1)
                waiting = []
            if on_unit is not None:
                so_far = sum(shard.frames for shard in index.shards) / rate
                on_unit(number + 1, len(units), so_far + (seconds if waiting else 0.0))
        done.seconds = sum(shard.frames for shard in index.shards) / rate
        for shard in index.shards:
            done.examples[shard.split] = done.examples.get(shard.split, 0) + shard.examples
        return done


def _write(
    folder: Path, index: Index, waiting: Sequence[tuple[str, Example]], next_unit: int
) -> None:
    """Write shards, then the index that names them; after a kill in between they are made again."""
    for split in sorted({split for split, _ in waiting}):
        number = sum(shard.split == split for shard in index.shards)
        examples = [one for of, one in waiting if of == split]
        file = f"{split}-{number:05}.safetensors"
        index.shards.append(write_shard(folder, file, split, examples))
    index.next_unit = next_unit
    write_index(folder, index)


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
