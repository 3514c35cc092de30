"""Configs are strict, and what follows from a number is derived, not repeated."""

from typing import Any

import pytest

from kiku.config import CodecConfig, LMConfig, ModelConfig, TransformerConfig, whole_frames
from kiku.errors import ConfigError, FrameError
from tests import tiny


def test_the_published_codec_has_frames_of_80_ms() -> None:
    codec = CodecConfig()
    assert (codec.hop, codec.frame_size, codec.frame_rate, codec.downsample) == (960, 1920, 12.5, 2)
    assert codec.latent_dim == 512


def test_a_config_comes_back_from_its_dict() -> None:
    config = tiny.model_config()
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_an_unknown_key_names_the_nearest() -> None:
    values = tiny.model_config().to_dict()
    values["text_dealy_s"] = 0.5
    with pytest.raises(ConfigError, match="'text_dealy_s'; did you mean 'text_delay_s'"):
        ModelConfig.from_dict(values)
    values = tiny.model_config().to_dict()
    values["lm"]["transformer"]["windows"] = 3
    with pytest.raises(
        ConfigError, match=r"there is no 'lm\.transformer\.windows'; did you mean 'window'"
    ):
        ModelConfig.from_dict(values)


def test_a_missing_key_is_named() -> None:
    values = tiny.model_config().to_dict()
    del values["text_delay_s"]
    with pytest.raises(ConfigError, match="text_delay_s is missing"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "head_dim: 32 is not a whole multiple of 3"),
        ({"window": 0}, "window must be at least 1"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"norm": "batch"}, "norm must be one of layer, rms, not 'batch'"),
        ({"dim": 32.0}, "dim must be a whole number, not 32.0"),
        ({"num_layers": True}, "num_layers must be a whole number, not True"),
        ({"window": None}, "window must be a whole number, not None"),
        ({"gated": 1}, "gated must be true or false, not 1"),
        ({"rope_theta": -1}, "rope_theta must be greater than 0, not -1"),
        ({"rope_theta": float("nan")}, "rope_theta must be a finite number, not nan"),
        ({"rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({"norm_eps": 0}, "norm_eps must be greater than 0"),
        ({"norm_eps": "small"}, "norm_eps must be a finite number, not 'small'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformerConfig.from_dict({**tiny.transformer().to_dict(), "head_dim": 0, **change})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("codec", {"sample_rate": 0}, "sample_rate must be at least 1, not 0"),
        ("codec", {"strides": [4, 2.5]}, r"codec.strides\[1\] must be a whole number, not 2.5"),
        ("codec", {"strides": 8}, "strides must be a list, not 8"),
        ("codec", {"transformer": None}, "transformer must be an object, not None"),
        ("codec", {"kernel_size": "7"}, "kernel_size must be a whole number, not '7'"),
        ("lm", {"text_vocab_size": 0}, "text_vocab_size must be at least 1, not 0"),
        ("lm", {"initial_text_id": -2}, "initial_text_id must be at least -1, not -2"),
        ("lm", {"num_pause_heads": 1.5}, "num_pause_heads must be a whole number, not 1.5"),
        (None, {"text_delay_s": float("inf")}, "text_delay_s must be a finite number, not inf"),
        (None, {"silence_prefix_s": -0.1}, "silence_prefix_s must be at least 0, not -0.1"),
        (None, {"pad_id": None}, "pad_id must be a whole number, not None"),
        (None, {"pad_id": 10**15}, r"pad_id must be at most \d+, not 1000"),
        (None, {"word_start_id": 10**400}, "not a whole number of 1329 bits"),
        (None, {"text_delay_s": 1e9}, "text_delay_s must be at most 600, not 1000000000.0"),
        (None, {"silence_prefix_s": 1e9}, "silence_prefix_s must be at most 600"),
        ("codec", {"strides": [10**6] * 1000}, "strides must give at most 1,000,000 samples"),
        ("codec", {"strides": [1] * 1001}, "strides must give at most"),
        ("codec", {"dilation_growth": 3, "num_residual_layers": 1000}, "dilates beyond 1,000,000"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    part: str | None, change: dict[str, object], message: str
) -> None:
    values = tiny.model_config().to_dict()
    (values if part is None else values[part]).update(change)
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 32.0}, "dim must be a whole number, not 32.0"),
        ({"window": True}, "window must be a whole number, not True"),
        ({"gated": 1}, "gated must be true or false, not 1"),
        ({"rope_theta": "10"}, "rope_theta must be a finite number, not '10'"),
        ({"rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({"norm": "batch"}, "norm must be 'layer' or 'rms', not 'batch'"),
        ({"window": 10**30}, r"window must be at most 100,000, not 10{30}$"),
        ({"window": 10**400}, r"not 10{39}\.\.\. \(401 digits\)$"),
    ],
)
def test_a_config_that_is_made_of_numbers_checks_them_too(
    change: dict[str, Any], message: str
) -> None:
    """As checkpoints do, whose own names were read before."""
    with pytest.raises(ConfigError, match=message):
        TransformerConfig(**{**tiny.transformer().to_dict(), **change})
    with pytest.raises(ConfigError, match=r"strides must be whole numbers, not \[4, 5\]"):
        CodecConfig(strides=[4, 5])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("part", ["codec", "lm"])
def test_no_number_of_a_thousand_million_passes(part: str) -> None:
    """Whatever would be made of it: a milliard of layers, or of bytes."""
    values = tiny.model_config().to_dict()
    for section in (values[part], values[part]["transformer"]):
        for name, value in list(section.items()):
            if isinstance(value, int) and not isinstance(value, bool):
                section[name] = 10**9
                with pytest.raises(ConfigError, match=f"{name} must be (at most|in 1..3)"):
                    ModelConfig.from_dict(values)
                section[name] = value
    assert ModelConfig.from_dict(values) == tiny.model_config()


def test_a_part_must_be_a_config() -> None:
    with pytest.raises(ConfigError, match="codec must be a CodecConfig, not None"):
        ModelConfig(codec=None, lm=tiny.lm_config(), text_delay_s=0.5)  # pyright: ignore[reportArgumentType]


def test_the_two_halves_must_fit() -> None:
    lm = LMConfig(
        transformer=tiny.transformer(), text_vocab_size=10, num_codebooks=5, codebook_size=16
    )
    with pytest.raises(
        ConfigError, match=r"reads 5 codebooks of 16 codes, but the codec gives 4 of 16"
    ):
        ModelConfig(codec=tiny.codec_config(), lm=lm, text_delay_s=0.5)


def test_the_initial_id_follows_the_last_text_id_unless_told() -> None:
    lm = tiny.lm_config()
    assert lm.initial_text_id == lm.text_vocab_size
    assert lm.text_rows == lm.text_vocab_size + 1
    other = LMConfig(transformer=tiny.transformer(), text_vocab_size=10, initial_text_id=1)
    assert other.text_rows == 10


def test_samples_that_are_no_whole_frames_say_so() -> None:
    assert whole_frames(3840, 1920) == 2
    with pytest.raises(FrameError, match="3000 samples are not a whole number of frames"):
        whole_frames(3000, 1920)
