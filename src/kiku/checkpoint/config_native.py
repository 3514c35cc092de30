"""Kyutai's config.json, and moshi's description of a codec, to and from kiku's configs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kiku.checkpoint.supported import Supported, check_lossless, check_supported
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig, exact_div
from kiku.errors import ConfigError, UnsupportedConfig

_LAYOUT = "Kyutai's layout"

# Values that moshi uses for keys that config.json lacks (except sampling and training keys).
_DEFAULTS: dict[str, Any] = {
    "existing_text_padding_id": 3,
    "existing_text_end_padding_id": 0,
    "extra_heads_num_heads": 0,
    "extra_heads_dim": 6,
    "max_period": 10_000.0,
    "hidden_scale": 4,
}

# Keys of which another value would mean another network, and the values that kiku builds.
_SUPPORTED: Supported = {
    "dep_q": (0,),
    "causal": (True,),
    "layer_scale": (None,),
    "gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "positional_embedding": ("rope",),
    "cross_attention": (False,),
    "conditioners": ({}, None),
    "fuser": (None,),
    "quantize": (False,),
    "lora": (False,),
    "norm_emb": (False,),
    "bias_proj": (False,),
    "demux_second_text_stream": (False,),
    "demux_second_stream": (False,),
    "shared_emb": (False,),
}

_NEEDED = ("card", "n_q", "dim", "num_heads", "num_layers", "text_card", "dep_q", "context")

# Keys that do not affect the network that kiku builds.
_FREE = frozenset({
    "model_type", "model_id", "moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name",
    "lm_gen_config", "tts_config", "stt_config",
    "delays", "text_card_out", "text_padding_token_id", "same_initial",
    "gradient_checkpointing", "lora_name", "lora_rank", "lora_scaling",
})  # fmt: skip

_DELAY_S, _PREFIX_S = 5.0, 1.0  # what Kyutai's scripts use where there is no stt_config

_CODEC_SUPPORTED: dict[str, Supported] = {
    "seanet": {
        "channels": (1,),
        "causal": (True,),
        "activation": ("ELU",),
        "norm": ("none",),
        "pad_mode": ("constant",),
        "true_skip": (True,),
    },
    "quantizer": {},
    "transformer": {
        "causal": (True,),
        "gating": ("none",),
        "norm": ("layer_norm",),
        "positional_embedding": ("rope",),
        "conv_layout": (True,),
    },
}


def read_native(
    config: Mapping[str, Any], codec: CodecConfig | None, *, num_pause_heads: int
) -> ModelConfig:
    """ModelConfig of a checkpoint in Kyutai's layout.

    Args:
        config: config.json, already corrected.
        codec: from the file of `mimi_config_name`; None is the published codec.
        num_pause_heads: heads found among the tensors; they count where config.json does not say.

    Raises:
        ConfigError: a key is missing, or a number is impossible.
        UnsupportedConfig: a key or a value that kiku does not build.
    """
    _check_decoder(config)
    values = {**_DEFAULTS, **config}
    lm = LMConfig(
        transformer=TransformerConfig(
            dim=values["dim"],
            num_layers=values["num_layers"],
            num_heads=values["num_heads"],
            ffn_dim=_gated_width(int(values["hidden_scale"] * values["dim"]), values["dim"]),
            window=values["context"],
            rope_theta=float(values["max_period"]),
            norm="rms",
            norm_eps=1e-8,
            gated=True,
            layer_scale=False,
        ),
        text_vocab_size=values["text_card"],
        num_codebooks=values["n_q"],
        codebook_size=values["card"],
        num_pause_heads=values["extra_heads_num_heads"] or num_pause_heads,
        pause_classes=values["extra_heads_dim"],
    )
    stt: Mapping[str, Any] = config.get("stt_config") or {}
    return ModelConfig(
        codec=codec or CodecConfig(),
        lm=lm,
        text_delay_s=float(stt.get("audio_delay_seconds", _DELAY_S)),
        silence_prefix_s=float(stt.get("audio_silence_prefix_seconds", _PREFIX_S)),
        pad_id=values["existing_text_padding_id"],
        word_start_id=values["existing_text_end_padding_id"],
    )


def read_native_codec(codec: Mapping[str, Any]) -> CodecConfig:
    """CodecConfig of moshi's description of a codec (sections seanet, quantizer, transformer).

    Raises:
        ConfigError: a key is missing, or a number is impossible.
        UnsupportedConfig: a value that kiku does not build.
    """
    for section, supported in _CODEC_SUPPORTED.items():
        if section not in codec:
            raise ConfigError(f"the codec's description lacks {section!r}")
        check_supported(codec[section], supported, section)
    if codec["transformer"].get("layer_scale") is None:
        raise UnsupportedConfig(
            "transformer: a codec without layer_scale is not supported; kiku supports "
            "layer_scale = 0.01"
        )
    seanet, quantizer, transformer = codec["seanet"], codec["quantizer"], codec["transformer"]
    try:
        strides = tuple(reversed(seanet["ratios"]))
        samples_per_frame = round(codec["sample_rate"] / codec["frame_rate"])
        built = CodecConfig(
            transformer=TransformerConfig(
                dim=transformer["d_model"],
                num_layers=transformer["num_layers"],
                num_heads=transformer["num_heads"],
                ffn_dim=transformer["dim_feedforward"],
                window=transformer["context"],
                rope_theta=float(transformer["max_period"]),
                norm="layer",
                norm_eps=1e-5,
                gated=False,
                layer_scale=True,
                positions_per_frame=exact_div(
                    samples_per_frame, math.prod(strides), "latents per frame"
                ),
            ),
            sample_rate=codec["sample_rate"],
            num_filters=seanet["n_filters"],
            strides=strides,
            kernel_size=seanet["kernel_size"],
            last_kernel_size=seanet["last_kernel_size"],
            residual_kernel_size=seanet["residual_kernel_size"],
            num_residual_layers=seanet["n_residual_layers"],
            dilation_growth=seanet["dilation_base"],
            compress=seanet["compress"],
            num_codebooks=quantizer["n_q"],
            num_semantic=quantizer.get("n_q_semantic", 1),
            codebook_size=quantizer["bins"],
            codebook_dim=quantizer["dimension"],
        )
        widths = [
            seanet["dimension"], quantizer["input_dimension"], transformer["input_dimension"],
        ]  # fmt: skip
    except KeyError as e:
        raise ConfigError(f"the codec's description lacks {e.args[0]!r}") from e
    _check_widths(widths, built.latent_dim)
    return built


def _check_widths(widths: Sequence[int], latent_dim: int) -> None:
    """Raise UnsupportedConfig if the parts of a codec have latents of different widths."""
    if any(width != latent_dim for width in widths):
        raise UnsupportedConfig(
            f"the widths of seanet, quantizer and transformer differ: {widths} with d_model "
            f"{latent_dim}"
        )


def write_native(config: ModelConfig, *, mimi_name: str, tokenizer_name: str) -> dict[str, Any]:
    """config.json in Kyutai's layout; `mimi_config_name` is added where the codec is not the
    published one.

    Raises:
        UnsupportedConfig: a model that the layout cannot describe.
    """
    lm = config.lm
    t = lm.transformer
    values: dict[str, Any] = {
        "model_type": "stt",
        "mimi_name": mimi_name,
        "tokenizer_name": tokenizer_name,
        "card": lm.codebook_size,
        "n_q": lm.num_codebooks,
        "dep_q": 0,
        "delays": [0] * (lm.num_codebooks + 1),
        "dim": t.dim,
        "text_card": lm.text_vocab_size,
        "existing_text_padding_id": config.pad_id,
        "num_heads": t.num_heads,
        "num_layers": t.num_layers,
        "hidden_scale": _hidden_scale(t.ffn_dim, t.dim),
        "causal": True,
        "layer_scale": None,
        "context": t.window,
        "max_period": t.rope_theta,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "conditioners": {},
        "cross_attention": False,
        # without it moshi asks for a tensor of the part that makes sound, though there is none
        "depformer_multi_linear": True,
        "lm_gen_config": {"temp": 0.0, "temp_text": 0.0},
        "stt_config": {
            "audio_delay_seconds": config.text_delay_s,
            "audio_silence_prefix_seconds": config.silence_prefix_s,
        },
    }
    if config.word_start_id != _DEFAULTS["existing_text_end_padding_id"]:
        values["existing_text_end_padding_id"] = config.word_start_id
    if lm.num_pause_heads:
        values["extra_heads_num_heads"] = lm.num_pause_heads
        values["extra_heads_dim"] = lm.pause_classes
    if config.codec != CodecConfig():
        values["mimi_config_name"] = "mimi_config.json"
    # The tensors determine the start id: its row is the last one of the table there.
    left_out = ["lm.initial_text_id"]
    if not lm.num_pause_heads:
        left_out.append("lm.pause_classes")
    check_lossless(
        _LAYOUT,
        config,
        lambda: read_native(values, config.codec, num_pause_heads=lm.num_pause_heads),
        left_out=left_out,
    )
    return values


def write_native_codec(codec: CodecConfig) -> dict[str, Any]:
    """What moshi's `get_mimi` takes as `mimi_config`, JSON-ready.

    Raises:
        UnsupportedConfig: a codec that it cannot describe, such as a quantiser without
            projections, which moshi always has.
    """
    t, width = codec.transformer, codec.latent_dim
    values: dict[str, Any] = {
        "sample_rate": codec.sample_rate,
        "frame_rate": codec.frame_rate,
        "channels": 1,
        "seanet": {
            "channels": 1,
            "dimension": width,
            "causal": True,
            "n_filters": codec.num_filters,
            "n_residual_layers": codec.num_residual_layers,
            "activation": "ELU",
            "compress": codec.compress,
            "dilation_base": codec.dilation_growth,
            "disable_norm_outer_blocks": 0,
            "kernel_size": codec.kernel_size,
            "residual_kernel_size": codec.residual_kernel_size,
            "last_kernel_size": codec.last_kernel_size,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": list(reversed(codec.strides)),
            "true_skip": True,
        },
        "quantizer": {
            "dimension": codec.codebook_dim,
            "n_q": codec.num_codebooks,
            "n_q_semantic": codec.num_semantic,
            "bins": codec.codebook_size,
            "input_dimension": width,
            "output_dimension": width,
        },
        "transformer": {
            "d_model": t.dim,
            "num_heads": t.num_heads,
            "num_layers": t.num_layers,
            "causal": True,
            "layer_scale": 0.01 if t.layer_scale else None,
            "context": t.window,
            "conv_layout": True,
            "max_period": t.rope_theta,
            "gating": "none",
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "dim_feedforward": t.ffn_dim,
            "input_dimension": width,
            "output_dimensions": [width],
        },
    }
    check_lossless(_LAYOUT, codec, lambda: read_native_codec(values))
    return values


def _check_decoder(config: Mapping[str, Any]) -> None:
    missing = [key for key in _NEEDED if key not in config]
    if missing:
        raise ConfigError(f"it lacks {', '.join(missing)}")
    known = _FREE | _SUPPORTED.keys() | _DEFAULTS.keys() | set(_NEEDED)
    unknown = [key for key in config if key not in known and not key.startswith("depformer_")]
    if unknown:
        raise UnsupportedConfig(
            f"it has keys that kiku does not know: {', '.join(sorted(unknown))}"
        )
    check_supported(config, _SUPPORTED)
    if any(config.get("delays", ())):
        raise UnsupportedConfig(
            f"delays must all be 0 in a speech-to-text model, not {config['delays']}"
        )
    if config.get("text_card_out") not in (None, config["text_card"]):
        raise UnsupportedConfig(
            f"text_card_out {config['text_card_out']} differs from text_card {config['text_card']}"
        )


def _gated_width(dim_feedforward: int, dim: int) -> int:
    """Width of one half of moshi's gated feed-forward."""
    return 21 * dim // 8 if dim_feedforward == 4 * dim else 2 * dim_feedforward // 3


def _hidden_scale(ffn_dim: int, dim: int) -> float:
    """The `hidden_scale` from which moshi derives `ffn_dim` (4.125 for 5,632 of 2,048)."""
    for dim_feedforward in (4 * dim, (3 * ffn_dim + 1) // 2, (3 * ffn_dim + 1) // 2 + 1):
        if _gated_width(dim_feedforward, dim) == ffn_dim:
            scale = dim_feedforward / dim
            # moshi truncates scale * dim, which may fall just short of the whole number
            return scale if int(scale * dim) == dim_feedforward else math.nextafter(scale, math.inf)
    raise UnsupportedConfig(
        f"Kyutai's layout cannot store a feed-forward width of {ffn_dim} with dim {dim}"
    )
