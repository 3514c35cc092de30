# pyright: basic
# It takes and gives what transformers does, of any type.
"""Turn samples into the model's input: one length, plus the silence and delay the model needs."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kiku.checkpoint.config_transformers import write_preprocessor
from kiku.config import TAIL_S
from kiku.errors import CheckpointError, InputError
from kiku.hf.batch import BatchFeature
from kiku.hf.padding import padding_strategy
from kiku.hf.source import SmallFiles, known_arguments, small_files
from kiku.hf.values import Values

_logger = logging.getLogger(__name__)

RawAudio = (
    NDArray[Any]
    | torch.Tensor
    | Sequence[float]
    | Sequence[NDArray[Any] | torch.Tensor | Sequence[float]]
)
"""One recording [S], or several."""

_PREFIX = "audio_silence_prefix_seconds"


class KyutaiSpeechToTextFeatureExtractor(Values):
    """Turns recordings into one padded batch, with silence before and the delay after each.

    Nothing is resampled. Equal to transformers' class of this name, except that lists of torch
    tensors are recognised as batches, and that input on which numpy fails there (no recording at
    all, unequal lengths with `padding=False`, stereo) gives a clear error.
    """

    file_name = "preprocessor_config.json"
    model_input_names = ("input_values", "padding_mask")

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24_000,
        padding_value: float = 0.0,
        chunk_length_s: float | None = None,
        overlap: float | None = None,
        audio_delay_seconds: float = 0.0,
        audio_silence_prefix_seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Set the values; all can be changed later.

        Args:
            feature_size: channels; only 1 can be used.
            sampling_rate: rate of the samples, in Hz.
            padding_value: what shorter rows are filled with.
            chunk_length_s: seconds per chunk; if `overlap` is given too, lengths are rounded up to
                whole chunks.
            overlap: overlap of two chunks as a share of a chunk, 0 to 1.
            audio_delay_seconds: seconds by which text lags sound; this and one second more are
                added after the sound.
            audio_silence_prefix_seconds: seconds of silence added before the sound.
            **kwargs: `padding_side` ("right"), `return_attention_mask` (True); others are kept and
                saved.
        """
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.padding_value = padding_value
        self.padding_side = kwargs.pop("padding_side", "right")
        self.return_attention_mask = kwargs.pop("return_attention_mask", True)
        self.chunk_length_s = chunk_length_s
        self.overlap = overlap
        self.audio_delay_seconds = audio_delay_seconds
        self.audio_silence_prefix_seconds = audio_silence_prefix_seconds
        for key in ("processor_class", "feature_extractor_type"):
            kwargs.pop(key, None)
        for key, value in kwargs.items():
            setattr(self, key, value)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """The feature extractor of a checkpoint of any layout that kiku reads.

        Args:
            pretrained_model_name_or_path: "demo", a folder, or a repository.
            revision: branch, tag or commit of the repository.
            **kwargs: `cache_dir`, `token` and `local_files_only` as in transformers;
                values that replace those of the checkpoint.

        Raises:
            CheckpointError: it cannot be found or read.
            InputError: (a ValueError) an argument that is not known, or steers the download.
        """
        files = small_files(pretrained_model_name_or_path, revision, kwargs)
        return cls.from_files(files, kwargs)

    @classmethod
    def from_files(cls, files: SmallFiles, arguments: Mapping[str, Any]) -> Self:
        """As `from_pretrained`, from files that are already open."""
        values = files.feature_extractor
        if files.model_config is not None:
            known = write_preprocessor(files.model_config)
            # Delay and silence are the corrected ones; the other values are those of the file.
            corrected = {key: known[key] for key in ("audio_delay_seconds", _PREFIX)}
            values = {**known, **values, **corrected}
        elif not values:
            raise CheckpointError(
                f"{files.place.name} has no config.json and no preprocessor_config.json"
            )
        changes = known_arguments(arguments, vars(cls()).keys() | values.keys())
        return cls(**{**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """All values, with the name of the class."""
        return {"feature_extractor_type": type(self).__name__, **super().to_dict()}

    @property
    def chunk_length(self) -> int | None:
        """Samples per chunk."""
        return (
            None if self.chunk_length_s is None else int(self.chunk_length_s * self.sampling_rate)
        )

    @property
    def chunk_stride(self) -> int | None:
        """Samples from one chunk's beginning to the next one's."""
        length = self.chunk_length
        if length is None or self.overlap is None:
            return None
        return max(1, int((1.0 - self.overlap) * length))

    def __call__(
        self,
        raw_audio: RawAudio,
        padding: bool | str | None = None,
        truncation: bool | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Make a batch.

        Args:
            raw_audio: one recording [S] or several, samples in [-1, 1]. float64 and lists become
                float32.
            padding: None, True or "longest" pads to the longest recording; "max_length" to
                `max_length` samples; False or "do_not_pad" not at all: all must have one length.
            truncation: cut at `max_length`; not together with `padding`.
            max_length: length in samples, before silence and delay are added.
            return_tensors: "pt", "np", or None for a list of arrays.
            sampling_rate: rate of `raw_audio`; it is checked, never converted.

        Returns:
            `input_values` [B, 1, L] and, unless `padding=False`, `padding_mask` int32 [B, L]: 1
            for samples of the recording itself, 0 for all that were added.

        Raises:
            InputError: (a ValueError) another rate, not mono, or arguments that do not fit
                together.
        """
        self._check_rate(sampling_rate)
        if padding and truncation:
            raise InputError("Both padding and truncation were set. Make sure you only set one.")
        if padding is None:
            padding = True
        rows = self._rows(raw_audio)
        if self.chunk_stride is not None and max_length is None and (padding or truncation):
            max_length = self._whole_chunks(rows, shortest=bool(truncation))
            padding = "max_length" if padding and not truncation else padding
        rows = _truncated(rows, max_length) if truncation else rows
        lengths = [len(row) for row in rows]
        rows = self._padded(rows, padding_strategy(padding, max_length), max_length)
        if len({len(row) for row in rows}) > 1:
            raise InputError(f"recordings of {lengths} samples make no batch; pass padding=True")
        left = int(self.audio_silence_prefix_seconds * self.sampling_rate)
        right = int((self.audio_delay_seconds + TAIL_S) * self.sampling_rate)
        batch = BatchFeature(input_values=[np.pad(row, (left, right))[None] for row in rows])
        if padding:
            masks = [
                self._fill(np.ones(n, np.int32), len(row), 0)
                for n, row in zip(lengths, rows, strict=True)
            ]
            batch["padding_mask"] = np.stack([np.pad(mask, (left, right)) for mask in masks])
        return batch.convert_to_tensors(return_tensors)

    def pad(
        self,
        processed_features: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Bring recordings to one length; nothing is added before or after them.

        Args:
            processed_features: a dict with `input_values`, the samples of one recording or of
                several, or a list of such dicts.
            padding: True or "longest", "max_length", or False for none.
            max_length: length in samples.
            truncation: cut at `max_length`.
            pad_to_multiple_of: make the length a multiple of it.
            return_attention_mask: None is `self.return_attention_mask`.
            return_tensors: "pt", "np", or None for the type of the input (arrays for lists).

        Returns:
            `input_values`, and `attention_mask` int32 where it is asked for.

        Raises:
            InputError: (a ValueError) no samples, or arguments that do not fit together.
        """
        samples, is_batch = _samples_of(processed_features)
        rows = [np.asarray(_numpy(one), dtype=np.float32) for one in samples]
        strategy = padding_strategy(padding, max_length)
        multiple = pad_to_multiple_of or 1
        if max_length is not None:
            max_length = -(-max_length // multiple) * multiple
        rows = _truncated(rows, max_length) if truncation else rows
        if strategy == "longest":
            max_length = -(-max(map(len, rows)) // multiple) * multiple
        lengths = [len(row) for row in rows]
        if strategy != "do_not_pad":
            rows = self._padded(rows, "max_length", max_length)
        batch = BatchFeature(input_values=rows if is_batch else rows[0])
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            masks = [
                self._fill(np.ones(n, np.int32), len(row), 0)
                for n, row in zip(lengths, rows, strict=True)
            ]
            batch["attention_mask"] = masks if is_batch else masks[0]
        kind = "pt" if isinstance(samples[0], torch.Tensor) else "np"
        is_ragged = len({len(row) for row in rows}) > 1
        # Rows of different lengths stay separate, unless one array is asked for.
        return (
            batch
            if is_ragged and not return_tensors
            else batch.convert_to_tensors(return_tensors or kind)
        )

    def _check_rate(self, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            _logger.warning(
                "It is strongly recommended to pass the `sampling_rate` argument to `%s()`. "
                "Failing to do so can result in silent errors that might be hard to debug.",
                type(self).__name__,
            )
        elif sampling_rate != self.sampling_rate:
            raise InputError(
                f"The model corresponding to this feature extractor: {self} was trained using a "
                f"sampling rate of {self.sampling_rate}. Please make sure that the provided audio "
                f"input was sampled with {self.sampling_rate} and not {sampling_rate}."
            )

    def _rows(self, raw_audio: RawAudio) -> list[NDArray[Any]]:
        """Each recording as its own array [S], checked."""
        if isinstance(raw_audio, list | tuple) and not len(raw_audio):
            raise InputError("no audio: an empty list was given")
        if isinstance(raw_audio, list | tuple) and isinstance(
            raw_audio[0], np.ndarray | torch.Tensor | list | tuple
        ):
            rows = [np.asarray(_numpy(audio), dtype=np.float32).T for audio in raw_audio]
        else:
            single = _numpy(raw_audio)
            # Only float64 is cast: integers stay integers, unscaled, and `generate` refuses them.
            if not isinstance(single, np.ndarray) or single.dtype == np.float64:
                single = np.asarray(single, dtype=np.float32)
            rows = [single.T]
        for row in rows:
            self._check(row)
        return rows

    def _check(self, row: NDArray[Any]) -> None:
        if row.ndim > 2:
            raise InputError(f"Expected input shape (channels, length) but got shape {row.shape}")
        channels = row.shape[-1] if row.ndim else 0
        if self.feature_size == 1 and row.ndim != 1:
            raise InputError(f"Expected mono audio but example has {channels} channels")
        if self.feature_size == 2 and channels != 2:
            raise InputError(f"Expected stereo audio but example has {channels} channels")
        if self.feature_size != 1:
            raise InputError(
                f"feature_size {self.feature_size}: the models hear mono; use feature_size 1"
            )

    def _whole_chunks(self, rows: list[NDArray[Any]], *, shortest: bool) -> int:
        stride, length = self.chunk_stride, self.chunk_length
        assert stride is not None
        assert length is not None
        lengths = [len(row) for row in rows]
        chunks = min(lengths) // stride if shortest else -(-max(lengths) // stride)
        return (chunks - 1) * stride + length

    def _padded(
        self, rows: list[NDArray[Any]], strategy: str, max_length: int | None
    ) -> list[NDArray[Any]]:
        if strategy == "do_not_pad":
            return rows
        if self.padding_value is None:
            raise InputError(
                "Asking to pad but the feature_extractor does not have a padding value; "
                "set padding_value to 0.0"
            )
        target = max(map(len, rows)) if strategy == "longest" else max_length
        assert target is not None
        return [self._fill(row, target, self.padding_value) for row in rows]

    def _fill(self, row: NDArray[Any], length: int, value: float) -> NDArray[Any]:
        missing = max(length - len(row), 0)
        if self.padding_side not in ("left", "right"):
            raise InputError(
                f"Invalid padding strategy: padding_side must be 'left' or 'right', "
                f"not {self.padding_side!r}"
            )
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(row, width, constant_values=value)


def _samples_of(features: Any) -> tuple[list[Any], bool]:
    """The samples of each recording, and whether there are several."""
    if isinstance(features, list | tuple):
        return [row for one in features for row in _samples_of(one)[0]], True
    samples = features.get("input_values") if isinstance(features, Mapping) else None
    if samples is None or not len(samples):
        raise InputError(
            "pad takes a dict with input_values, or a list of such dicts, and there are none in "
            f"{features!r:.80}"
        )
    is_batch = np.ndim(samples[0]) > 0
    return (list(samples) if is_batch else [samples]), is_batch


def _numpy(audio: Any) -> Any:
    return audio.numpy(force=True) if isinstance(audio, torch.Tensor) else audio


def _truncated(rows: list[NDArray[Any]], max_length: int | None) -> list[NDArray[Any]]:
    if max_length is None:
        raise InputError(
            "When setting ``truncation=True``, make sure that ``max_length`` is defined."
        )
    return [row[:max_length] for row in rows]
