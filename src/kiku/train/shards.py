"""Examples in files: each shard is a safetensors file, so any example can be read by itself.

    PACK/pack.json                what was packed and how, the shards with their SHA-256
    PACK/train-00000.safetensors  0.codes [K, T], 0.text [T], 0.pauses [T, 4], 1.codes, ...
                                  and, where asked for, 0.sound [T * frame_size] in 16 bits

Knows arrays and files; does not know sound or networks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open  # pyright: ignore[reportUnknownVariableType]
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from kiku.checkpoint.headers import read_header
from kiku.checkpoint.identity import sha256_of
from kiku.errors import TrainingError
from kiku.serial import from_plain, to_plain
from kiku.train.atomic_files import durable
from kiku.writing import reason_of

INDEX = "pack.json"
_FORMAT = "kiku pack 2"

SOUND = "sound"
"""Key in the settings of a pack that holds the sound of its examples."""

FULL_SCALE = 32768.0
"""Value in 16 bits of a sample of 1 (one more than the largest that fits)."""

KEEP = "keep"
"""Key in `Example.about` if the row was marked "keep"."""


@dataclass(frozen=True, slots=True)
class Example:
    """One piece of sound, as the decoder reads it."""

    codes: NDArray[np.uint16]  # [K, T]
    text: NDArray[np.int32]  # [T]
    pauses: NDArray[np.int8]  # [T, 4]
    about: Mapping[str, Any]
    """Where it comes from: path, second, speaker, language, words."""
    sound: NDArray[np.int16] | None = None  # [T * frame_size]
    """The samples that the codes were made of; None if they were not asked for."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of examples, as the index names it."""

    file: str
    split: str
    examples: int
    frames: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was not packed, and why."""

    number: int
    """Which row of the manifest, from 0."""
    row: str
    why: str


@dataclass(frozen=True, slots=True)
class UnknownLetter:
    """A letter that the vocabulary has no piece for, and where it occurs."""

    letter: str
    words: int
    """In how many words of the manifest it occurs."""
    word: str
    """The first of them."""
    at_s: float
    row: str


@dataclass(slots=True)
class Index:
    """The content of pack.json."""

    settings: dict[str, Any]
    """How it was packed: these values must be the same to resume it."""
    num_units: int
    recordings: str = ""
    """Digest of the sizes and times of all recordings: they must be the same, too."""
    format: str = _FORMAT
    next_unit: int = 0
    """The first unit that is not packed yet: all before it are in the shards, or dropped."""
    next_example: int = 0
    """The first example of that unit that is not in a shard yet."""
    shards: list[Shard] = field(default_factory=list[Shard])
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    unknown: list[UnknownLetter] = field(default_factory=list[UnknownLetter])
    """Letters that the vocabulary lacks. Words with them are spelled in bytes if the vocabulary has
    these; else their rows are dropped."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole manifest is packed."""
        return self.next_unit == self.num_units


def read_index(folder: Path) -> Index | None:
    """The index of a pack's folder; None if there is no pack yet.

    Raises:
        TrainingError: it cannot be read, or another version wrote it.
    """
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({reason_of(error)})") from error
    except ValueError as error:
        raise TrainingError(f"{path} is damaged ({error}): pack again") from error
    index = from_plain(
        Index, values, what=str(path), error=TrainingError, defaults=True, lenient=True
    )
    if index.format != _FORMAT:
        raise TrainingError(f"{path} has the format {index.format!r}, not {_FORMAT!r}: pack again")
    return index


def write_index(folder: Path, index: Index) -> None:
    """Replace pack.json; from then on the shards named in it belong to the pack.

    Raises:
        TrainingError: it cannot be written.
    """
    with durable(folder / INDEX) as beside:
        beside.write_text(json.dumps(to_plain(index), indent=1) + "\n", encoding="utf-8")


def write_shard(folder: Path, file: str, split: str, examples: Sequence[Example]) -> Shard:
    """Write examples to a file, completely or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for i, one in enumerate(examples):
        arrays |= {f"{i}.codes": one.codes, f"{i}.text": one.text, f"{i}.pauses": one.pauses}
        if one.sound is not None:
            arrays[f"{i}.sound"] = one.sound
    about = json.dumps([dict(one.about) for one in examples], ensure_ascii=False)
    path = folder / file
    with durable(path) as beside:
        save_file(arrays, beside, metadata={"examples": about})
    frames = sum(len(one.text) for one in examples)
    return Shard(file, split, len(examples), frames, sha256_of(path))


class PackReader:
    """The examples of one split of a pack, in any order, one at a time from the disk."""

    def __init__(self, folder: Path, split: str = "train", *, verify: bool = True) -> None:
        """Find all examples; their arrays are read later.

        Args:
            folder: folder of the pack.
            split: the split to read.
            verify: whether to compare each shard with its checksum first.

        Raises:
            TrainingError: it is no pack, not finished, or a shard is missing or damaged.
        """
        index = read_index(folder)
        if index is None:
            raise TrainingError(
                f"{folder} is not a pack ({INDEX} is missing): make one with  kiku "
                "train pack")  # fmt: skip
        if not index.is_complete:
            raise TrainingError(
                f"{folder} is not finished ({index.next_unit} of {index.num_units} rows are in "
                "it): run the same  kiku train pack  again to continue"
            )
        self.folder, self.split, self.index = folder, split, index
        self._open: dict[str, Any] = {}
        self._places: list[tuple[str, int]] = []
        lengths: list[int] = []
        keep: list[bool] = []
        for shard in index.shards:
            if shard.split == split:
                shapes = self._shapes(shard, verify=verify)
                lengths += shapes
                self._places += [(shard.file, i) for i in range(len(shapes))]
                keep += self._marks(shard.file)
        self.lengths: NDArray[np.int64] = np.array(lengths, np.int64)
        """[N] frames of each example."""
        self.keep: NDArray[np.bool_] = np.array(keep, np.bool_)
        """[N] whether the example's row was marked "keep"."""

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self._places)

    def __getitem__(self, number: int) -> Example:
        """The example with this number, from 0."""
        file, i = self._places[number]
        held = self._held(file)
        about: list[dict[str, Any]] = json.loads(held.metadata()["examples"])
        codes, text, pauses = (
            held.get_tensor(f"{i}.{name}") for name in ("codes", "text", "pauses")
        )
        sound = held.get_tensor(f"{i}.sound") if self.has_sound else None
        return Example(codes, text, pauses, about[i], sound)

    def arrays(self, number: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """codes [K, T], text [T], pauses [T, 4] of an example: all that a batch needs of it."""
        file, i = self._places[number]
        held = self._held(file)
        return tuple(held.get_tensor(f"{i}.{name}") for name in ("codes", "text", "pauses"))

    @property
    def has_sound(self) -> bool:
        """Whether the sound of each example is in the pack."""
        return bool(self.index.settings.get(SOUND))

    def sound(self, number: int) -> NDArray[np.float32]:
        """[T * frame_size] samples of an example, exactly those that its codes were made of."""
        file, i = self._places[number]
        samples: NDArray[np.int16] = self._held(file).get_tensor(f"{i}.sound")
        return samples.astype(np.float32) / np.float32(FULL_SCALE)

    def _marks(self, file: str) -> list[bool]:
        about: list[dict[str, Any]] = json.loads(self._held(file).metadata()["examples"])
        return [bool(one.get(KEEP)) for one in about]

    def _held(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="numpy")
        return self._open[file]

    def _shapes(self, shard: Shard, *, verify: bool) -> list[int]:
        path = self.folder / shard.file
        try:
            if verify and sha256_of(path) != shard.sha256:
                raise TrainingError(
                    f"{path} is damaged (its checksum is not the one in {INDEX}): pack again"
                )
            header = read_header(path)
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be read ({reason_of(error)}): pack again"
            ) from error
        return [header[f"{i}.text"].shape[0] for i in range(shard.examples)]
