"""Configs go to transformers and back, and say the same there."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kiku.errors import CheckpointError, InputError, UnsupportedConfig
from kiku.hf import (
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
    KyutaiSpeechToTextTokenizer,
    MimiConfig,
)
from tests.checkpoint.cached_repo import REPO, FakeHub, cache_repo
from tests.hf.tiny_checkpoint import CONFIG, VOCAB_SIZE

# Said by every config of transformers, or about the file itself.
GENERAL = {"dtype", "architectures", "rope_parameters", "_frame_rate"}


def same(ours: dict[str, Any], theirs: Any) -> None:
    """Every field of their class has the same value in ours."""
    fields = theirs.to_dict()
    base = type(theirs).__mro__[1]().to_dict().keys() - ours.keys()
    for key in fields.keys() - base - GENERAL:
        if key == "codec_config":
            same(ours[key], theirs.codec_config)
        else:
            assert ours[key] == fields[key], key


def test_defaults_are_those_of_transformers(transformers: ModuleType) -> None:
    ours, theirs = KyutaiSpeechToTextConfig(), transformers.KyutaiSpeechToTextConfig()
    assert theirs.rope_parameters["rope_theta"] == 10_000.0
    assert ours.rope_theta == 100_000.0  # every published checkpoint's
    same(ours.to_dict(), theirs)
    for name in (
        "frame_size",
        "frame_rate",
        "encodec_frame_rate",
        "latent_stride",
        "latent_dim",
        "num_codebooks",
    ):
        assert getattr(ours.codec_config, name) == getattr(theirs.codec_config, name), name


def test_a_file_of_theirs_reads_the_same(transformers: ModuleType, saved: Path) -> None:
    ours = KyutaiSpeechToTextConfig.from_pretrained(saved)
    theirs = transformers.KyutaiSpeechToTextConfig.from_pretrained(saved)
    same(ours.to_dict(), theirs)
    assert ours.rope_parameters == theirs.rope_parameters
    assert ours.codec_config.rope_parameters == theirs.codec_config.rope_parameters
    assert ours.dtype == torch.float32
    assert ours.frame_size == theirs.frame_size == 64


def test_a_file_of_ours_reads_the_same(transformers: ModuleType, tmp_path: Path) -> None:
    ours = KyutaiSpeechToTextConfig(**CONFIG, delay_in_tokens=5)
    ours.save_pretrained(tmp_path)
    theirs = transformers.KyutaiSpeechToTextConfig.from_pretrained(tmp_path)
    assert theirs.delay_in_tokens == 5
    same(ours.to_dict(), theirs)
    assert ours.rope_parameters == theirs.rope_parameters
    assert ours.codec_config.rope_parameters == theirs.codec_config.rope_parameters
    again = KyutaiSpeechToTextConfig.from_pretrained(tmp_path)
    assert again == ours


@pytest.mark.parametrize(
    "spelling",
    [{"rope_theta": 5e3}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e3}}],
)
def test_both_spellings_of_theta(tmp_path: Path, spelling: dict[str, Any]) -> None:
    values = {key: value for key, value in CONFIG.items() if key != "rope_parameters"} | spelling
    values["model_type"] = "kyutai_speech_to_text"
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = KyutaiSpeechToTextConfig.from_pretrained(tmp_path)
    assert config.rope_theta == 5e3
    assert config.to_model_config().lm.transformer.rope_theta == 5e3
    assert "rope_theta" not in config.to_dict()


def test_missing_keys_take_the_defaults(tmp_path: Path) -> None:
    given = {"num_hidden_layers": 4, "bos_token_id": 4000, "rope_theta": 1e5}
    values = {"model_type": "kyutai_speech_to_text", **given}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = KyutaiSpeechToTextConfig.from_pretrained(tmp_path)
    assert config.num_attention_heads == 32
    assert config.codec_config == MimiConfig()
    assert config == KyutaiSpeechToTextConfig(**given)


def test_the_published_start_id_becomes_the_trained_one() -> None:
    config = KyutaiSpeechToTextConfig()
    lm = config.to_model_config(text_delay_s=2.5, silence_prefix_s=1.0).lm
    assert config.bos_token_id == 48_000
    assert (lm.text_vocab_size, lm.initial_text_id) == (4000, 4000)
    ordinary = KyutaiSpeechToTextConfig(bos_token_id=1).to_model_config().lm
    assert (ordinary.text_vocab_size, ordinary.initial_text_id) == (4001, 1)
    without = KyutaiSpeechToTextConfig(bos_token_id=None).to_model_config().lm
    assert (without.text_vocab_size, without.initial_text_id) == (4000, 4000)


KINDS = [
    KyutaiSpeechToTextConfig, KyutaiSpeechToTextProcessor, KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextTokenizer, KyutaiSpeechToTextForConditionalGeneration,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_value_never_becomes_one(kind: Any, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take proxies; it takes cache_dir, local_files"):
        kind.from_pretrained(saved, proxies={"http": "x"})
    with pytest.raises(InputError, match="from_pretrained does not know colour; leave it out"):
        kind.from_pretrained(saved, colour="red")
    nothing = dict(
        token=None, cache_dir=None, force_download=False, local_files_only=False, subfolder="",
        revision=None, proxies=None, trust_remote_code=True, anything=None, other=False,
    )  # fmt: skip
    access = {"token": "hf_secret", "cache_dir": str(tmp_path / "c"), "local_files_only": True}
    kind.from_pretrained(saved, **nothing | access).save_pretrained(tmp_path)
    for file in tmp_path.glob("*.json"):
        written = file.read_text()
        assert not any(f'"{name}"' in written for name in nothing), file


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_is_asked_as_the_arguments_say(
    kind: Any, saved: Path, tmp_path: Path, fake_hub: FakeHub
) -> None:
    """With local_files_only not at all, in the cache that was named."""
    cache_repo(tmp_path, saved)
    loaded = kind.from_pretrained(REPO, cache_dir=str(tmp_path), local_files_only=True)
    assert isinstance(loaded, kind)
    assert fake_hub.asked == []
    with pytest.raises(CheckpointError, match="local_files_only forbids the use of the network"):
        kind.from_pretrained(REPO, cache_dir=tmp_path / "empty", local_files_only=True)
    fake_hub.alive = False
    kind.from_pretrained(REPO, cache_dir=tmp_path, token="hf_secret")
    assert fake_hub.asked == [("head", "config.json")], "once, whatever is optional"
    assert fake_hub.given[0]["token"] == "hf_secret"


@pytest.mark.parametrize(
    "wrong",
    [{"token": 5}, {"cache_dir": 5}, {"cache_dir": "~nobody-here/c"}, {"local_files_only": "yes"}],
    ids=str,
)
def test_what_the_hub_cannot_be_asked_with(saved: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
        KyutaiSpeechToTextConfig.from_pretrained(saved, **wrong)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        KyutaiSpeechToTextConfig().save_pretrained(tmp_path / "file")


def test_changes_win_over_the_file(saved: Path) -> None:
    config = KyutaiSpeechToTextConfig.from_pretrained(
        saved, sliding_window=5, output_hidden_states=True, rope_theta=5e3
    )
    assert (config.sliding_window, config.output_hidden_states) == (5, True)
    assert config.rope_theta == 5e3
    older = KyutaiSpeechToTextConfig.from_pretrained(saved, torch_dtype="bfloat16")
    assert older.dtype == torch.bfloat16


REFUSED: dict[str, dict[str, Any]] = {
    "odd ffn_dim": {"ffn_dim": 39},
    "codebooks": {"codec_config": {"num_quantizers": 4, "num_semantic_quantizers": 4}},
    "codebook_size": {"codec_config": {"codebook_size": 12}},
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_as_transformers(transformers: ModuleType, case: str) -> None:
    for cls in (transformers.KyutaiSpeechToTextConfig, KyutaiSpeechToTextConfig):
        with pytest.raises(Exception, match=r"must be even|should be lower|power of 2") as caught:
            cls(**REFUSED[case])
    assert isinstance(caught.value, ValueError)


def test_what_kiku_does_not_build_is_said() -> None:
    with pytest.raises(UnsupportedConfig, match="encodec"):
        KyutaiSpeechToTextConfig(codec_config={"model_type": "encodec"})
    with pytest.raises(UnsupportedConfig, match="num_key_value_heads"):
        KyutaiSpeechToTextConfig(**{**CONFIG, "num_key_value_heads": 2}).to_model_config()
    with pytest.raises(UnsupportedConfig, match="linear"):
        KyutaiSpeechToTextConfig(rope_parameters={"rope_type": "linear", "factor": 2.0})


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        KyutaiSpeechToTextConfig.from_pretrained(tmp_path)


def test_configs_compare_by_value() -> None:
    assert KyutaiSpeechToTextConfig(**CONFIG) == KyutaiSpeechToTextConfig(**CONFIG)
    assert KyutaiSpeechToTextConfig(**CONFIG) != KyutaiSpeechToTextConfig(
        **{**CONFIG, "vocab_size": VOCAB_SIZE + 1}
    )
    assert "sliding_window" in repr(KyutaiSpeechToTextConfig())
