"""Configs are strict, and what follows from a number is derived, not repeated."""

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
    with pytest.raises(ConfigError, match="TransformerConfig has no key 'windows'"):
        ModelConfig.from_dict(values)


def test_a_missing_key_is_named() -> None:
    values = tiny.model_config().to_dict()
    del values["text_delay_s"]
    with pytest.raises(ConfigError, match="lacks the key 'text_delay_s'"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "head_dim: 32 is not a whole multiple of 3"),
        ({"window": 0}, "window must be at least 1"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"norm": "batch"}, "norm must be 'layer' or 'rms'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformerConfig.from_dict({**tiny.transformer().to_dict(), "head_dim": 0, **change})


def test_the_two_halves_must_fit() -> None:
    lm = LMConfig(
        transformer=tiny.transformer(), text_vocab_size=10, num_codebooks=5, codebook_size=16
    )
    with pytest.raises(
        ConfigError, match=r"reads 5 codebooks of 16 codes, the codec gives 4 of 16"
    ):
        ModelConfig(codec=tiny.codec_config(), lm=lm, text_delay_s=0.5)


def test_the_initial_id_follows_the_last_text_id_unless_told() -> None:
    lm = tiny.lm_config()
    assert lm.initial_text_id == lm.text_vocab_size
    assert lm.text_rows == lm.text_vocab_size + 1
    other = LMConfig(transformer=tiny.transformer(), text_vocab_size=10, initial_text_id=1)
    assert other.text_rows == 10


def test_a_delay_need_not_be_whole_frames() -> None:
    assert tiny.model_config().text_delay_frames == 6.25


def test_samples_that_are_no_whole_frames_say_so() -> None:
    assert whole_frames(3840, 1920) == 2
    with pytest.raises(FrameError, match="3000 samples are not a whole number of frames"):
        whole_frames(3000, 1920)
