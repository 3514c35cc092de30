# pyright: basic
# It takes and gives what transformers does, of any type.
"""Turn recordings into the model's input, and its ids into text and words with times."""

import json
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kiku.audio import (
    AudioInput,
    StreamWarning,
    array_chunks,
    as_mono,
    fed,
    is_decoder,
    read_chunks,
    source_of,
)
from kiku.config import CodecConfig
from kiku.errors import AudioError, InputError
from kiku.hf.batch import BatchFeature
from kiku.hf.features import KyutaiSpeechToTextFeatureExtractor
from kiku.hf.pushing import PushesToHub
from kiku.hf.source import small_files
from kiku.hf.tokenizer import KyutaiSpeechToTextTokenizer
from kiku.hf.values import write_text
from kiku.text import Timing, Word, WordBuilder

_logger = logging.getLogger(__name__)

Audio = str | os.PathLike[str] | NDArray[Any] | Tensor | Sequence[float]
"""A path, or samples [S] in [-1, 1]."""


class KyutaiSpeechToTextProcessor(PushesToHub):
    """A feature extractor and a tokenizer; transformers' class has no `words`."""

    model_input_names = ("input_values", "padding_mask", "input_ids", "attention_mask")
    published_frame_rate = CodecConfig().frame_rate

    def __init__(
        self,
        feature_extractor: KyutaiSpeechToTextFeatureExtractor,
        tokenizer: KyutaiSpeechToTextTokenizer,
        *,
        frame_rate: float = published_frame_rate,
    ) -> None:
        """Combine the two.

        Args:
            feature_extractor: has the delay and the silence, which are subtracted from words'
                times.
            tokenizer: has the pieces of text.
            frame_rate: text ids per second; 12.5 with the published codec.
        """
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.frame_rate = frame_rate

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """The processor of a checkpoint of any layout, or of a folder that one was saved into.

        Args:
            pretrained_model_name_or_path: "demo", a folder, or a repository.
            revision: branch, tag or commit of the repository.
            **kwargs: `cache_dir`, `token` and `local_files_only` as in transformers;
                values of the feature extractor that replace those of the checkpoint.

        Raises:
            CheckpointError: it cannot be found or read.
            InputError: (a ValueError) an argument that is not known, or steers the download.
        """
        files = small_files(pretrained_model_name_or_path, revision, kwargs)
        config = files.model_config
        processor = cls(
            KyutaiSpeechToTextFeatureExtractor.from_files(files, kwargs),
            KyutaiSpeechToTextTokenizer.from_files(files),
        )
        if config is not None:
            processor.frame_rate = config.frame_rate
        return processor

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the feature extractor's and the tokenizer's files; their paths are returned.

        transformers 5 reads processor_config.json, transformers 4 preprocessor_config.json.
        """
        name = type(self).__name__
        values = self.feature_extractor.to_dict()
        return [
            write_text(save_directory, "processor_config.json", self.to_json_string()),
            write_text(
                save_directory,
                "preprocessor_config.json",
                _json({**values, "processor_class": name}),
            ),
            *self.tokenizer.save_pretrained(save_directory),
        ]

    def to_dict(self) -> dict[str, Any]:
        """What processor_config.json holds: the feature extractor's values."""
        return {
            "feature_extractor": self.feature_extractor.to_dict(),
            "processor_class": type(self).__name__,
        }

    def to_json_string(self) -> str:
        """The output of `to_dict` as JSON."""
        return _json(self.to_dict())

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the output of `to_json_string` to a file of any name."""
        path = Path(json_file_path)
        write_text(path.parent, path.name, self.to_json_string())

    def __call__(
        self,
        audio: Audio | Sequence[Audio] | None = None,
        text: str | list[str] | None = None,
        *,
        padding: bool | str | None = None,
        truncation: bool | None = False,
        max_length: int | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Make the input of `generate`.

        Args:
            audio: one recording or several (positionally, or by name, as transformers wants it):
                samples in [-1, 1]; paths, which are decoded and resampled; rows of a dataset, which
                state their rate.
            text: a transcript, whose ids are given as well (`input_ids`, `attention_mask`).
            padding: see the feature extractor, also for the next two arguments.
            truncation: cut at `max_length`.
            max_length: length in samples.
            sampling_rate: rate of `audio`; checked, never converted.
            return_tensors: "pt", "np" or None.
            **kwargs: the same arguments in transformers' dicts `audio_kwargs`, `text_kwargs` and
                `common_kwargs`.

        Returns:
            `input_values` [B, 1, L] and `padding_mask` [B, L].

        Raises:
            InputError: (a ValueError) nothing given, samples that are integers, or arguments that
                do not fit.
            AudioError: a file cannot be read, or samples are not finite or beyond 64. A file that
                breaks off gives the samples before the break, with a warning; of several, in the
                log.
        """
        nested = _nested(kwargs)
        if audio is None and text is None:
            raise InputError(
                f"You need to provide at least one input to call {type(self).__name__}: "
                "`audio` is required."
            )
        common = {"return_tensors": return_tensors, **nested["common_kwargs"]}
        batch = BatchFeature()
        if text is not None:
            asked = {} if padding is None else {"padding": padding}
            batch.update(self.tokenizer(text, **{**asked, **common, **nested["text_kwargs"]}))
        if audio is not None:
            rate = self.feature_extractor.sampling_rate
            asked = {"padding": padding, "truncation": truncation, "max_length": max_length}
            asked |= {"sampling_rate": rate if sampling_rate is None else sampling_rate, **common}
            batch.update(
                self.feature_extractor(
                    recordings(audio, rate), **{**asked, **nested["audio_kwargs"]}
                )
            )
        return batch

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """Text of each row of ids; see `KyutaiSpeechToTextTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens, **kwargs)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any
    ) -> str | list[str]:
        """Text of one row of ids; see `KyutaiSpeechToTextTokenizer.decode`."""
        return self.tokenizer.decode(token_ids, skip_special_tokens, **kwargs)

    def words(self, sequences: Any, logits: Sequence[Tensor] | None = None) -> list[list[Word]]:
        """The words of each row, with times in the recording: silence and delay are subtracted.

        Args:
            sequences: [B, 1 + N] ids from `generate`, the start id first.
            logits: N of [B, vocab_size], from `generate(..., return_dict_in_generate=True,
                output_logits=True)`; for the words' probabilities.

        Returns:
            For each row its words; their `probability` is NaN without `logits`.
        """
        ids = torch.as_tensor(sequences).to("cpu")[:, 1:]  # [B, N]
        if logits is None:
            logprobs = torch.zeros(ids.shape)
        else:
            shares = torch.stack([one.float().log_softmax(-1) for one in logits], dim=1).to(
                "cpu"
            )  # [B, N, V]
            logprobs = shares.gather(-1, ids.unsqueeze(-1))[..., 0]
        words: list[list[Word]] = []
        for row, row_logprobs in zip(ids.tolist(), logprobs.tolist(), strict=True):
            found = self._row_words(row, row_logprobs)
            words.append(
                found
                if logits is not None
                else [replace(word, probability=math.nan) for word in found]
            )
        return words

    def _row_words(self, ids: list[int], logprobs: list[float]) -> list[Word]:
        features = self.feature_extractor
        timing = Timing(
            self.frame_rate, features.audio_delay_seconds, features.audio_silence_prefix_seconds
        )
        tokenizer = self.tokenizer
        builder = WordBuilder(
            tokenizer.vocabulary,
            timing,
            pad_id=tokenizer.pad_id,
            word_start_id=tokenizer.word_start_id,
        )
        found: list[Word] = []
        for token, logprob in zip(ids, logprobs, strict=True):
            found += builder.push(token, logprob)
        return found + builder.finish()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.feature_extractor!r}, {self.tokenizer!r})"


def _nested(kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """transformers' dicts of further arguments, by name; raises InputError for other arguments."""
    names = ("audio_kwargs", "text_kwargs", "common_kwargs")
    if unknown := sorted(kwargs.keys() - set(names)):
        raise InputError(f"the processor does not know {', '.join(unknown)}")
    return {name: dict(kwargs.get(name) or {}) for name in names}


def recordings(audio: Any, rate: int) -> list[NDArray[np.float32]]:
    """All recordings in `audio`, which may be nested, as float32.

    What breaks off is told: by a warning; by the log where there are several, as a warning that
    raises would lose the others. Faults of the sound (silence, channels that cancel) are logged.

    Args:
        audio: samples, paths, rows of a dataset ({"array", "sampling_rate"}, {"path"} or {"bytes"};
            or a decoder with `get_all_samples`), or lists of these.
        rate: in Hz; audio that states its own rate is resampled to it, and its channels are mixed.

    Raises:
        AudioError: a file cannot be read, or samples are not finite or beyond 64.
        InputError: the samples are integers, or `audio` is something else.
    """
    told: list[str] = []
    found = _recordings(audio, rate, told)
    for message in told:
        if isinstance(audio, list | tuple):
            _logger.warning("%s", message)
        else:
            warnings.warn(message, stacklevel=3)  # the caller of the processor
    return found


def _recordings(audio: Any, rate: int, told: list[str]) -> list[NDArray[np.float32]]:
    if is_decoder(audio):
        found = audio.get_all_samples()
        axis = 0 if np.ndim(found.data) == 2 else None
        return [_heard(found.data, int(found.sample_rate), rate, axis)]
    source = source_of(audio)
    if isinstance(source, str | os.PathLike | BytesIO):
        return [_file(source, rate, told)]
    if isinstance(source, Mapping):
        return [_row_of_dataset(source, rate)]
    if isinstance(audio, Tensor):
        audio = audio.numpy(force=True)
    if isinstance(audio, np.ndarray):
        audio = _floats(audio)
        # Of two axes the feature extractor says what is wrong.
        return [_heard(audio, rate, rate) if audio.ndim == 1 else audio.astype(np.float32)]
    if isinstance(audio, list | tuple) and audio:
        if isinstance(audio[0], float):
            return [_heard(audio, rate, rate)]
        return [recording for one in audio for recording in _recordings(one, rate, told)]
    raise InputError(
        "Invalid input type. Must be a single audio, a list of audio, or a nested list of audio"
    )


def _row_of_dataset(row: Mapping[str, Any], rate: int) -> NDArray[np.float32]:
    """[S] samples of a dataset's row, which has to state its rate."""
    if row["sampling_rate"] is None:
        raise InputError('a recording {"array": ...} has to say its rate as well: "sampling_rate"')
    return _heard(_floats(np.asarray(row["array"])), int(row["sampling_rate"]), rate)


def _floats(samples: NDArray[Any]) -> NDArray[Any]:
    """The samples, [S] if there is one channel; InputError if they are no floats."""
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"samples must be floats in [-1, 1], not {samples.dtype}; divide int16 by 32768 "
            "(transformers takes them as they are, and the model then hears noise)"
        )
    is_one = samples.ndim == 2 and 1 in samples.shape  # as torchaudio gives it
    return samples.reshape(-1) if is_one else samples


def _heard(
    samples: ArrayLike, given: int, rate: int, channels_axis: int | None = None
) -> NDArray[np.float32]:
    """[S] samples at `rate`, from an array at the rate `given`; their faults are logged."""
    if not np.size(samples):
        return as_mono(samples, channels_axis=channels_axis)
    chunks = array_chunks(samples, given, channels_axis=channels_axis)
    return np.concatenate(list(fed(AudioInput(rate), chunks, _log)))


def _log(warning: StreamWarning, name: str = "") -> None:
    """Log a warning with the name of its file, if it has one."""
    message = warning.message
    _logger.warning("%s", message if name in message else f"{name}: {message}")


def _file(
    source: str | os.PathLike[str] | BytesIO, rate: int, told: list[str]
) -> NDArray[np.float32]:
    """[S] samples of a file, which is named or open.

    If the file breaks off, they are those before the break, and `told` gets why.
    """
    file = source if isinstance(source, BytesIO) else os.fspath(source)
    if isinstance(file, str) and file.startswith(("http://", "https://")):
        raise InputError(f"{file}: addresses are not fetched; download the file and give its path")
    name = os.fsdecode(file) if isinstance(file, str | bytes) else str(getattr(file, "name", ""))
    log = partial(_log, name=name)
    chunks: list[NDArray[np.float32]] = []
    try:
        chunks.extend(read_chunks(file, rate, on_warning=log))
    except AudioError as error:
        if not chunks:
            raise
        told.append(f"{error}; everything before was taken")
    return np.concatenate(chunks)


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
