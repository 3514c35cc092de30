"""transformers' config.json (`KyutaiSpeechToTextConfig`) and preprocessor file, to and from kiku's
configs.
"""

from collections.abc import Mapping
from typing import Any

from kiku.checkpoint.supported import Supported, check_lossless, check_supported
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.errors import ConfigError, UnsupportedConfig

DEFAULTS: dict[str, Any] = {
    "vocab_size": 4001,
    "codebook_vocab_size": 2049,
    "num_codebooks": 32,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 750,
    "sliding_window": 375,
    "hidden_act": "silu",
    "ffn_dim": 11264,
    "rms_norm_eps": 1e-8,
    "tie_word_embeddings": False,
    "audio_bos_token_id": 2048,
    "audio_pad_token_id": 69569,
    "pad_token_id": 3,
    "bos_token_id": 48000,
}
"""Values of `KyutaiSpeechToTextConfig` for the keys that a file leaves out."""

CODEC_DEFAULTS: dict[str, Any] = {
    "sampling_rate": 24_000,
    "audio_channels": 1,
    "hidden_size": 512,
    "num_filters": 64,
    "num_residual_layers": 1,
    "upsampling_ratios": (8, 6, 5, 4),
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_growth_rate": 2,
    "use_causal_conv": True,
    "use_conv_shortcut": False,
    "pad_mode": "constant",
    "compress": 2,
    "codebook_size": 2048,
    "codebook_dim": 256,
    "vector_quantization_hidden_dimension": 256,
    "num_quantizers": 32,
    "num_semantic_quantizers": 1,
    "num_hidden_layers": 8,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "sliding_window": 250,
    "attention_bias": False,
}
"""Values of `MimiConfig` for the keys that a file leaves out."""

DECODER_THETA = 100_000.0
"""Base of the decoder's rotary frequencies in every published model. Where a file does not state
it, transformers 4 uses this too; transformers 5 uses 10,000."""

CODEC_THETA = CodecConfig().transformer.rope_theta
"""Base of the codec's rotary frequencies, which both versions use where a file lacks it."""

_LAYOUT = "transformers' layout"

_LATENTS_PER_FRAME = 2  # MimiConfig has no key for it

_SUPPORTED: Supported = {"hidden_act": ("silu",), "tie_word_embeddings": (False,)}
_CODEC_SUPPORTED: Supported = {
    "audio_channels": (1,),
    "use_causal_conv": (True,),
    "pad_mode": ("constant",),
    "use_conv_shortcut": (False,),
    "hidden_act": ("gelu",),
    "attention_bias": (False,),
}


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the class defaults for what is left out, and the rope spelling of 4.x turned
    into that of 5.x.

    `rope_parameters` stays absent where the file has no theta in either spelling: transformers 4
    and 5 disagree about it, which is a matter for `corrections`.
    """
    values = {**DEFAULTS, **config}
    theta = rope_theta(config)
    values["rope_parameters"] = (
        None if theta is None else {"rope_type": "default", "rope_theta": theta}
    )
    return values


def rope_theta(config: Mapping[str, Any]) -> float | None:
    """The base of the rotary frequencies in either spelling, None where the file has neither.

    Raises:
        UnsupportedConfig: positions that are scaled, or partly rotated.
    """
    rope: Mapping[str, Any] = config.get("rope_parameters") or {}
    scaling: Mapping[str, Any] = config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or scaling.get("rope_type") or scaling.get("type") or "default"
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedConfig(
            f"rotary positions of type {kind!r} are not supported, only 'default'"
        )
    theta = rope.get("rope_theta", config.get("rope_theta"))
    return None if theta is None else float(theta)


def read_transformers(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], *, last_head_row_is_zero: bool
) -> ModelConfig:
    """ModelConfig of a checkpoint in transformers' layout.

    Args:
        config: config.json, `filled` and corrected.
        preprocessor: the feature extractor's values, corrected; delay and prefix are 0 where it
            lacks them, as in transformers.
        last_head_row_is_zero: whether the last row of lm_head is a filler for the start id, as the
            conversion of the published checkpoints leaves it. If not, it is a text id like the
            others.

    Raises:
        ConfigError: impossible numbers.
        UnsupportedConfig: a value that kiku does not build.
    """
    codec = read_transformers_codec(config.get("codec_config") or {})
    _check_decoder(config, codec)
    vocab_size, pad_id = config["vocab_size"], config["pad_token_id"]
    theta = rope_theta(config)
    lm = LMConfig(
        transformer=TransformerConfig(
            dim=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            ffn_dim=config["ffn_dim"] // 2,
            window=config["sliding_window"],
            rope_theta=DECODER_THETA if theta is None else theta,
            norm="rms",
            norm_eps=config["rms_norm_eps"],
            gated=True,
            layer_scale=False,
            head_dim=config["head_dim"] or 0,
        ),
        text_vocab_size=vocab_size - 1 if last_head_row_is_zero else vocab_size,
        initial_text_id=config["bos_token_id"],
        num_codebooks=config["num_codebooks"],
        codebook_size=config["codebook_vocab_size"] - 1,
    )
    if lm.text_rows != vocab_size:
        raise ConfigError(
            f"bos_token_id {config['bos_token_id']} is not below vocab_size {vocab_size}"
        )
    return ModelConfig(
        codec=codec,
        lm=lm,
        text_delay_s=float(preprocessor.get("audio_delay_seconds", 0.0)),
        silence_prefix_s=float(preprocessor.get("audio_silence_prefix_seconds", 0.0)),
        pad_id=DEFAULTS["pad_token_id"] if pad_id is None else pad_id,
    )


def read_transformers_codec(config: Mapping[str, Any]) -> CodecConfig:
    """CodecConfig of a `MimiConfig`'s values.

    Raises:
        UnsupportedConfig: a value that kiku does not build.
    """
    values = {**CODEC_DEFAULTS, **config}
    check_supported(values, _CODEC_SUPPORTED, "codec_config")
    width = values["hidden_size"]
    codebook_dim = values["codebook_dim"] or width
    if codebook_dim != values["vector_quantization_hidden_dimension"]:
        raise UnsupportedConfig(
            "codec_config: codebook_dim and vector_quantization_hidden_dimension differ"
        )
    if values["num_key_value_heads"] not in (None, values["num_attention_heads"]):
        raise UnsupportedConfig(
            "codec_config: num_key_value_heads differs from num_attention_heads"
        )
    theta = rope_theta(config)
    codec = CodecConfig(
        transformer=TransformerConfig(
            dim=width,
            num_layers=values["num_hidden_layers"],
            num_heads=values["num_attention_heads"],
            ffn_dim=values["intermediate_size"],
            window=values["sliding_window"],
            rope_theta=CODEC_THETA if theta is None else theta,
            norm="layer",
            norm_eps=values["norm_eps"],
            gated=False,
            layer_scale=True,
            positions_per_frame=_LATENTS_PER_FRAME,
            head_dim=values["head_dim"] or 0,
        ),
        sample_rate=values["sampling_rate"],
        num_filters=values["num_filters"],
        strides=tuple(reversed(values["upsampling_ratios"] or CODEC_DEFAULTS["upsampling_ratios"])),
        kernel_size=values["kernel_size"],
        last_kernel_size=values["last_kernel_size"],
        residual_kernel_size=values["residual_kernel_size"],
        num_residual_layers=values["num_residual_layers"],
        dilation_growth=values["dilation_growth_rate"],
        compress=values["compress"],
        num_codebooks=values["num_quantizers"],
        num_semantic=values["num_semantic_quantizers"],
        codebook_size=values["codebook_size"],
        codebook_dim=codebook_dim,
        project_latents=codebook_dim != width,
    )
    stated = values.get("frame_rate")
    if stated is not None and abs(stated - codec.frame_rate) > 1e-6:
        raise UnsupportedConfig(
            f"codec_config: frame_rate {stated} is not {codec.frame_rate}, which its strides give"
        )
    return codec


def write_transformers(config: ModelConfig) -> dict[str, Any]:
    """config.json in transformers' layout. Pause heads have no place there.

    Raises:
        UnsupportedConfig: a model that the layout cannot describe.
    """
    lm, t = config.lm, config.lm.transformer
    code_rows = lm.codebook_size + 1
    values: dict[str, Any] = {
        "architectures": ["KyutaiSpeechToTextForConditionalGeneration"],
        "model_type": "kyutai_speech_to_text",
        "vocab_size": lm.text_rows,
        "codebook_vocab_size": code_rows,
        "num_codebooks": lm.num_codebooks,
        "hidden_size": t.dim,
        "num_hidden_layers": t.num_layers,
        "num_attention_heads": t.num_heads,
        "num_key_value_heads": t.num_heads,
        "head_dim": t.head_dim,
        "max_position_embeddings": t.window,
        "sliding_window": t.window,
        "hidden_act": "silu",
        "ffn_dim": 2 * t.ffn_dim,
        "rms_norm_eps": t.norm_eps,
        "tie_word_embeddings": False,
        "audio_bos_token_id": lm.initial_code,
        "audio_pad_token_id": lm.text_rows + lm.num_codebooks * code_rows,
        "pad_token_id": config.pad_id,
        "bos_token_id": lm.initial_text_id,
        "eos_token_id": None,
        **_write_theta(t.rope_theta),
        "codec_config": write_transformers_codec(config.codec),
    }
    check_lossless(
        _LAYOUT,
        config,
        lambda: read_transformers(
            values,
            write_preprocessor(config),
            last_head_row_is_zero=lm.text_rows > lm.text_vocab_size,
        ),
        left_out=("lm.num_pause_heads", "lm.pause_classes"),
    )
    return values


def write_transformers_codec(codec: CodecConfig) -> dict[str, Any]:
    """A `MimiConfig`'s values.

    Raises:
        UnsupportedConfig: a codec that `MimiConfig` cannot describe.
    """
    t = codec.transformer
    if codec.project_latents and codec.codebook_dim == codec.latent_dim:
        raise UnsupportedConfig(
            f"{_LAYOUT} cannot store a projection of the latents to their own width"
        )
    values: dict[str, Any] = {
        "model_type": "mimi",
        "sampling_rate": codec.sample_rate,
        "audio_channels": 1,
        "hidden_size": codec.latent_dim,
        "num_filters": codec.num_filters,
        "num_residual_layers": codec.num_residual_layers,
        "upsampling_ratios": list(reversed(codec.strides)),
        "kernel_size": codec.kernel_size,
        "last_kernel_size": codec.last_kernel_size,
        "residual_kernel_size": codec.residual_kernel_size,
        "dilation_growth_rate": codec.dilation_growth,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "pad_mode": "constant",
        "compress": codec.compress,
        "codebook_size": codec.codebook_size,
        "codebook_dim": codec.codebook_dim,
        "vector_quantization_hidden_dimension": codec.codebook_dim,
        "num_quantizers": codec.num_codebooks,
        "num_semantic_quantizers": codec.num_semantic,
        "upsample_groups": codec.latent_dim,
        "num_hidden_layers": t.num_layers,
        "intermediate_size": t.ffn_dim,
        "num_attention_heads": t.num_heads,
        "num_key_value_heads": t.num_heads,
        "head_dim": t.head_dim,
        "hidden_act": "gelu",
        "norm_eps": t.norm_eps,
        "sliding_window": t.window,
        "attention_bias": False,
        **_write_theta(t.rope_theta),
    }
    check_lossless(_LAYOUT, codec, lambda: read_transformers_codec(values))
    return values


def write_preprocessor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json: the feature extractor's values."""
    return {
        "feature_extractor_type": "KyutaiSpeechToTextFeatureExtractor",
        "processor_class": "KyutaiSpeechToTextProcessor",
        "feature_size": 1,
        "sampling_rate": config.sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "chunk_length_s": None,
        "overlap": None,
        "audio_delay_seconds": config.text_delay_s,
        "audio_silence_prefix_seconds": config.silence_prefix_s,
    }


def _write_theta(theta: float) -> dict[str, Any]:
    """The base in both spellings: transformers 4 reads the first, 5 the second."""
    return {
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def _check_decoder(config: Mapping[str, Any], codec: CodecConfig) -> None:
    check_supported(config, _SUPPORTED)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if kv_heads not in (None, heads):
        raise UnsupportedConfig(
            f"num_key_value_heads {kv_heads} differs from num_attention_heads {heads}"
        )
    if config["ffn_dim"] % 2:
        raise ConfigError(f"ffn_dim must be even, not {config['ffn_dim']}")
    code_rows, initial = config["codebook_vocab_size"], config["audio_bos_token_id"]
    if code_rows <= codec.codebook_size or initial != code_rows - 1:
        raise UnsupportedConfig(
            f"a codec of {codec.codebook_size} codes needs a codebook_vocab_size of at least "
            f"{codec.codebook_size + 1}, the last of which is audio_bos_token_id, not "
            f"{code_rows} and {initial}"
        )
