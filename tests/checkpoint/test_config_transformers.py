"""transformers' config.json, read and written; its class defaults are what kiku thinks they are."""

import warnings
from dataclasses import replace
from typing import Any

import pytest

from kiku.checkpoint.config_transformers import (
    CODEC_DEFAULTS,
    DEFAULTS,
    filled,
    read_transformers,
    read_transformers_codec,
    rope_theta,
    write_preprocessor,
    write_transformers,
)
from kiku.config import CodecConfig, ModelConfig
from kiku.errors import ConfigError, UnsupportedConfig
from tests import tiny
from tests.checkpoint.models import one_b, two_b


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


@pytest.mark.filterwarnings("ignore")
def test_class_defaults(transformers: Any) -> None:
    config = transformers.KyutaiSpeechToTextConfig().to_dict()
    for key, value in DEFAULTS.items():
        assert value is None or config[key] == value, key
    codec = transformers.MimiConfig().to_dict()
    for key, value in CODEC_DEFAULTS.items():
        seen = tuple(codec[key]) if isinstance(codec[key], list) else codec[key]
        assert value is None or seen == value, key
    assert read_transformers_codec(codec) == read_transformers_codec({}) == CodecConfig()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [one_b(), two_b()])
def test_transformers_understands_what_kiku_writes(model: ModelConfig, transformers: Any) -> None:
    config = transformers.KyutaiSpeechToTextConfig(**write_transformers(model))
    assert config.frame_size == model.frame_size
    assert config.codec_config.frame_rate == model.frame_rate
    assert config.rope_parameters["rope_theta"] == 100_000.0
    again = read_transformers(
        filled(config.to_dict()), write_preprocessor(model), last_head_row_is_zero=True
    )
    assert again == model


def test_without_a_pad_id_it_is_that_of_the_published_models() -> None:
    values = filled(write_transformers(replace(tiny.model_config(), pad_id=1)))
    read = read_transformers({**values, "pad_token_id": None}, {}, last_head_row_is_zero=True)
    assert read.pad_id == 3


@pytest.mark.parametrize("zero", [True, False])
def test_what_is_written_is_read_back(zero: bool) -> None:
    lm = tiny.lm_config(num_pause_heads=0)
    if not zero:
        lm = replace(lm, initial_text_id=5)
    model = replace(tiny.model_config(), lm=lm, silence_prefix_s=0.5, pad_id=1)
    read = read_transformers(
        filled(write_transformers(model)), write_preprocessor(model), last_head_row_is_zero=zero
    )
    assert read == model


def test_a_codec_without_projections() -> None:
    codec = replace(tiny.codec_config(), codebook_dim=32, project_latents=False)
    model = replace(tiny.model_config(), codec=codec)
    assert read_transformers_codec(write_transformers(model)["codec_config"]) == codec
    with pytest.raises(UnsupportedConfig, match="to their own width"):
        write_transformers(replace(model, codec=replace(codec, project_latents=True)))


def test_theta_in_both_spellings() -> None:
    assert rope_theta({}) is None
    assert rope_theta({"rope_theta": 5}) == 5.0
    assert rope_theta({"rope_theta": 5, "rope_parameters": {"rope_theta": 7}}) == 7.0
    assert rope_theta({"rope_theta": 5, "rope_scaling": None}) == 5.0
    with pytest.raises(UnsupportedConfig, match="linear"):
        rope_theta({"rope_theta": 5, "rope_scaling": {"type": "linear", "factor": 2}})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"use_conv_shortcut": True}, UnsupportedConfig),
        ({"pad_mode": "reflect"}, UnsupportedConfig),
        ({"codebook_dim": 128}, UnsupportedConfig),
        ({"num_key_value_heads": 2}, UnsupportedConfig),
        ({"frame_rate": 25.0}, UnsupportedConfig),
        ({"num_semantic_quantizers": 32}, ConfigError),
    ],
)
def test_codecs_that_kiku_does_not_build(change: dict[str, Any], error: type[ConfigError]) -> None:
    with pytest.raises(error):
        read_transformers_codec(change)


def test_the_frame_rate_that_older_files_state() -> None:
    assert read_transformers_codec({"frame_rate": 12.5}) == CodecConfig()
