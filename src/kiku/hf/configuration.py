# pyright: basic
# It takes and gives what transformers does, of any type.
"""`KyutaiSpeechToTextConfig` and the codec's `MimiConfig`: transformers' names and defaults."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch

from kiku.checkpoint.config_transformers import (
    CODEC_DEFAULTS,
    CODEC_THETA,
    DECODER_THETA,
    DEFAULTS,
    read_transformers,
    read_transformers_codec,
    rope_theta,
    write_transformers,
)
from kiku.checkpoint.corrections import CorrectedValue
from kiku.checkpoint.loading import as_dtype
from kiku.config import WORD_START_ID, CodecConfig, ModelConfig
from kiku.errors import CheckpointError, ConfigError, UnsupportedConfig
from kiku.hf.source import known_arguments, small_files
from kiku.hf.values import Values

# Defaults of fields that transformers' classes have and kiku's networks do not use.
_MORE_DEFAULTS: dict[str, Any] = {
    "initializer_range": 0.02, "use_cache": True, "attention_dropout": 0.0, "eos_token_id": None,
}  # fmt: skip
_MORE_CODEC_DEFAULTS: dict[str, Any] = {
    "trim_right_ratio": 1.0, "upsample_groups": 512, "max_position_embeddings": 8000,
    "initializer_range": 0.02, "use_cache": False, "use_streaming": False, "attention_dropout": 0.0,
    "layer_scale_initial_scale": 0.01, "tie_word_embeddings": True,
}  # fmt: skip


# Switches that every config of transformers has, and older spellings.
_MORE_NAMES = frozenset({
    "dtype", "output_attentions", "output_hidden_states", "return_dict", "rope_scaling",
    "rope_theta", "torch_dtype",
})  # fmt: skip


class MimiConfig(Values):
    """Numbers of the codec. Only its encoder half is built; other values are kept and saved."""

    file_name = "config.json"
    model_type = "mimi"

    def __init__(self, **kwargs: Any) -> None:
        """Take transformers' defaults for what is left out (the published codec).

        Args:
            **kwargs: any of `sampling_rate`, `hidden_size`, `num_filters`, `upsampling_ratios`,
                `codebook_size`, `num_quantizers`, `sliding_window` and the other fields of
                transformers' `MimiConfig`.

        Raises:
            ConfigError: (a ValueError) numbers that do not fit together.
            UnsupportedConfig: a value that kiku does not build.
        """
        values = {**CODEC_DEFAULTS, **_MORE_CODEC_DEFAULTS, **kwargs}
        values.pop("model_type", None)
        values["upsampling_ratios"] = list(
            values["upsampling_ratios"] or CODEC_DEFAULTS["upsampling_ratios"]
        )
        values["codebook_dim"] = values["codebook_dim"] or values["hidden_size"]
        values["head_dim"] = (
            values["head_dim"] or values["hidden_size"] // values["num_attention_heads"]
        )
        _settle_theta(values, CODEC_THETA)
        frame_rate = values.pop("frame_rate", None) or values.pop("_frame_rate", None)
        vars(self).update(values)
        if values["num_semantic_quantizers"] >= values["num_quantizers"]:
            raise ConfigError(
                "The number of semantic quantizers should be lower than the total number of "
                f"quantizers {values['num_quantizers']}, but is currently "
                f"{values['num_semantic_quantizers']}."
            )
        if values["codebook_size"] & (values["codebook_size"] - 1):
            raise ConfigError(
                f"`codebook_size` must be a power of 2, but is {values['codebook_size']}."
            )
        # The frame rate of an old file is only checked: it follows from the other numbers.
        self._built = read_transformers_codec({**values, "frame_rate": frame_rate})

    def to_dict(self) -> dict[str, Any]:
        """All values, with `model_type`."""
        return {**super().to_dict(), "model_type": self.model_type}

    def to_codec_config(self) -> CodecConfig:
        """The same numbers as kiku's `CodecConfig`."""
        return read_transformers_codec(self.to_dict())

    @property
    def frame_size(self) -> int:
        """Samples per frame (1,920)."""
        return self._built.frame_size

    @property
    def frame_rate(self) -> float:
        """Frames per second (12.5)."""
        return self._built.frame_rate

    @property
    def encodec_frame_rate(self) -> int:
        """Latents per second before the last convolution, rounded up (25)."""
        return -(-self._built.sample_rate // self._built.hop)

    @property
    def latent_stride(self) -> int:
        """Latents per frame (2)."""
        return int(self.encodec_frame_rate / self.frame_rate)

    @property
    def num_codebooks(self) -> int:
        """Another name of `num_quantizers`."""
        return self._built.num_codebooks

    @property
    def latent_dim(self) -> int:
        """Another name of `hidden_size`."""
        return self._built.latent_dim


class KyutaiSpeechToTextConfig(Values):
    """Numbers of a whole model, by transformers' names, with transformers' defaults.

    One default differs, on purpose: without any `rope_theta` it is 100,000, which every published
    checkpoint has (and the class of transformers 4 had); transformers 5 silently takes 10,000.
    """

    file_name = "config.json"
    model_type = "kyutai_speech_to_text"
    is_encoder_decoder = False
    base_model_tp_plan = None
    _attn_implementation = "sdpa"

    vocab_size: int
    """Text ids, the start id included."""
    codebook_vocab_size: int
    """Codes of a codebook, the one that a model starts with included."""
    audio_pad_token_id: int
    """The id that adds nothing, in any place of a column."""
    bos_token_id: int | None
    """The start id with which the output of `generate` begins."""
    pad_token_id: int | None
    """The text id of a frame without text."""
    eos_token_id: int | list[int] | None
    """The ids at which `generate` ends a row; None in all published models, whose rows end with
    their sound."""
    num_codebooks: int
    use_cache: bool
    attention_dropout: float
    """Must be 0 to train; it does nothing else."""
    initializer_range: float
    sliding_window: int
    rope_parameters: dict[str, Any]

    def __init__(
        self, codec_config: "Mapping[str, Any] | MimiConfig | None" = None, **kwargs: Any
    ) -> None:
        """Take transformers' defaults for what is left out (the 2.6B).

        Args:
            codec_config: numbers of the codec; None is the published one.
            **kwargs: any of `vocab_size`, `hidden_size`, `num_hidden_layers`,
                `num_attention_heads`, `ffn_dim`, `sliding_window`, `rope_parameters` (or the older
                `rope_theta`), `bos_token_id` and the other fields of transformers' class; unknown
                ones become attributes and are saved.

        Raises:
            ConfigError: (a ValueError) numbers that do not fit together.
            UnsupportedConfig: a codec that is not Mimi.
        """
        values = {**DEFAULTS, **_MORE_DEFAULTS, **kwargs}
        for key in ("model_type", "frame_size", "transformers_version"):
            values.pop(key, None)
        if values["ffn_dim"] % 2:
            raise ConfigError(f"`ffn_dim={values['ffn_dim']}` must be even.")
        if values["num_key_value_heads"] is None:
            values["num_key_value_heads"] = values["num_attention_heads"]
        values["head_dim"] = (
            values["head_dim"] or values["hidden_size"] // values["num_attention_heads"]
        )
        _settle_theta(values, DECODER_THETA)
        older, dtype = values.pop("torch_dtype", None), values.pop("dtype", None)
        dtype = older or dtype
        self.dtype: torch.dtype | None = as_dtype(dtype) if dtype is not None else None
        vars(self).update(values)
        self.codec_config = _codec_config(codec_config)
        self.frame_size = self.codec_config.frame_size

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """This config itself: its numbers are the decoder's."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """All values, with `model_type`."""
        values = {**super().to_dict(), "model_type": self.model_type}
        if self.dtype is None:
            values.pop("dtype")
        return values

    @property
    def pad_hides_an_id(self) -> bool:
        """Whether `audio_pad_token_id` is a text id or a code as well, which then adds nothing."""
        return 0 <= self.audio_pad_token_id < max(self.vocab_size, self.codebook_vocab_size)

    def settle_pad(self) -> None:
        """If the pad hides an id, use the last row of the table as the pad, with a warning.

        The value in a checkpoint's file is corrected in the same way.
        """
        if self.pad_hides_an_id:
            stated = self.audio_pad_token_id
            self.audio_pad_token_id = (
                self.vocab_size + self.num_codebooks * self.codebook_vocab_size
            )
            warnings.warn(
                f"audio_pad_token_id is {stated}, {self.audio_pad_token_id} is used: the padding "
                "row is the last row of the table; the stated one belongs to a text id or a code",
                CorrectedValue,
                stacklevel=3,
            )

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        theta = rope_theta({"rope_parameters": self.rope_parameters})
        return DECODER_THETA if theta is None else theta

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """The config of a checkpoint of any layout, with its known errors corrected.

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
        if files.model_config is None:
            raise CheckpointError(f"{files.place.name} is not a checkpoint: config.json is missing")
        changes = known_arguments(kwargs, cls.value_names() | files.config.keys())
        return cls.from_model_config(files.model_config, files.config, keep=changes)

    @classmethod
    def value_names(cls) -> frozenset[str]:
        """Names of all values that the class knows, older spellings too."""
        return frozenset(cls().to_dict()) | _MORE_NAMES

    @classmethod
    def from_model_config(
        cls,
        config: ModelConfig,
        stored: Mapping[str, Any] | None = None,
        *,
        keep: Mapping[str, Any] | None = None,
    ) -> Self:
        """From kiku's own config.

        Args:
            config: the numbers that count.
            stored: further values from the checkpoint's file. Where both have a value, `config`
                wins, except for values that only transformers uses (`bos_token_id`,
                `eos_token_id`, `max_position_embeddings`).
            keep: values that win over both.
        """
        stored, keep = dict(stored or {}), dict(keep or {})
        # The word-start id belongs to the tokenizer; this config has no field for it.
        values = write_transformers(replace(config, word_start_id=WORD_START_ID))
        codec = {**(stored.pop("codec_config", None) or {}), **values.pop("codec_config")}
        for key in ("rope_theta", "rope_scaling"):
            for place in (codec, values, stored):
                place.pop(key, None)
        for key in ("bos_token_id", "eos_token_id", "max_position_embeddings", "architectures"):
            if stored:
                values.pop(key)
        if keep.keys() & {"rope_theta", "rope_scaling"}:  # older spellings of `rope_parameters`
            values.pop("rope_parameters")
            stored.pop("rope_parameters", None)
        return cls(**{"codec_config": codec, **stored, **values, **keep})

    def to_model_config(
        self, *, text_delay_s: float = 0.0, silence_prefix_s: float = 0.0
    ) -> ModelConfig:
        """The same numbers as kiku's `ModelConfig`.

        A start id that is no text id (the published 48000, or None) becomes the id after the last
        that can be emitted, which the native models start with.

        Args:
            text_delay_s: seconds by which text lags sound; transformers keeps this with the
                feature extractor.
            silence_prefix_s: seconds of silence that the model needs before the sound; kept there
                as well.

        Raises:
            UnsupportedConfig: a value that kiku does not build.
        """
        values = self.to_dict()
        filler = values["vocab_size"] - 1
        bos = values["bos_token_id"]
        starts_at_filler = bos is None or not 0 <= bos < filler
        if starts_at_filler:
            values["bos_token_id"] = filler
        preprocessor = {
            "audio_delay_seconds": text_delay_s,
            "audio_silence_prefix_seconds": silence_prefix_s,
        }
        return read_transformers(values, preprocessor, last_head_row_is_zero=starts_at_filler)


def _settle_theta(values: dict[str, Any], default: float) -> None:
    """Replace either spelling of theta by that of transformers 5, in place."""
    theta = rope_theta(values)
    values.pop("rope_theta", None)
    values.pop("rope_scaling", None)
    values["rope_parameters"] = {
        "rope_theta": default if theta is None else theta,
        "rope_type": "default",
    }


def _codec_config(given: Any) -> MimiConfig:
    if isinstance(given, MimiConfig):
        return given
    values = given.to_dict() if hasattr(given, "to_dict") else dict(given or {})
    if values.get("model_type", "mimi") != "mimi":
        raise UnsupportedConfig(
            f"codec_config is of type {values['model_type']!r}; kiku builds 'mimi'"
        )
    return MimiConfig(**values)
