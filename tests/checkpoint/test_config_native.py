"""Kyutai's config.json and moshi's description of a codec, read and written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.checkpoint.config_native import (
    read_native,
    read_native_codec,
    write_native,
    write_native_codec,
)
from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig
from kiku.errors import ConfigError, UnsupportedConfig
from tests.checkpoint.models import one_b, two_b


def _published(**changes: Any) -> dict[str, Any]:
    """config.json of the published checkpoints, key by key."""
    return {
        "card": 2048, "n_q": 32, "dep_q": 0, "delays": [0] * 33, "dim": 2048,
        "existing_text_padding_id": 3, "hidden_scale": 4.125, "causal": True, "layer_scale": None,
        "max_period": 100000.0, "gating": "silu", "norm": "rms_norm_f32",
        "positional_embedding": "rope", "depformer_dim": 1024, "depformer_num_heads": 16,
        "depformer_num_layers": 6, "depformer_dim_feedforward": None,
        "depformer_multi_linear": True, "depformer_pos_emb": "none",
        "depformer_weights_per_step": True, "conditioners": {}, "cross_attention": False,
        "model_id": {"sig": "x", "epoch": 1}, "model_type": "stt", "mimi_name": "m",
        "lm_gen_config": {"temp": 0, "temp_text": 0, "top_k": 250, "top_k_text": 50},
        "tokenizer_name": "t", **changes,
    }  # fmt: skip


def _timing(delay_s: float, prefix_s: float) -> dict[str, float]:
    return {"audio_delay_seconds": delay_s, "audio_silence_prefix_seconds": prefix_s}


def test_the_published_1b() -> None:
    config = _published(
        num_layers=16, num_heads=16, context=750, text_card=8000, stt_config=_timing(0.5, 0.0)
    )
    assert read_native(config, None, num_pause_heads=0) == one_b()
    assert read_native(config, None, num_pause_heads=4) == one_b(num_pause_heads=4)
    candle = {**config, "extra_heads_num_heads": 4, "extra_heads_dim": 6}
    assert read_native(candle, None, num_pause_heads=0) == one_b(num_pause_heads=4)


def test_the_published_2_6b() -> None:
    config = _published(
        num_layers=48, num_heads=32, context=375, text_card=4000, stt_config=_timing(2.5, 1.0),
        fuser=None,
    )  # fmt: skip
    assert read_native(config, None, num_pause_heads=0) == two_b()


def test_without_stt_config_the_values_of_kyutais_scripts_count() -> None:
    config = _published(num_layers=2, num_heads=16, context=10, text_card=50)
    read = read_native(config, None, num_pause_heads=0)
    assert (read.text_delay_s, read.silence_prefix_s) == (5.0, 1.0)


def test_the_published_codec_is_what_moshi_says_it_is() -> None:
    from moshi.models import loaders

    assert read_native_codec(loaders._mimi_config) == CodecConfig()
    ours = write_native_codec(CodecConfig())
    for section, values in loaders._mimi_config.items():
        if isinstance(values, dict):
            assert {**values, **ours[section]} == {**ours[section], **values}
        else:
            assert ours[section] == values


@settings(deadline=None, max_examples=100)
@given(dim=st.integers(2, 600), ffn_dim=st.integers(1, 2000))
def test_what_is_written_is_read_back(dim: int, ffn_dim: int) -> None:
    """`hidden_scale` is all that the file has to say about the width of the feed-forward."""
    config = _model(2 * dim, ffn_dim)
    try:
        values = write_native(config, mimi_name="m", tokenizer_name="t")
    except UnsupportedConfig as e:
        assert "feed-forward width" in str(e)  # noqa: PT017
        return
    codec = read_native_codec(write_native_codec(config.codec))
    assert read_native(values, codec, num_pause_heads=0) == config


def _model(dim: int, ffn_dim: int) -> ModelConfig:
    backbone = TransformerConfig(
        dim=dim, num_layers=2, num_heads=1, ffn_dim=ffn_dim, window=9, rope_theta=5e4, norm="rms",
        norm_eps=1e-8, gated=True, layer_scale=False,
    )  # fmt: skip
    lm = LMConfig(transformer=backbone, text_vocab_size=30, num_codebooks=5, codebook_size=64)
    codec = CodecConfig(strides=(4, 8), num_codebooks=5, codebook_size=64, num_filters=4)
    return ModelConfig(codec, lm, text_delay_s=0.25, silence_prefix_s=0.5, pad_id=2)


def test_every_even_width_can_be_written() -> None:
    for ffn_dim in range(2, 2000, 2):
        config = _model(512, ffn_dim)
        assert "hidden_scale" in write_native(config, mimi_name="m", tokenizer_name="t")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("seanet", "pad_mode", "reflect"),
        ("transformer", "gating", "silu"),
        ("seanet", "dimension", 99),
    ],
)
def test_codecs_that_kiku_does_not_build(section: str, key: str, value: Any) -> None:
    codec = write_native_codec(CodecConfig())
    codec[section][key] = value
    with pytest.raises(UnsupportedConfig):
        read_native_codec(codec)


def test_a_codec_that_lacks_something() -> None:
    codec = write_native_codec(CodecConfig())
    del codec["transformer"]["context"]
    with pytest.raises(ConfigError, match="'context'"):
        read_native_codec(codec)
    with pytest.raises(ConfigError, match="'seanet'"):
        read_native_codec({})
