"""A layout says all numbers of a config, or refuses it: none is lost in saving."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kiku.checkpoint.config_native import (
    read_native,
    read_native_codec,
    write_native,
    write_native_codec,
)
from kiku.checkpoint.config_transformers import (
    filled,
    read_transformers,
    write_preprocessor,
    write_transformers,
)
from kiku.config import ModelConfig
from kiku.errors import ConfigError, UnsupportedConfig
from tests import tiny

BACKBONE: dict[str, list[Any]] = {
    "dim": [32, 64, 48], "num_layers": [3], "num_heads": [1, 4], "ffn_dim": [44, 41, 84],
    "window": [7], "rope_theta": [5e3, 1e4], "norm": ["layer", "rms"], "norm_eps": [1e-3, 1e-8],
    "gated": [True, False], "layer_scale": [True, False], "positions_per_frame": [1, 2, 3],
    "head_dim": [2, 8, 16],
}  # fmt: skip
CODEC: dict[str, list[Any]] = {
    "sample_rate": [900, 24_000], "num_filters": [3], "strides": [(4,), (3, 5, 2)],
    "kernel_size": [5], "last_kernel_size": [1], "residual_kernel_size": [5],
    "num_residual_layers": [0, 2], "dilation_growth": [3], "compress": [1], "num_codebooks": [7],
    "num_semantic": [2, 3], "codebook_size": [9], "codebook_dim": [32, 16],
    "project_latents": [True, False],
}  # fmt: skip
DECODER: dict[str, list[Any]] = {
    "text_vocab_size": [11, 30], "initial_text_id": [-1, 0, 5, 19, 40], "num_codebooks": [3],
    "codebook_size": [17, 99], "num_pause_heads": [0, 2], "pause_classes": [6, 3],
}  # fmt: skip
MODEL: dict[str, list[Any]] = {
    "text_delay_s": [0.0, 2.5], "silence_prefix_s": [1.0], "pad_id": [0, 5],
    "word_start_id": [2, 3],
}  # fmt: skip


def _changes(draw: st.DrawFn, values: dict[str, list[Any]]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(values)), max_size=2, unique=True))
    return {name: draw(st.sampled_from(values[name])) for name in names}


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """The tiny model with some other numbers."""
    config = tiny.model_config()
    try:
        codec = replace(
            config.codec,
            transformer=replace(config.codec.transformer, **_changes(draw, BACKBONE)),
            **_changes(draw, CODEC),
        )
        lm = replace(
            config.lm,
            transformer=replace(config.lm.transformer, **_changes(draw, BACKBONE)),
            **_changes(draw, DECODER),
        )
        return replace(config, codec=codec, lm=lm, **_changes(draw, MODEL))
    except ConfigError:
        assume(False)
        raise


def native(config: ModelConfig) -> ModelConfig:
    """Written in Kyutai's layout and read."""
    values = write_native(config, mimi_name="m", tokenizer_name="t")
    codec = read_native_codec(write_native_codec(config.codec))
    return read_native(values, codec, num_pause_heads=0)


def transformers(config: ModelConfig) -> ModelConfig:
    """Written in transformers' layout and read."""
    filler = config.lm.text_rows > config.lm.text_vocab_size
    values, sound = write_transformers(config), write_preprocessor(config)
    return read_transformers(filled(values), sound, last_head_row_is_zero=filler)


def without_heads(config: ModelConfig) -> ModelConfig:
    return replace(config, lm=replace(config.lm, num_pause_heads=0, pause_classes=6))


@settings(deadline=None, max_examples=300)
@given(config=configs())
def test_what_is_written_is_read_back_or_refused(config: ModelConfig) -> None:
    for layout in (transformers, native):
        try:
            found = layout(config)
        except UnsupportedConfig:
            continue
        if layout is transformers or not config.lm.num_pause_heads:
            config = without_heads(config)
        if layout is native:  # its tensors say this id (see test_saving)
            config = replace(config, lm=replace(config.lm, initial_text_id=-1))
        assert found == config


def _codec(**changes: Any) -> ModelConfig:
    config = tiny.model_config()
    inner = replace(config.codec.transformer, **changes)
    return replace(config, codec=replace(config.codec, transformer=inner))


def test_what_can_be_said_is_not_refused() -> None:
    config = without_heads(tiny.model_config())
    assert native(config) == transformers(config) == config
    assert native(replace(config, word_start_id=2)).word_start_id == 2
    assert transformers(_codec(norm_eps=1e-3)).codec.transformer.norm_eps == 1e-3
    assert transformers(_codec(head_dim=8)).codec.transformer.head_dim == 8


def test_what_a_layout_cannot_say_is_named() -> None:
    with pytest.raises(UnsupportedConfig, match="cannot store word_start_id = 2"):
        write_transformers(replace(tiny.model_config(), word_start_id=2))
    with pytest.raises(UnsupportedConfig, match=r"cannot store transformer\.norm_eps = 0\.001"):
        write_native_codec(_codec(norm_eps=1e-3).codec)
    with pytest.raises(UnsupportedConfig, match=r"cannot store transformer\.head_dim = 8"):
        write_native_codec(_codec(head_dim=8).codec)
